"""Ask both engines of sd-mil for the same hostile programs, and the portable one for damaged files.

    uv run python tools/fuzz_engines.py --count 10000
    uv run python tools/fuzz_engines.py --damaged --first 5000 --count 1000

Inputs are numbered; each is a function of its number. They run in child processes, several programs compiled
as one, which is four times faster; what disagrees, and what ends a child, is looked at alone. What counts as
a finding: a signal, an error that is not typed, engines that disagree, more than ``--memory`` MiB taken
beyond what the inputs before took, or a minute.

Tensors are held to 2**20 elements instead of 2**30, so that what is not held to it stands out; a run of the
same numbers finds the same. Exits with 1 when there were findings.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parent.parent / "packages" / "sd-mil" / "tests"
_ELEMENTS = 1 << 20
_SECONDS = 60
#: Of address space: what asks for more than any machine has ends as a MemoryError.
_ADDRESSES = 16 << 30
#: Inputs of one process. What an earlier one damaged in memory may be noticed only when a process ends.
_PER_CHILD = 500

#: Programs that are compiled as one.
_GROUP = 16

#: Of some inputs: what was found, by number.
Attempt = Callable[[Sequence[int]], "dict[int, str]"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options and run the children."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--memory", type=int, default=1024)
    parser.add_argument("--damaged", action="store_true")
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)  # how many at once
    options = parser.parse_args(arguments)
    if options.child:
        _child(options)
        return 0
    findings = 0
    for finding in _findings(options):
        findings += 1
        print(finding, flush=True)
    print(f"{options.count} inputs from {options.first} on: {findings} findings")
    return int(findings > 0)


def _findings(options: argparse.Namespace) -> Iterator[str]:
    """Of all inputs, child after child; those among which one ends a child are tried again one by one."""
    group = 1 if options.damaged else _GROUP
    ends = options.first + options.count
    spans = [
        (first, min(first + _PER_CHILD, ends), group) for first in range(options.first, ends, _PER_CHILD)
    ]
    while spans:
        first, end, group = spans.pop(0)
        reached, found, code = _run_child(options, first, end, group)
        yield from found
        if code and group == 1:
            yield f"{reached}: the process ended with {_reason(code)}"
        if code:
            after = min(reached + group, end)
            again = [(reached, after, 1)] if group > 1 else []
            spans[:0] = [*again, *([(after, end, group)] if after < end else [])]


def _run_child(options: argparse.Namespace, first: int, end: int, group: int) -> tuple[int, list[str], int]:
    """The last number that was begun with, what was found, and how the child ended."""
    reached, found = first, []
    command = [sys.executable, __file__, "--child", str(group), "--first", str(first)]
    command += ["--count", str(end - first), "--memory", str(options.memory)]
    command += ["--damaged"] if options.damaged else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout or ():
            number, _, said = line.rstrip("\n").partition(" ")
            if said:
                found.append(f"{number}: {said}")
            elif number.isdigit():
                reached = int(number)
    return reached, found, child.returncode


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"


def _child(options: argparse.Namespace) -> None:
    """Print the first number of a group before it is tried, and each with what was found."""
    sys.path.insert(0, str(_TESTS))
    from sd_mil.ir import limits

    limits.MAX_COMPUTED_ELEMENTS, limits.MAX_DECLARED_BYTES = _ELEMENTS, 4 * _ELEMENTS
    limits.MAX_ITERATIONS = 1000
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    with _attempts(damaged=options.damaged) as attempt:
        peak = _peak()
        end = options.first + options.count
        for first in range(options.first, end, options.child):
            print(first, flush=True)
            signal.alarm(_SECONDS)
            found = attempt(range(first, min(first + options.child, end)))
            signal.alarm(0)
            grown, peak = _peak() - peak, _peak()
            if grown > options.memory:
                found = {first: f"took {grown} MiB with those after it", **found}
            for number, said in found.items():
                print(number, " ".join(said.split()), flush=True)


@contextmanager
def _attempts(*, damaged: bool) -> Iterator[Attempt]:
    if damaged:
        damaged_portable: Any = importlib.import_module("damaged_portable")
        with damaged_portable.seeds() as seeds:
            yield partial(_damaged, partial(damaged_portable.outcome, seeds))
    else:
        adversarial: Any = importlib.import_module("adversarial")
        yield adversarial.differences


def _damaged(outcome: Callable[[int], str], numbers: Sequence[int]) -> dict[int, str]:
    found = {}
    for number in numbers:
        try:
            outcome(number)
        except Exception as error:
            found[number] = f"{type(error).__name__}: {error}"
    return found


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    sys.exit(main())

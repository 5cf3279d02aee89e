"""Ask both engines of sd-mil for the same hostile programs, and the portable one for damaged files.

    uv run python tools/fuzz_engines.py --count 10000
    uv run python tools/fuzz_engines.py --damaged --first 5000 --count 1000

Inputs are numbered; each is a function of its number. They run in child processes, which are started again
behind an input that ends one. What counts as a finding: a signal, an error that is not typed, engines that
disagree, more than ``--memory`` MiB taken by one input beyond what those before it took, or a minute.

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

Attempt = Callable[[int], "str | None"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options and run the children."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--memory", type=int, default=1024)
    parser.add_argument("--damaged", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
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
    """Of all inputs, child after child."""
    first, end = options.first, options.first + options.count
    while first < end:
        count = min(_PER_CHILD, end - first)
        reached = first
        command = [sys.executable, __file__, "--child", "--first", str(first), "--count", str(count)]
        command += ["--memory", str(options.memory), *(["--damaged"] if options.damaged else [])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            for line in child.stdout or ():
                number, _, said = line.rstrip("\n").partition(" ")
                reached = int(number) if number.isdigit() else reached
                if said:
                    yield f"{number}: {said}"
        if child.returncode:
            yield f"{reached}: the process ended with {_reason(child.returncode)}"
        first = reached + 1 if child.returncode else first + count


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"


def _child(options: argparse.Namespace) -> None:
    """Print each number before its input is tried, and again with what was found."""
    sys.path.insert(0, str(_TESTS))
    from sd_mil.ir import limits

    limits.MAX_COMPUTED_ELEMENTS, limits.MAX_DECLARED_BYTES = _ELEMENTS, 4 * _ELEMENTS
    limits.MAX_ITERATIONS = 1000
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    with _attempts(damaged=options.damaged) as attempt:
        peak = _peak()
        for number in range(options.first, options.first + options.count):
            print(number, flush=True)
            signal.alarm(_SECONDS)
            found = attempt(number)
            signal.alarm(0)
            grown, peak = _peak() - peak, _peak()
            if grown > options.memory:
                found = f"took {grown} MiB; {found or 'no other finding'}"
            if found:
                print(number, " ".join(found.split()), flush=True)


@contextmanager
def _attempts(*, damaged: bool) -> Iterator[Attempt]:
    if damaged:
        damaged_portable: Any = importlib.import_module("damaged_portable")
        with damaged_portable.seeds() as seeds:
            yield partial(_damaged, partial(damaged_portable.outcome, seeds))
    else:
        adversarial: Any = importlib.import_module("adversarial")
        yield adversarial.difference


def _damaged(outcome: Callable[[int], str], number: int) -> str | None:
    try:
        outcome(number)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    sys.exit(main())

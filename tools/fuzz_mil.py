"""Feed sd-mil damaged models until one of them is not answered by a typed error.

    uv run --with atheris python tools/fuzz_mil.py --seconds 600

Needs atheris, which is not a dependency of the workspace. Each input is a valid package, compiled model or
pipeline with a part of it replaced; it is read, compiled for the reference engine and run. What counts as a
finding: any other exception than ``SdMilError``, more than a second of processor time, or more than 1 GiB of
memory. A finding is written to ``--findings``, and ``--replay FILE`` runs it again.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz_models import Target

_SECONDS = 1.0
_HANG = 5
_MEMORY = 1 << 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args(arguments)
    try:
        import atheris
    except ImportError:
        print("fuzz_mil needs atheris: uv run --with atheris python tools/fuzz_mil.py", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["sd_mil"]):
        from fuzz_models import Target
    memory = "/dev/shm"  # noqa: S108 -- writing files is most of the work
    with tempfile.TemporaryDirectory(dir=memory if Path(memory).is_dir() else None) as folder:
        target = Target(Path(folder))
        if options.replay is not None:
            print(target.run(options.replay.read_bytes()))
        else:
            _fuzz(target, options)
    return 0


def _fuzz(target: Target, options: argparse.Namespace) -> None:
    import atheris

    resource.setrlimit(resource.RLIMIT_AS, (8 * _MEMORY, 8 * _MEMORY))
    signal.signal(signal.SIGALRM, _hung)
    tried: Counter[str] = Counter()
    limits = (f"-max_total_time={options.seconds}", f"-seed={options.seed}", "-max_len=400", "-verbosity=0")
    atheris.Setup([sys.argv[0], *limits], lambda data: _one_input(target, data, options.findings, tried))
    atheris.Fuzz()


def _one_input(target: Target, data: bytes, findings: Path, tried: Counter[str]) -> None:
    started, memory = time.process_time(), _peak()
    signal.alarm(_HANG)
    try:
        outcome = target.run(data)
    except Exception as error:
        outcome = type(error).__name__
        _record(findings, data, f"{outcome}: {error}")
    finally:
        signal.alarm(0)
    spent, grown = time.process_time() - started, _peak() - memory
    if spent > _SECONDS:
        _record(findings, data, f"took {spent:.1f} s")
    if grown > _MEMORY:
        _record(findings, data, f"took {grown >> 20} MiB")
    tried[outcome] += 1
    if tried.total() % 1000 == 0:
        print(tried.total(), dict(tried.most_common()), flush=True)


def _hung(_: int, __: FrameType | None) -> None:
    raise TimeoutError(f"expected an answer within {_HANG} s")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _record(folder: Path, data: bytes, what: str) -> None:
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256(data).hexdigest()[:16]
    (folder / name).write_bytes(data)
    print(f"{name}: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

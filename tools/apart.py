"""Python in a process of its own, with its time and its peak memory: what the benchmarks measure with.

Linux counts a parent's peak memory as that of the children it starts, so whoever measures memory prepares
its inputs apart, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """One process: wall seconds, peak resident gigabytes, and what it printed."""

    seconds: float
    peak: float
    printed: str


class ProcessError(Exception):
    """A process that was measured failed."""


def python(*arguments: object, environment: Mapping[str, str] | None = None, quiet: bool = False) -> Measured:
    """Run this Python with arguments (a file, ``-m module`` or ``-c code`` first), and measure it.

    ``environment`` is added to this process's own. Errors appear where this process's do, unless
    ``quiet``.

    Raises:
        ProcessError: the process ended with another status than zero.
    """
    command = [sys.executable, *map(str, arguments)]
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds, process.returncode = time.perf_counter() - began, os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ProcessError(f"{' '.join(command)} exited with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Measured(seconds, usage.ru_maxrss * unit / 1e9, printed)

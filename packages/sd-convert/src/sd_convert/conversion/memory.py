"""The process' memory: how much it has taken at most, and when Python looks for garbage."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def peak_memory() -> int | None:
    """The high-water mark of this process in bytes since it started, mapped files that were read included.

    ``None`` on systems that do not say (Windows).
    """
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others kibibytes


@contextmanager
def collector_paused() -> Iterator[None]:
    """No automatic search for garbage: importing libraries and tracing make a million objects that stay.

    Looking through them again and again took a tenth of a conversion's time. :func:`collect` looks once.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()  # what the process already holds is not looked at by :func:`collect`
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def collect() -> None:
    """Free cycles among what was made since the pause began, or since the last call."""
    gc.collect()
    gc.freeze()

"""How much memory the process has taken at most."""

from __future__ import annotations

import sys


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

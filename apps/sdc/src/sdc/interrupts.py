"""Whether somebody interrupted the command line, and what is said then."""

from __future__ import annotations

import signal
from types import FrameType

#: 128 + SIGINT, as shells have it.
INTERRUPTED = 130
SAID = "interrupted; what was there before is as it was"


class _Interrupts:
    """Whether there was one."""

    came = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Remember it, and raise :class:`KeyboardInterrupt`."""
        self.came = True
        signal.default_int_handler(number, frame)


interrupts = _Interrupts()

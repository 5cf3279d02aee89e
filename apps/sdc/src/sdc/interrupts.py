"""Whether somebody interrupted the command line or asked it to end, and what is said then."""

from __future__ import annotations

import signal
from types import FrameType

SAID = "interrupted; what was there before is as it was"


class _Interrupts:
    """The signal that came, if one did."""

    number = 0

    @property
    def came(self) -> bool:
        """Whether there was one."""
        return self.number != 0

    @property
    def status(self) -> int:
        """128 + the signal, as shells have it; that of an interrupt where Python noticed it alone."""
        return 128 + (self.number or signal.SIGINT)

    def listen(self) -> None:
        """Note Ctrl-C, and what ``kill`` and job schedulers send: temporary files go in either case."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.note)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Remember it, and raise :class:`KeyboardInterrupt`."""
        self.number = number
        signal.default_int_handler(number, frame)


interrupts = _Interrupts()

"""Where ``sdc`` starts: nothing but what it takes to be interrupted at any moment.

An interrupt while libraries are imported may be lost on its way: an import that was broken off leaves half a
module behind, and what reaches the command line is the error of whoever wanted the other half.
"""

from __future__ import annotations

import signal
import sys
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


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, interrupts.note)
    try:
        from sdc.cli import main as run
    except (KeyboardInterrupt, Exception) as error:
        if not interrupts.came:
            raise error
        sys.stderr.write(f"sdc: {SAID}\n")
        sys.exit(INTERRUPTED)
    run()

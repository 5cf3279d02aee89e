"""Where ``sdc`` starts: nothing but what it takes to be interrupted at any moment.

An interrupt while libraries are imported may be lost on its way: an import that was broken off leaves half a
module behind, and what reaches the command line is the error of whoever wanted the other half.
"""

from __future__ import annotations

import sys

from sdc.interrupts import SAID, interrupts


def main() -> None:
    """Run the command line."""
    interrupts.listen()
    try:
        from sdc.cli import main as run
    except (KeyboardInterrupt, Exception) as error:
        if not interrupts.came:
            raise error
        sys.stderr.write(f"sdc: {SAID}\n")
        sys.exit(interrupts.status)
    run()

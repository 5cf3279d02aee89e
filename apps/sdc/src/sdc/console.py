"""What the commands print: tables, sizes, seconds, and a bar for long work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text


def console(*, err: bool = False) -> Console:
    """A rich console on standard output, or on standard error.

    What it prints is plain text: names and prompts come from outside, and may look like rich's markup.
    """
    from rich.console import Console

    return Console(stderr=err, highlight=False, markup=False, emoji=False)


def styled(text: str, style: str) -> Text:
    """A text in bold, in red, ...: for our own words around what came from outside."""
    from rich.text import Text

    return Text(text, style=style)


def progress() -> Progress:
    """A bar on standard error that goes away when the work is done."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    errors = console(err=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


def table(*headings: str, title: str | None = None) -> Table:
    """A plain table; the first column holds names, the others numbers."""
    from rich import box
    from rich.table import Table

    result = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, heading in enumerate(headings):
        result.add_column(heading, justify="left" if index == 0 else "right")
    return result


def size(count: float) -> str:
    """A number of bytes for people: ``1.6 MB`` (powers of ten, as disks are sold)."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

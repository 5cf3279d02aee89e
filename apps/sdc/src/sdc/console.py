"""What the commands print: tables, sizes, seconds, and a bar for long work.

Names, metadata and prompts come from outside. They are printed, never obeyed: neither by rich, as markup, nor
by the terminal, as escape sequences that recolour, retitle or overwrite what others have said.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.progress import Progress
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text


#: What a terminal acts on instead of showing it: control characters but for tabs and line feeds, and those
#: that turn the direction of writing.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""``text`` with ``\x1b`` and its like as the four characters that Python writes for them."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def printable_json(text: str) -> str:
    r"""JSON with ``\u009b`` and its like for what ``json.dumps(..., ensure_ascii=False)`` leaves as it is."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t")


def console(*, err: bool = False) -> Console:
    """A rich console on standard output, or on standard error, to which all text is plain text."""
    from rich.console import Console
    from rich.segment import Segment

    class PlainConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            """Text as it will be seen, before columns are measured."""
            return super().render_str(printable(text), **options)

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            """All that is printed comes by here, without the codes of its style."""
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else printable(text), style, control)

    return PlainConsole(stderr=err, highlight=False, markup=False, emoji=False)


def styled(text: str, style: str) -> Text:
    """A text in bold, in red, ...: for our own words around what came from outside."""
    from rich.text import Text

    return Text(printable(text), style=style)


def progress(*, rate: str | None = None) -> Progress:
    """A bar on standard error that goes away when the work is done.

    ``rate``: say, in this unit, how fast it goes, and how long it will take.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            """Finished ones for each second."""
            return styled("" if task.speed is None else f"{task.speed:.2f} {rate}", "cyan")

    errors = console(err=True)
    more = () if rate is None else (Rate(), TimeRemainingColumn())
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *more,
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


def table(*headings: str, title: str | None = None) -> Table:
    """A plain table; the first column holds names, the others numbers."""
    from rich import box
    from rich.table import Table

    class OneLineTable(Table):
        def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
            """A name with a line feed in it is no second row."""
            lines = (_one_line(cell) if isinstance(cell, str) else cell for cell in cells)
            super().add_row(*lines, **options)

    result = OneLineTable(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
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


def decibels(value: float | None) -> str:
    """``41.2``, or ``equal`` where not a bit differs: None, or infinite."""
    return "equal" if value is None or value == math.inf else f"{value:.1f}"

"""The report as one HTML file that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from sd_compress.report.chart import charts
from sd_compress.report.report import Candidate, LayerRow, Report, ReportError

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES: Final = "templates"


def render_page(report: Report) -> str:
    """HTML with its style, script and pictures inside.

    Names and prompts come from outside: the template escapes them all, and the page's own content security
    policy lets no script run but the one that is here by its hash, and nothing be fetched.

    Raises:
        ReportError: Jinja2 is not installed.
    """
    style, script = _asset("page.css"), _asset("page.js")
    page = _environment().get_template("page.html.j2")
    return page.render(
        report=report,
        charts=charts(report),
        shown=report.choice or report.candidates[-1],
        largest=max((row.elements for row in report.layers), default=1),
        sensitivities=_ranges(report),
        style=_markup(style),
        script=_markup(script),
        policy=_policy(script),
    )


def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise ReportError("the page needs Jinja2: pip install 'sd-compress[report]'") from None
    environment = Environment(
        loader=PackageLoader(__package__, _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    return environment


def _asset(name: str) -> str:
    return (files(__package__) / _TEMPLATES / name).read_text(encoding="utf-8")


def _markup(text: str) -> Any:
    """Our own text, which stands in the page as it is."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - a file of this package


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def _ranges(report: Report) -> Mapping[str, tuple[float, float]]:
    """The least and the largest sensitivity of each width that any layer has."""
    if report.sensitivity is None:
        return {}
    ranges = {}
    for width in map(str, report.sensitivity.widths):
        if values := [row.sensitivity[width] for row in report.layers if width in row.sensitivity]:
            ranges[width] = min(values), max(values)
    return ranges


def _megabytes(count: float) -> str:
    """Powers of ten, as disks are sold; three digits, and no more than two after the point."""
    megabytes = count / 1e6
    return f"{megabytes:,.0f}" if megabytes >= 100 else f"{megabytes:.{1 if megabytes >= 10 else 2}f}"


def _decibels(snr: float | None) -> str:
    return "equal" if snr is None else f"{snr:.1f}"


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _stored(row: LayerRow, candidates: tuple[Candidate, ...]) -> str:
    """Bytes at each candidate, in their order; empty where it is not known."""
    return ",".join(str(row.stored.get(candidate.name, "")) for candidate in candidates)


def _within(value: float, bounds: tuple[float, float], worst: str) -> float:
    """Where a value lies from the harmless end of its range (0) to the worst (1)."""
    low, high = bounds
    share = (value - low) / (high - low) if high > low else 0.0
    return round(share if worst == "high" else 1 - share, 3)


_FILTERS: Final[Mapping[str, Any]] = {
    "megabytes": _megabytes,
    "decibels": _decibels,
    "shape": _shape,
    "duration": _duration,
    "data_uri": _data_uri,
    "stored": _stored,
    "within": _within,
}

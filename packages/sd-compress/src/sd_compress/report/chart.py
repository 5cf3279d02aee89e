"""Size against signal to noise as numbers that a page can place: every position is in percent of the plot."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sd_compress.report.report import Candidate, Part, Report

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_TICKS = 6
#: Room above the best candidate, for its label.
_HEADROOM = 1.08


@dataclass(frozen=True, slots=True)
class Tick:
    """A number on an axis."""

    label: str
    at: float


@dataclass(frozen=True, slots=True)
class Dot:
    """One candidate: ``series`` is the number of its line, None for a recipe, which stands alone."""

    candidate: Candidate
    part: Part
    x: float
    y: float
    series: int | None


@dataclass(frozen=True, slots=True)
class Line:
    """The candidates of one method, from the smallest to the largest: ``points`` are (x, y) from below."""

    method: str
    series: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Megabytes to the right and decibels upwards, of one component; ``wanted`` is the height of the goal."""

    component: str
    original: Part
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    lines: tuple[Line, ...]
    wanted: float | None


def charts(report: Report) -> tuple[Chart, ...]:
    """A chart for each component of which there are candidates to show."""
    made = (_chart(report, component) for component in report.components)
    return tuple(chart for chart in made if chart.dots)


def _chart(report: Report, component: str) -> Chart:
    pairs = [(candidate, candidate.part(component)) for candidate in report.candidates[1:]]
    original = report.original.part(component)
    largest = max((part.stored_bytes for _, part in pairs), default=original.stored_bytes) / 1e6
    levels = [part.snr for _, part in pairs if part.snr is not None]
    right = ticks(0.0, largest)
    up = ticks(min([0.0, *levels]), _HEADROOM * max([report.wanted_snr, *levels]))
    series = _series(candidate for candidate, _ in pairs)
    dots = tuple(
        Dot(
            candidate,
            part,
            x=_share(part.stored_bytes / 1e6, right),
            y=100.0 if part.snr is None else _share(part.snr, up),
            series=series.get(candidate.method) if candidate.kind == "uniform" else None,
        )
        for candidate, part in pairs
    )
    wanted = _share(report.wanted_snr, up)
    return Chart(
        component,
        original,
        x_ticks=tuple(Tick(f"{value:g}", _share(value, right)) for value in right),
        y_ticks=tuple(Tick(f"{value:g}", _share(value, up)) for value in up),
        dots=dots,
        lines=tuple(_line(method, number, dots) for method, number in series.items()),
        wanted=wanted if 0 <= wanted <= 100 else None,
    )


def _series(candidates: Iterable[Candidate]) -> dict[str, int]:
    """The methods that were tried at several widths, numbered in their order."""
    methods = dict.fromkeys(candidate.method for candidate in candidates if candidate.kind == "uniform")
    return {method: number for number, method in enumerate(methods)}


def _line(method: str, series: int, dots: tuple[Dot, ...]) -> Line:
    points = sorted((dot.x, dot.y) for dot in dots if dot.series == series)
    return Line(method, series, tuple(points))


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Round numbers, about six, from one at or below ``low`` to one at or above ``high``.

    Example:
        >>> ticks(0, 41.7)
        (0.0, 10.0, 20.0, 30.0, 40.0, 50.0)
    """
    span = max(high - low, 1e-6)
    size = 10.0 ** math.floor(math.log10(span / _MOST_TICKS))
    step = next(size * one for one in _STEPS if size * one * _MOST_TICKS >= span)
    first, last = math.floor(low / step), math.ceil(high / step)
    return tuple(round(index * step, 9) for index in range(first, max(last, first + 1) + 1))


def _share(value: float, axis: tuple[float, ...]) -> float:
    return round(100 * (value - axis[0]) / (axis[-1] - axis[0]), 3)

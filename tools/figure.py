"""One figure of speed and memory beside peers, from what the benchmarks wrote with ``--json``.

    uv run python tools/bench_convert.py --components unet --peer --json docs/results/convert.json
    uv run python tools/bench_engine.py --packages SPLIT_EINSUM torch --json docs/results/engine.json
    uv run python tools/figure.py docs/results/convert.json docs/results/engine.json -o docs/figure.svg

Each file is a row of two charts, seconds and memory; ours are blue, peers grey. The background is clear and
the text is grey, so that it is read on dark and on light pages. Equal results make an equal file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: At least 3:1 in contrast to white and to GitHub's dark page.
_TEXT, _OURS, _PEERS = "#7d8590", "#4c7dff", "#8c8f96"
_STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "sdc",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.titlecolor": _TEXT,
    "ytick.color": _TEXT,
}


def drawn(comparisons: Sequence[results.Results]) -> Figure:
    """A row for each comparison; bars from zero, each with its number."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        heights = [len(one.rows) + 1.6 for one in comparisons]
        figure = Figure(figsize=(9.5, 0.4 * sum(heights)), layout="constrained")
        parts = figure.subfigures(len(comparisons), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, one in zip(parts, comparisons, strict=True):
            part.suptitle(one.what, x=0.01, horizontalalignment="left", fontsize=12, fontweight="bold")
            seconds, memory = part.subplots(1, 2)
            _bars(seconds, one, [row.seconds for row in one.rows], "seconds", "{:.1f} s")
            _bars(memory, one, [row.peak_gb for row in one.rows], "peak memory", "{:.1f} GB")
            memory.set_yticks([])
    return figure


def _bars(axes: Axes, comparison: results.Results, values: list[float], title: str, unit: str) -> None:
    rows = comparison.rows
    colours = [_PEERS if row.is_peer else _OURS for row in rows]
    bars = axes.barh([row.name for row in rows], values, color=colours, height=0.7)
    axes.bar_label(bars, [unit.format(value) for value in values], padding=4, color=_TEXT)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlim(0, max(values) * 1.35)
    axes.set_xticks([])
    axes.invert_yaxis()
    axes.patch.set_alpha(0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, draw, write."""
    from matplotlib import rc_context

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    figure = drawn([results.read(path) for path in options.results])
    with rc_context(_STYLE):
        figure.savefig(options.output, format="svg", transparent=True, metadata={"Date": None})
    text = options.output.read_text(encoding="utf-8")
    lines = (line.rstrip() for line in text.splitlines())  # or every commit of it has spaces at its ends
    options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

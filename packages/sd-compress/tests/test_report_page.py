"""The page: what it says, that nothing from outside becomes markup, and where the chart puts things."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import HOSTILE, example_report
from sd_compress.report import Report, render_page
from sd_compress.report.chart import charts, ticks


class Page(HTMLParser):
    """Elements with their attributes, and all text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.is_code = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.is_code = tag in ("script", "style")

    def handle_endtag(self, _: str) -> None:
        self.is_code = False

    def handle_data(self, data: str) -> None:
        if not self.is_code and data.strip():
            self.text.append(" ".join(data.split()))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.elements
            if name == tag
            and all(value in (found.get(key) or "").split() for key, value in attributes.items())
        ]


def test_every_candidate_prompt_and_layer_is_there() -> None:
    report = example_report()
    page = Page(render_page(report))
    text = " ".join(page.text)
    assert all(candidate.name in text for candidate in report.candidates)
    assert all(prompt in page.text for prompt in report.prompts)
    assert all(row.weight in page.text for row in report.layers)
    assert "plan keeps 20.6 dB in 1.87 MB , 21 % of the original’s 8.82 MB." in text
    sources = [image["src"] for image in page.all("img") if image.get("src")]
    assert len(sources) == len(report.prompts) * len(report.candidates)
    assert (
        sources[0] == f"data:image/png;base64,{base64.b64encode(report.candidates[0].pictures[0]).decode()}"
    )


def test_what_comes_from_outside_is_text() -> None:
    plain, hostile = (Page(render_page(example_report(hostile=flag))) for flag in (False, True))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert {name for _, found in hostile.elements for name in found} == {
        name for _, found in plain.elements for name in found
    }
    assert HOSTILE in hostile.text  # also that {{ 7*7 }} was not computed


def test_nothing_is_fetched_and_only_our_script_runs() -> None:
    html = render_page(example_report())
    page = Page(html)
    addresses = [found.get(key) for _, found in page.elements for key in ("src", "href") if found.get(key)]
    assert all(re.match(r"data:|#", address or "") for address in addresses)
    assert not re.search(r"url\(|@import|https?:", html)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [found["content"] or "" for found in page.all("meta") if "http-equiv" in found]
    assert "default-src 'none'" in policy
    assert f"'sha256-{digest}'" in policy


def without_extras(report: Report) -> Report:
    """A single package: no pictures, no sensitivities, nothing chosen."""
    bare = tuple(replace(candidate, pictures=()) for candidate in report.candidates)
    rows = tuple(replace(row, sensitivity={}) for row in report.layers)
    return replace(report, candidates=bare, prompts=(), sensitivity=None, layers=rows, chosen=None)


def test_a_report_without_pictures_or_choice() -> None:
    page = Page(render_page(without_extras(example_report())))
    assert page.all("img") == []
    assert page.all("input", type="range") == []
    assert "No candidate keeps the" in page.text


def test_the_least_report() -> None:
    report = without_extras(example_report(layers=0))
    page = Page(render_page(replace(report, candidates=report.candidates[:1], wanted_snr=0.0)))
    assert page.all("figure") == []
    assert "0 weights, as stored by original" in " ".join(page.text)


def test_dots_lie_where_their_numbers_say() -> None:
    unet, _ = charts(example_report())
    by_name = {dot.candidate.name: dot for dot in unet.dots}
    right, top = float(unet.x_ticks[-1].label), float(unet.y_ticks[-1].label)
    eight = by_name["8 bits"]
    assert eight.x == pytest.approx(100 * 4.1 / right)
    assert eight.y == pytest.approx(100 * 41.7 / top)
    assert unet.wanted == pytest.approx(100 * 20 / top)
    assert by_name["plan"].series is None
    (line,) = unet.lines
    assert line.points == tuple((by_name[n].x, by_name[n].y) for n in ("2 bits", "4 bits", "8 bits"))


def test_a_line_for_each_method() -> None:
    report = example_report()
    calibrated = [
        replace(candidate, name=f"{candidate.name}, calibrated", method="calibrated")
        for candidate in report.candidates[1:4]
    ]
    unet, _ = charts(replace(report, candidates=(*report.candidates, *calibrated)))
    assert [(line.method, line.series, len(line.points)) for line in unet.lines] == [
        ("k-means", 0, 3),
        ("calibrated", 1, 3),
    ]


@given(st.integers(-2000, 0).map(lambda tenths: tenths / 10), st.floats(0.001, 1e5))
def test_ticks_are_few_and_hold_what_is_shown(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high or found[-1] == pytest.approx(high)
    assert 2 <= len(found) <= 8
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert steps == pytest.approx([steps[0]] * len(steps))

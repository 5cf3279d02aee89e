"""The report is JSON in and out, and refuses what contradicts itself."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from reports import example_report
from sd_compress.report import Candidate, OutputSnr, Part, ReportError, read_report, report_json


def test_json_in_and_out() -> None:
    report = example_report()
    text = report_json(report)
    assert read_report(text) == report
    (picture, _) = json.loads(text)["candidates"][0]["pictures"]
    assert base64.b64decode(picture) == report.candidates[0].pictures[0]


def damaged(**changes: object) -> str:
    return json.dumps({**json.loads(report_json(example_report())), **changes})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1", "a JSON document"),
        (damaged(version=2), "expected 1 at $.version, got 2"),
        (damaged(format="x"), "sd-compress-report"),
        (damaged(unknown=1), "$.unknown"),
        (damaged(chosen="5 bits"), "expected one of original, 8 bits, 4 bits, 2 bits, plan at $.chosen"),
        (damaged(candidates=[]), "the original first"),
        (damaged(components=["unet"]), "expected each of unet once at $.candidates[0].parts"),
        (damaged(prompts=["one", "two", "three"]), "one for each of 3 prompts at $.candidates[0].pictures"),
    ],
)
def test_what_contradicts_itself_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ReportError) as error:
        read_report(text)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"), [("R0lGODlh", "a PNG file"), ("a", "base64"), ("é", "base64")]
)
def test_a_picture_is_a_png(content: str, expected: str) -> None:
    document = json.loads(report_json(example_report()))
    document["candidates"][1]["pictures"][0] = content
    with pytest.raises(ReportError, match=expected):
        read_report(json.dumps(document))


def test_names_of_candidates_are_different() -> None:
    report = example_report()
    with pytest.raises(ValueError, match="every name once"):
        replace(report, candidates=(*report.candidates, report.candidates[-1]))


def test_the_worst_output_counts() -> None:
    def part(name: str, *snr: float | None) -> Part:
        return Part(name, "", 4.0, 100, tuple(OutputSnr(str(index), db) for index, db in enumerate(snr)))

    candidate = Candidate("4 bits", "uniform", "k-means", (part("unet", 20.0, 31.0), part("text", None)), ())
    assert (candidate.snr, candidate.stored_bytes) == (20.0, 200)
    assert candidate.keeps(20)
    assert not candidate.keeps(20.1)
    same = replace(candidate, parts=(part("unet", None),))
    assert same.snr is None
    assert same.keeps(1000)

"""What leaving guidance out costs, on a pipeline whose pictures say which steps were guided."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from sdc.benchmarking import markdown_table
from sdc.skipping import COLUMNS, SHARES, row, skipped


class Guided:
    """A tenth of the picture's brightness for each guided step of ten."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def generate(self, prompt: str, *, check_safety: bool, **options: Any) -> list[Any]:
        assert (prompt, check_safety) == ("a", False)
        self.asked.append(options)
        share = options.get("guidance_end", 1.0) - options.get("guidance_start", 0.0)
        grey = round(200 * share)
        return [SimpleNamespace(image=Image.new("RGB", (4, 4), (grey, grey, grey)))]


def test_each_share_is_held_against_full_guidance() -> None:
    pipeline: Any = Guided()
    seen: list[int] = []
    found = skipped(pipeline, "a", {"seed": 3}, seen=lambda: seen.append(1))
    assert [(each.at, each.share) for each in found] == [
        *(("end", share) for share in SHARES),
        *(("start", share) for share in SHARES),
    ]
    assert len(seen) == len(pipeline.asked) == 2 + 2 * len(SHARES)
    assert pipeline.asked[1] == {"seed": 3}
    for each in found:
        expected = 20 * np.log10(200 / (200 * each.share))
        assert each.psnr is not None
        np.testing.assert_allclose(each.psnr, expected, rtol=0.01)
        assert each.saved < 1


def test_generate_measures_its_own_picture(sdc: Any, converted: Path, tmp_path: Path) -> None:
    """The dB that is printed is that of the pictures of both commands."""
    given = ("generate", "a red circle on a blue background", "-i", converted, "--num-inference-steps", 4)
    done = sdc(*given, "-o", tmp_path / "some.png", "--guidance-end", 0.5, "--measure-guidance")
    assert done.status == 0, done.err
    assert sdc(*given, "-o", tmp_path / "all.png").status == 0
    some, whole = (np.asarray(Image.open(tmp_path / name), float) for name in ("some.png", "all.png"))
    expected = 10 * np.log10(255**2 / np.mean((some - whole) ** 2))
    found = re.search(r"guidance left out: ([\d.]+) dB .* instead of ([\d.]+) s", done.out)
    assert found is not None, done.out
    assert abs(float(found[1]) - expected) < 1  # sd-mil's peak is the picture's own
    done = sdc(*given, "-o", tmp_path / "x.png", "--measure-guidance")
    assert done.status == 2
    assert "--guidance-start or --guidance-end with --measure-guidance" in done.err


def test_the_table() -> None:
    (first, *_) = skipped(Guided(), "a", {})  # type: ignore[arg-type]
    cells = row(first)
    assert (cells[0], cells[3]) == ("20% at the end", "14.0")
    lines = markdown_table(COLUMNS, [cells], texts=1).splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: |"
    assert lines[2].startswith("| 20% at the end | ")

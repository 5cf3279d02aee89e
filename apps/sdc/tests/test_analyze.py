"""``sdc analyze``: its numbers against others' arithmetic, its pictures against those of ``sdc generate``."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import click
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sd_compress import Palettize, Recipe, compress, format_recipe, read_recipe, storage, uniform_recipe
from sd_compress.report import Candidate, OutputSnr, Part, Report, read_report
from sd_mil import MLModel, read_package
from sd_runtime import Pipeline, open_bundle, open_model
from sdc.analysis.analysis import analyze, check_outputs, chosen
from sdc.analysis.recording import Recorder, Sample, Samples
from sdc.analysis.settings import FromRecipe, widths
from sdc.analysis.subjects import BundleSubject, Drawing

PROMPT, SEED, STEPS = "a red circle on a blue background", 5, 2


def package_of(bundle: Path, component: str) -> Path:
    opened = open_bundle(bundle)
    return opened.package(opened.component(component))


@pytest.fixture(scope="module")
def report(converted: Path) -> Report:
    """The UNet at 4 bits, and by a recipe that has 8 bits for some of its weights."""
    from sd_mil.engines import OpenVINO

    program = read_package(package_of(converted, "unet")).program
    names = list(uniform_recipe(program, Palettize(8)).schemes)
    recipe = FromRecipe("mixed", Recipe({name: Palettize(8 if "down" in name else 4) for name in names}))
    subject = BundleSubject(open_bundle(converted), ("unet",), Drawing((PROMPT,), SEED, STEPS), OpenVINO())
    return analyze(subject, [*widths([4]), recipe], wanted_snr=15.0, watch=lambda _: None).report


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def test_the_original_is_drawn_as_ever(report: Report, converted: Path) -> None:
    (drawn,) = Pipeline.open(converted, engine="portable").generate(
        PROMPT, seed=SEED, num_inference_steps=STEPS
    )
    np.testing.assert_array_equal(pixels(report.original.pictures[0]), np.asarray(drawn.image))
    assert not np.array_equal(pixels(report.candidates[1].pictures[0]), np.asarray(drawn.image))


def test_decibels_are_those_of_the_network_that_was_drawn_with(report: Report, converted: Path) -> None:
    bundle, recorded = open_bundle(converted), Samples(100)
    unet = bundle.component("unet")
    pipeline = Pipeline(
        bundle,
        lambda one: Recorder(open_model(bundle, one), recorded) if one == unet else open_model(bundle, one),
    )
    pipeline.generate(PROMPT, seed=SEED, num_inference_steps=STEPS)
    package = read_package(package_of(converted, "unet"))
    program = compress(package.program, uniform_recipe(package.program, Palettize(4))).program
    other = MLModel(converted_as(package, program))
    expected = np.concatenate([sample.outputs["noise_pred"].ravel() for sample in recorded])
    got = np.concatenate([other.predict(sample.inputs)["noise_pred"].ravel() for sample in recorded])
    snr = 20 * math.log10(np.linalg.norm(expected) / np.linalg.norm(expected - got))
    (row,) = report.candidate("4 bits").part("unet").outputs
    assert row.output == "noise_pred"
    assert row.snr == pytest.approx(snr, abs=0.01)
    assert 5 < snr < 40
    assert report.samples == {"unet": len(recorded)}


def converted_as(package, program):
    from dataclasses import replace

    return replace(package, program=program)


def test_sizes_are_those_of_the_files(report: Report, converted: Path) -> None:
    folder = package_of(converted, "unet")
    assert report.original.part("unet").stored_bytes == sum(
        p.stat().st_size for p in folder.rglob("*") if p.is_file()
    )
    total = storage(read_package(folder)).total
    assert sum(row.stored["original"] for row in report.layers) == total.stored_bytes
    assert report.original.part("unet").bits_per_weight == pytest.approx(total.bits_per_weight)
    by_name = {row.weight: row for row in report.layers}
    down, up = (
        next(r for name, r in by_name.items() if f"{end}_blocks_0_resnets_0_conv1_w" in name)
        for end in ("down", "up")
    )
    assert down.bits("mixed") == pytest.approx(8, abs=0.9)  # with a table of 256 numbers
    assert up.bits("mixed") == up.bits("4 bits") == pytest.approx(4, abs=0.1)
    assert down.bits("original") == 16
    assert (down.op, down.module) == ("conv", down.weight.removesuffix("_weight"))


def test_a_better_recipe_costs_more_and_keeps_more(report: Report) -> None:
    four, mixed = report.candidates[1:]
    assert four.stored_bytes < mixed.stored_bytes < report.original.stored_bytes
    assert four.snr < mixed.snr
    assert mixed.kind == "recipe"
    assert "8-bit palette" in mixed.part("unet").summary
    assert report.chosen == (four if four.keeps(report.wanted_snr) else mixed).name
    assert "fp32" in report.environment.arithmetic


def test_the_command_writes_a_page_and_prints_json(sdc, converted, tmp_path, monkeypatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("SD_MIL_CACHE", str(cache))
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\n\n{PROMPT}\n", encoding="utf-8")
    done = sdc(
        *("analyze", converted, "--components", "text_encoder", "--bits", "2", "--json"),
        *("--prompts", tmp_path / "prompts.txt", "--num-inference-steps", 1, "--report", tmp_path / "r.html"),
    )
    assert done.status == 0, done.err
    report = read_report(done.out)
    assert [candidate.name for candidate in report.candidates] == ["original", "2 bits"]
    assert report.candidates[1].pictures == ()
    assert report.prompts == (PROMPT,)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 2
    assert page.startswith("<!doctype html>")
    assert not list(cache.glob("*.weights"))  # what is looked at once is not remembered


def test_calibration_adds_better_palettes_mixed_bits_and_sensitivities(sdc, converted, tmp_path) -> None:
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\na green star on a white background\n", encoding="utf-8")
    (tmp_path / "others.txt").write_text(
        "a blue star on a red background\na white circle on a green background\n"
    )
    done = sdc(
        *("analyze", converted, "--components", "text_encoder", "--bits", "4,2", "--json", "--min-snr", 25),
        *("--prompts", tmp_path / "prompts.txt", "--calibrate", tmp_path / "others.txt"),
        *("--num-inference-steps", 1, "--export-recipe", tmp_path / "recipe.json"),
    )
    assert done.status == 0, done.err
    report = read_report(done.out)
    names = ["original", "4 bits", "2 bits", "4 bits, calibrated", "2 bits, calibrated"]
    names += ["mixed bits, as large as 4 bits", "mixed bits, as large as 2 bits", "mixed bits"]
    assert [candidate.name for candidate in report.candidates] == names
    for mixed, uniform in ((names[5], names[3]), (names[6], names[4])):
        planned = report.candidate(mixed)
        assert planned.stored_bytes <= report.candidate(uniform).stored_bytes * 1.005
        assert planned.snr > 0  # measured: more than that is not said, expected noises of 2 bits are too low
        assert re.search(r"planned: [\d.]+ dB expected, within [\d.]+% of the best recipe", planned.method)
    schemes = read_recipe(tmp_path / "recipe.json").schemes
    assert report.choice.name == "mixed bits"
    assert report.choice.snr >= 25  # measured: what is expected is higher by several dB
    assert report.choice.stored_bytes < report.candidate("4 bits, calibrated").stored_bytes
    compressed = [scheme for scheme in schemes.values() if isinstance(scheme, Palettize)]
    # 12 × 4-bit palette, 3 × 2-bit palette; or of one width: 15 × 4-bit palette
    summary = report.choice.parts[0].summary
    assert len(compressed) == sum(map(int, re.findall(r"(\d+) ×", summary)))
    bits = {row.weight: row.bits(report.choice.name) for row in report.layers}
    for name, scheme in schemes.items():
        if isinstance(scheme, Palettize):
            assert scheme.nbits <= bits[name] < scheme.nbits + 2  # with its table
    for width in ("4 bits", "2 bits"):
        plain, better = report.candidate(width), report.candidate(f"{width}, calibrated")
        assert better.snr > plain.snr + 1
        assert better.stored_bytes == pytest.approx(plain.stored_bytes, rel=0.01)
    sensitive = [row for row in report.layers if row.sensitivity]
    assert {row.weight for row in sensitive} == {r.weight for r in report.layers if r.bits("2 bits") < 5}
    assert all(row.sensitivity["4"] > row.sensitivity["2"] for row in sensitive)
    assert report.sensitivity.widths == (4, 2)


def test_nothing_is_measured_on_what_was_learnt_from(sdc, converted, tmp_path) -> None:
    (tmp_path / "p.txt").write_text(f"{PROMPT}\n", encoding="utf-8")
    done = sdc("analyze", converted, "--prompts", tmp_path / "p.txt", "--calibrate", tmp_path / "p.txt")
    assert done.status == 1
    assert "expected other prompts" in done.err


def test_a_single_package(sdc, converted, tmp_path) -> None:
    package = package_of(converted, "text_encoder")
    done = sdc("analyze", package, "--bits", "4,8", "--min-snr", 25)
    assert done.status == 0, done.err
    lines = [line.split() for line in done.out.splitlines() if "bits" in line]
    assert [line[0] for line in lines][1:3] == ["8", "4"]
    assert "is the smallest that keeps 25 dB" in done.out or "no candidate keeps 25 dB" in done.out
    assert "peak memory" in done.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--bits", "5"], "expected widths of 1, 2, 3, 4, 6, 8"),
        (["--bits", "3"], "iOS18"),
        (["--bits", ""], "no width and no recipe was given"),
        (["--components", "unet,elephant"], "elephant"),
        (["--components", "vae_encoder"], "expected components that draw"),
        (["--report", "missing/r.html"], "existing folder"),
        (["--prompts", "empty.txt"], "expected prompts, one in each line, got none"),
        (["--recipe", "other.json"], "another model"),
        (["--recipe", "empty.txt"], "empty.txt: "),
        (["--min-snr", "nan"], "a number of dB"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    sdc, converted, tmp_path, monkeypatch, arguments, expected
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "other.json").write_text(format_recipe(Recipe({"no_such_weight": Palettize(4)})))
    monkeypatch.setattr("sdc.analysis.analysis.look_at_original", lambda *_: pytest.fail("it began to work"))
    done = sdc("analyze", converted, *arguments)
    assert done.status not in (0, 130)
    assert expected in done.err
    assert "unexpected" not in done.err
    assert len(done.err.strip().splitlines()) == 1 or done.err.startswith("Usage:")


def test_a_package_takes_no_prompts(sdc, converted) -> None:
    done = sdc("analyze", package_of(converted, "text_encoder"), "--num-inference-steps", 3)
    assert done.status == 2
    assert "--num-inference-steps" in done.err


def test_what_was_there_stays_when_it_fails(sdc, converted, tmp_path, monkeypatch) -> None:
    page = tmp_path / "r.html"
    page.write_text("before")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sdc.analysis.analysis.look_at", interrupted)
    done = sdc("analyze", converted, "--bits", "4", "--num-inference-steps", 1, "--report", page)
    assert done.status == 130
    assert page.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_a_bundle_that_cannot_draw(sdc, checkpoint, tmp_path) -> None:
    assert sdc("convert", checkpoint, "-o", tmp_path / "b", "--components", "unet").status == 0
    done = sdc("analyze", tmp_path / "b")
    assert done.status == 1
    assert "expected a bundle that draws from text" in done.err


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(0, 60))
def test_samples_are_few_and_evenly_spread(limit: int, count: int) -> None:
    samples = Samples(limit)
    for index in range(count):
        samples.add(Sample({"x": np.array(index)}, {}))
    kept = [int(sample.inputs["x"]) for sample in samples]
    assert len(kept) == len(samples) <= limit
    stride = kept[1] - kept[0] if len(kept) > 1 else max(count, 1)
    assert kept == list(range(0, count, stride))[: len(kept)]
    assert len(kept) == len(range(0, count, stride))
    assert len(kept) >= min(count, (limit + 1) // 2)


def test_what_returns_no_numbers_is_not_taken_for_perfect() -> None:
    class Labels:
        def predict(self, _):
            return {"label": "cat", "probabilities": {"cat": 1.0}, "index": np.array([1])}

    samples = Samples(2)
    Recorder(Labels(), samples).predict({"x": np.zeros(1)})
    assert [dict(sample.outputs) for sample in samples] == [{}]
    with pytest.raises(click.ClickException, match="expected floating point outputs of net"):
        check_outputs({"net": samples})


def candidate(name: str, kind: str, size: int, snr: float | None) -> Candidate:
    return Candidate(name, kind, "", (Part("unet", "", 4.0, size, (OutputSnr("y", snr),)),), ())  # type: ignore[arg-type]


def test_the_smallest_that_keeps_enough_is_chosen() -> None:
    original = candidate("original", "original", 100, None)
    eight, four, two = (candidate(str(n), "uniform", 10 * n, 5.0 * n) for n in (8, 4, 2))
    assert chosen([original, eight, four, two], 20.0) == "4"
    assert chosen([original, eight, four, two], 20.1) == "8"
    assert chosen([original, eight, four, two], 41) is None
    recipe = candidate("plan", "recipe", 50, 30.0)
    assert chosen([original, eight, four, two, recipe], 20.0) == "4"
    assert chosen([original, eight, four, two, recipe], 25.0) == "plan"
    assert chosen([original, eight, four, two, recipe], 31.0) == "8"


def test_of_those_that_are_as_small_the_best_is_chosen() -> None:
    """A plan goes by what it expects; what was measured decides."""
    uniform, plan = candidate("4", "uniform", 304_127, 35.8), candidate("mixed", "recipe", 303_430, 32.2)
    assert chosen([uniform, plan], 30.0) == chosen([plan, uniform], 30.0) == "4"
    assert chosen([uniform, candidate("mixed", "recipe", 250_000, 32.2)], 30.0) == "mixed"

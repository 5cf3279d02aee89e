"""Formats, settings used again, steps that are saved, and options as Apple spells them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from sd_runtime import read_settings

PROMPT = "a red circle on a blue background"


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_like_draws_it_again_and_steps_are_saved(sdc: Any, converted: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "a.png", tmp_path / "b.webp"
    arguments = ("--step-count", 4, "-s", 7, "--scheduler", "euler", "--rng", "torch", "--guidance-scale", 4)
    done = sdc("generate", PROMPT, "-i", converted, "-o", first, *arguments, "--save-every", 2)
    assert done.status == 0, done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-step-002.png", "a.png"]
    assert pixels(tmp_path / "a-step-002.png").shape == pixels(first).shape
    done = sdc("generate", "--like", first, "--resource-path", converted, "--output-path", again)
    assert done.status == 0, done.err
    np.testing.assert_array_equal(pixels(again), pixels(first))
    assert read_settings(again) == read_settings(first)
    done = sdc("generate", "--like", again, "-i", converted, "-o", tmp_path / "c.jpg", "--seed", 8)
    assert done.status == 0, done.err
    assert (read_settings(tmp_path / "c.jpg").seed, read_settings(tmp_path / "c.jpg").rng) == (8, "torch")


def test_like_a_picture_of_a_web_ui(sdc: Any, converted: Path, tmp_path: Path) -> None:
    text = (
        f"{PROMPT}\nNegative prompt: star\nSteps: 2, Sampler: Euler, Schedule type: Karras, CFG scale: 3, "
        "Seed: 5, Size: 128x128, Model: other, RNG: CPU"
    )
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", text)
    Image.new("RGB", (128, 128)).save(tmp_path / "a.png", pnginfo=chunks)
    done = sdc("generate", "--like", tmp_path / "a.png", "-i", converted, "-o", tmp_path / "b.png")
    assert done.status == 0, done.err
    assert "that picture is of other" in done.out
    with Image.open(tmp_path / "b.png") as image:
        said = image.text["parameters"]  # type: ignore[attr-defined]
    assert (
        said.replace("CFG scale: 3.0", "CFG scale: 3").rpartition("Model:")[0] == text.rpartition("Model:")[0]
    )
    chunks.add_text("parameters", text.replace("RNG: CPU", "Clip skip: 9, RNG: CPU"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=chunks)
    done = sdc("generate", "--like", tmp_path / "a.png", "-i", converted, "-o", tmp_path / "c.png")
    assert done.status == 1
    assert "layers to leave out before 'last_hidden_state', got 8" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected a prompt"),
        (
            ("a", "--image-count", "99999", "--grid", "absent/all.png"),
            "Invalid value for --grid: expected an",
        ),
        (("a", "--grid", "a.png"), "expected another file for --grid"),
        (("a", "--grid", "a-8.png", "--seed", "7", "--image-count", "2"), "expected another file for --grid"),
        (
            ("a", "--image-count", "99999", "--grid", "all.png"),
            "expected at most 89478485 pixels in a --grid",
        ),
        (("a", "--prompt", "b"), "expected one prompt"),
        (("a", "--prompts", __file__), "one prompt or --prompts"),
        (("a", "--safety", "blur"), "a bundle with a safety checker for --safety"),
        (("a", "--variation-seed", "3"), "variation_seed and variation_strength together"),
        (("a BREAK b", "--prompt-syntax", "a1111"), "BREAK before window 2"),
        (("a", "--outpaint", "8,8,8,8"), "an image for outpaint"),
        (("a", "--size", "64x64"), "expected a picture size"),
        (("a", "--model-version", "org/other"), "expected a bundle of org/other"),
        (("a", "--model-sources", "compiled"), "expected .mlmodelc alone"),
        (("a", "--unet-batch-one"), "expected a UNet of batch 1"),
        (("a", "--engine", "portable", "--compute-units", "cpuAndNeuralEngine"), "got CPU_AND_NE"),
        (("a", "--compute-unit", "TPU"), "cpuAndNeuralEngine), got 'TPU'"),
    ],
)
def test_what_does_not_fit_is_one_line(
    sdc: Any, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = sdc("generate", *arguments, "-i", converted, "-o", "a.png")
    assert done.status != 0
    assert said in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_command_line_of_apples(sdc: Any, converted: Path, tmp_path: Path) -> None:
    """That of the README, with fewer steps; -o is a folder there."""
    model = json.loads((converted / "manifest.json").read_text())["model"]["identifier"]
    arguments = ("--compute-unit", "ALL", "--model-version", model, "--scheduler", "DPMSolverMultistep")
    steps = ("--num-inference-steps", 1, "--reduce-memory")
    done = sdc(
        "generate", "--prompt", PROMPT, "-i", converted, "-o", tmp_path, "--seed", 93, *arguments, *steps
    )
    assert done.status == 0, done.err
    assert [path.name for path in tmp_path.iterdir()] == ["a_red_circle_on_a_blue_background-93.png"]


def test_a_list_of_prompts_and_variations(sdc: Any, converted: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{PROMPT}\n\n(a red circle:1.3)\n", encoding="utf-8")
    output = tmp_path / "out"
    output.mkdir()
    shared = ("-i", converted, "--num-inference-steps", 1, "--prompt-syntax", "a1111")
    varied = ("--variation-seed", 4, "--variation-strength", 0.2, "--image-count", 2)
    grid = ("--grid", tmp_path / "all.png")
    done = sdc(
        "generate", "--prompts", tmp_path / "list.txt", "-o", output / "a.png", *shared, *varied, *grid
    )
    assert done.status == 0, done.err
    assert "4 image(s)" in done.out
    with Image.open(tmp_path / "all.png") as sheet, Image.open(output / "a-002-4.png") as below_left:
        assert sheet.size == (256, 256)
        assert sheet.crop((0, 128, 128, 256)).tobytes() == below_left.tobytes()
    assert sorted(path.name for path in output.iterdir()) == [
        f"a-{place:03d}-{seed}.png" for place in (1, 2) for seed in (4, 5)
    ]
    settings = read_settings(output / "a-002-5.png")
    assert (settings.prompt, settings.prompt_syntax) == ("(a red circle:1.3)", "a1111")
    assert (settings.seed, settings.variation_seed, settings.variation_strength) == (93, 5, 0.2)
    assert "word for word" not in done.out
    plain = ("-o", tmp_path / "b.png", "-i", converted, "--num-inference-steps", 1)
    assert "(circle:1.2) is read word for word" in sdc("generate", "a (circle:1.2)", *plain).out
    (tmp_path / "list.txt").write_text("\n")
    done = sdc("generate", "--prompts", tmp_path / "list.txt", "-o", output / "a.png", *shared)
    assert done.status != 0
    assert "expected a prompt on each line" in done.err

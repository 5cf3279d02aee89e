"""What compression does to the pictures of the demo checkpoint, plain and calibrated: a table in Markdown.

uv run python tools/compression_report.py                     # a new demo bundle: an hour on two busy cores
uv run python tools/compression_report.py --bundle sdc-demo/bundle --pictures 12

Pictures and noise are of captions and seeds that calibration did not see. Prompt accuracy is the judge's, of
pictures that are drawn with the compressed UNet. "apple" picks the widths by the threshold rule of Apple's
mixed_bit_compression_apply.py, on the same sensitivities: the fewest bits with less noise than a threshold.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sd_bundle import Bundle, BundleComponent, open_bundle
from sd_compress import (
    Calibrated,
    Collecting,
    CompressedProgram,
    Keep,
    Palettize,
    Recipe,
    Selection,
    Sensitivity,
    collect_hessians,
    compress,
    measure_gains,
    optimal_palette,
    plan_for_bytes,
    sensitivities,
    signal_to_noise,
    uniform_recipe,
    weights_of,
    with_target,
)
from sd_mil import MLModel, Package, Program, read_package
from sd_mil.engines import OpenVINO
from sd_runtime import Model, Pipeline, open_model
from sdc.demo.captions import Caption, seen_captions, unseen_captions
from sdc.demo.judge import judge
from sdc.demo.sheet import Exhibit, accuracy
from sdc.recording import Recording

CALIBRATION_SEED, MEASURING_SEED, PICTURE_SEED = 1000, 5000, 9000


@dataclass(frozen=True)
class Subject:
    """The UNet, runs of it to calibrate and to measure with, and captions to draw."""

    bundle: Bundle
    package: Package
    calibration: Sequence[Mapping[str, Any]]
    measuring: Sequence[Mapping[str, Any]]
    captions: Sequence[Caption]
    steps: int
    selection: Selection

    @property
    def program(self) -> Program:
        """In the operations of iOS 18, which has tables of 3 bits."""
        return with_target(self.package.program, 18)


def subject(bundle: Bundle, options: argparse.Namespace) -> Subject:
    """Record the UNet while it draws."""
    (component,) = bundle.components("denoiser")
    seen = random.Random(0).sample(seen_captions(), options.prompts + options.pictures)
    unseen = random.Random(1).sample(unseen_captions(), min(options.pictures // 3, len(unseen_captions())))
    drawn = [*unseen, *seen[options.prompts :]][: options.pictures]

    def runs(captions: Sequence[Caption], seed: int) -> Sequence[Mapping[str, Any]]:
        recording = Recording((component.name,), options.steps, 4, seed, OpenVINO())
        return recording.record(bundle, list(map(str, captions)), lambda _: None)[component.package]

    calibration = runs(seen[: options.prompts], CALIBRATION_SEED)
    measuring = runs(drawn[: options.prompts // 2], MEASURING_SEED)
    package = read_package(bundle.package(component))
    selection = Selection(tuple(options.weights))
    return Subject(bundle, package, calibration, measuring, drawn, options.steps, selection)


@dataclass(frozen=True)
class Row:
    """A way to compress, and what came of it."""

    name: str
    megabytes: float
    bits: float
    snr: float
    accuracy: float


def row(name: str, made: CompressedProgram, known: Subject) -> Row:
    """Measure a compressed UNet."""
    selected = [one for one in weights_of(known.program) if known.selection.has(one)]
    before = sum(one.constant.stored for one in weights_of(known.program))
    saved = sum(one.bytes_before - one.bytes_after for one in made.weights)
    size, elements = before - saved, sum(one.elements for one in selected)
    bits = 8 * (sum(one.constant.stored for one in selected) - saved) / elements
    snr = signal_to_noise(known.program, made.program, known.measuring)
    return Row(name, size / 1e6, bits, snr, prompt_accuracy(known, made.program))


def prompt_accuracy(known: Subject, program: Program) -> float:
    """The share of pictures that show what was asked for."""
    package = replace(known.package, program=program)

    def opened(component: BundleComponent) -> Model:
        if component.role == "denoiser":
            return MLModel(package, "portable")
        return open_model(known.bundle, component, engine="portable")

    pipeline, unseen = Pipeline(known.bundle, opened), set(unseen_captions())
    exhibits = []
    for number, caption in enumerate(known.captions):
        (drawn,) = pipeline.generate(
            str(caption), seed=PICTURE_SEED + number, num_inference_steps=known.steps
        )
        exhibits.append(Exhibit(caption, drawn.image, judge(drawn.image), caption not in unseen))
    return accuracy(exhibits)


def by_threshold(weights: Sequence[Sensitivity], stored_bytes: float) -> Recipe:
    """Apple's rule, with the threshold that leads to ``stored_bytes`` or a little less."""

    def chosen(threshold: float) -> dict[str, Any]:
        picked = {}
        for weight in weights:
            ordered = sorted(weight.candidates, key=lambda one: one.stored_bytes)
            picked[weight.weight] = next((one for one in ordered if one.noise < threshold), ordered[-1])
        return picked

    levels = sorted({one.noise for weight in weights for one in weight.candidates})
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        size = sum(one.stored_bytes for one in chosen(levels[middle] * 1.001).values())
        low, high = (low, middle) if size <= stored_bytes else (middle + 1, high)
    return Recipe({name: one.scheme for name, one in chosen(levels[low] * 1.001).items()})


def rank_correlation(known: Subject, weights: Sequence[Sensitivity], count: int) -> tuple[float, int]:
    """Of the noise that is expected of single weights at 2 bits, and the noise that is measured."""
    chosen = random.Random(2).sample(weights, min(count, len(weights)))
    scheme, runs = Palettize(2), known.measuring[:: max(1, len(known.measuring) // 4)]
    expected, measured = [], []
    for weight in chosen:
        made = compress(known.program, Recipe({weight.weight: scheme}))
        if made.kept:
            continue
        expected.append(next(one.noise for one in weight.candidates if one.scheme == scheme))
        measured.append(-signal_to_noise(known.program, made.program, runs))
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (expected, measured)]
    return float(np.corrcoef(ranks)[0, 1]), len(expected)


def rows(known: Subject, options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Measure everything, saying each row as it comes."""
    program = known.program
    began = time.perf_counter()
    hessians = collect_hessians(program, known.calibration, Collecting())
    say(f"\nHessians: {time.perf_counter() - began:.0f} s")
    began = time.perf_counter()
    gains = measure_gains(program, known.calibration[::7][:3])
    say(f"Gains: {time.perf_counter() - began:.0f} s")
    calibrated = Calibrated(hessians, optimal_palette)
    chosen = [one for one in weights_of(program) if known.selection.has(one)]
    plain = sensitivities(chosen, hessians, optimal_palette, gains=gains, compensated=False)
    compensated = sensitivities(chosen, hessians, optimal_palette, gains=gains)
    if options.correlation:
        correlation, count = rank_correlation(known, plain, options.correlation)
        say(
            f"Rank correlation of expected and measured noise of {count} weights at 2 bits: {correlation:.3f}"
        )
    say("\n| UNet | bits | MB | dB | prompt accuracy |\n|---|---|---|---|---|")
    say(_line(row("16 bits", compress(program, uniform_recipe(program, Keep(), known.selection)), known)))
    for nbits in options.widths:
        recipe = uniform_recipe(program, Palettize(nbits), known.selection)
        for name, assign in ((f"{nbits} bits", optimal_palette), (f"{nbits} bits, calibrated", calibrated)):
            say(_line(row(name, compress(program, recipe, assign=assign), known)))
    for nbits in options.mixed:
        every = [one for each in plain for one in each.candidates if one.scheme == Palettize(nbits)]
        uniform = sum(one.stored_bytes for one in every)
        plan = plan_for_bytes(plain, uniform)
        say(_line(row(f"mixed {nbits}", compress(program, Recipe(plan.schemes)), known)))
        threshold = by_threshold(plain, uniform)
        say(_line(row(f"mixed {nbits}, apple's rule", compress(program, threshold), known)))
        plan = plan_for_bytes(compensated, uniform)
        made = compress(program, Recipe(plan.schemes), assign=calibrated)
        say(_line(row(f"mixed {nbits}, calibrated (gap {plan.gap:.1%})", made, known)))


def _line(one: Row) -> str:
    return f"| {one.name} | {one.bits:.2f} | {one.megabytes:.2f} | {one.snr:.1f} | {one.accuracy:.0%} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="a bundle of the demo checkpoint; by default a new one")
    parser.add_argument("--prompts", type=int, default=16, help="how many captions to calibrate with")
    parser.add_argument("--pictures", type=int, default=24, help="how many to draw for each row")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--widths", type=int, nargs="*", default=[8, 6, 4, 3, 2])
    parser.add_argument("--mixed", type=int, nargs="*", default=[4], help="widths whose size is planned for")
    parser.add_argument("--correlation", type=int, default=40, help="weights to measure alone; 0 for none")
    parser.add_argument(
        "--weights", nargs="+", default=["*"], help="patterns of names, of which one must match"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = open_bundle(options.bundle or _converted(Path(folder) / "bundle")).at_size()
        rows(subject(bundle, options), options, lambda text: print(text, flush=True))


def _converted(path: Path) -> Path:
    from sd_convert import convert, open_checkpoint
    from sdc.demo.shipped import demo_checkpoint

    with demo_checkpoint() as checkpoint:
        convert(open_checkpoint(checkpoint), path)
    return path


if __name__ == "__main__":
    main()

"""What compression does to the pictures of the demo checkpoint, plain and calibrated: a table in Markdown.

uv run python tools/compression_report.py                     # a new demo bundle: an hour on two busy cores
uv run python tools/compression_report.py --bundle sdc-demo/bundle --pictures 12

Pictures and noise are of captions and seeds that calibration did not see. Prompt accuracy is the judge's, of
pictures that are drawn with the compressed UNet. At the size of a width, "mixed" is the plan, and beside it
are the recipes and palettes of Apple's tools (see rivals), on the same sensitivities.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rivals
from sd_bundle import Bundle, BundleComponent, open_bundle
from sd_bundle.drafts import replacing
from sd_compress import (
    Assign,
    Calibrated,
    Collecting,
    CompressedProgram,
    Hessian,
    Keep,
    Palettize,
    Plan,
    Recipe,
    Scheme,
    Selection,
    Sensitivity,
    SignalToNoise,
    Weight,
    collect_hessians,
    compress,
    measure_gains,
    optimal_palette,
    plan_for_bytes,
    sensitivities,
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

    @cached_property
    def expected(self) -> Sequence[Mapping[str, Any]]:
        """What the UNet makes of the runs to measure with."""
        model = MLModel(replace(self.package, program=self.program), "portable")
        return [model.predict(one) for one in self.measuring]

    @cached_property
    def others(self) -> dict[str, Model]:
        """The components that are not compressed, once they are loaded; by name."""
        return {}

    @cached_property
    def program(self) -> Program:
        """In the operations of iOS 18, which has tables of 3 bits."""
        return with_target(self.package.program, 18)


def subject(bundle: Bundle, options: argparse.Namespace, work: Path) -> Subject:
    """Record the UNet while it draws."""
    (component,) = bundle.components("denoiser")
    seen = random.Random(0).sample(seen_captions(), options.prompts + options.pictures)
    unseen = random.Random(1).sample(unseen_captions(), min(options.pictures // 3, len(unseen_captions())))
    drawn = [*unseen, *seen[options.prompts :]][: options.pictures]

    def runs(captions: Sequence[Caption], seed: int) -> Sequence[Mapping[str, Any]]:
        recording = Recording((component.name,), options.steps, 4, seed, OpenVINO(), work)
        return recording.record(bundle, list(map(str, captions)), lambda _: None)[component.package]

    calibration = runs(seen[: options.prompts], CALIBRATION_SEED)
    measuring = runs(drawn[: options.prompts // 2], MEASURING_SEED)
    package = read_package(bundle.package(component))
    selection = Selection(tuple(options.weights))
    return Subject(bundle, package, calibration, measuring, drawn, options.steps, selection)


@dataclass(frozen=True)
class Row:
    """A way to compress, and what came of it; ``expected`` dB are those of a plan."""

    name: str
    megabytes: float
    bits: float
    snr: float
    accuracy: float
    expected: float | None = None

    def __str__(self) -> str:
        """As a line of the table."""
        expected = "" if self.expected is None else f"{self.expected:.1f}"
        numbers = f"{self.bits:.2f} | {self.megabytes:.2f} | {expected} | {self.snr:.1f}"
        return f"| {self.name} | {numbers} | {self.accuracy:.0%} |"


@dataclass(frozen=True)
class Table:
    """Rows that are printed as they come, and kept in a file: those that are there are not measured again."""

    known: Subject
    file: Path
    say: Callable[[str], None]

    def add(self, name: str, make: Callable[[], tuple[CompressedProgram, float | None]]) -> None:
        """Measure what ``make`` compresses; it also says how many dB were expected, if any."""
        kept = json.loads(self.file.read_text()) if self.file.exists() else {}
        if name not in kept:
            kept[name] = asdict(row(name, *make(), self.known))
            with replacing(self.file) as draft:
                draft.write_text(json.dumps(kept, indent=1))
        self.say(str(Row(**kept[name])))

    def uniform(self, name: str, scheme: Scheme, assign: Assign = optimal_palette) -> None:
        """One scheme for all selected weights."""
        program = self.known.program
        recipe = uniform_recipe(program, scheme, self.known.selection)
        self.add(name, lambda: (compress(program, recipe, assign=assign), None))

    def planned(self, name: str, plan: Plan, assign: Assign = optimal_palette) -> None:
        """What a plan says."""
        made = Recipe(plan.schemes)
        self.add(name, lambda: (compress(self.known.program, made, assign=assign), plan.snr))

    def mixed(self, name: str, recipe: Recipe, assign: Assign = optimal_palette) -> None:
        """What a recipe says."""
        self.add(name, lambda: (compress(self.known.program, recipe, assign=assign), None))


def row(name: str, made: CompressedProgram, expected: float | None, known: Subject) -> Row:
    """Measure a compressed UNet."""
    selected = [one for one in weights_of(known.program) if known.selection.has(one)]
    before = sum(one.constant.stored for one in weights_of(known.program))
    saved = sum(one.bytes_before - one.bytes_after for one in made.weights)
    size, elements = before - saved, sum(one.elements for one in selected)
    bits = 8 * (sum(one.constant.stored for one in selected) - saved) / elements
    model = MLModel(replace(known.package, program=made.program), "portable")
    return Row(name, size / 1e6, bits, decibels(known, model), prompt_accuracy(known, model), expected)


def decibels(known: Subject, model: MLModel, every: int = 1) -> float:
    """Of the outputs over every so many of the runs to measure with, the worst one's."""
    noise = SignalToNoise()
    for inputs, outputs in zip(known.measuring[::every], known.expected[::every], strict=True):
        noise.add(outputs, model.predict(inputs))
    # JSON has no infinity: what is the same to the last bit is that of 200 dB
    return min((200.0 if one is None else one for one in noise.decibels().values()), default=200.0)


def prompt_accuracy(known: Subject, unet: MLModel) -> float:
    """The share of pictures that show what was asked for."""

    def opened(component: BundleComponent) -> Model:
        if component.role == "denoiser":
            return unet
        if component.name not in known.others:
            known.others[component.name] = open_model(known.bundle, component, engine="portable")
        return known.others[component.name]

    pipeline, unseen = Pipeline(known.bundle, opened), set(unseen_captions())
    exhibits = []
    for number, caption in enumerate(known.captions):
        (drawn,) = pipeline.generate(
            str(caption), seed=PICTURE_SEED + number, num_inference_steps=known.steps
        )
        exhibits.append(Exhibit(caption, drawn.image, judge(drawn.image), caption not in unseen))
    return accuracy(exhibits)


def rank_correlation(known: Subject, weights: Sequence[Sensitivity], count: int) -> tuple[float, int]:
    """Of the noise that is expected of single weights at 2 bits, and the noise that is measured."""
    chosen = random.Random(2).sample(weights, min(count, len(weights)))
    scheme, every = Palettize(2), max(1, len(known.measuring) // 4)
    expected, measured = [], []
    for weight in chosen:
        made = compress(known.program, Recipe({weight.weight: scheme}))
        if made.kept:
            continue
        expected.append(next(one.noise for one in weight.candidates if one.scheme == scheme))
        model = MLModel(replace(known.package, program=made.program), "portable")
        measured.append(-decibels(known, model, every))
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (expected, measured)]
    return float(np.corrcoef(ranks)[0, 1]), len(expected)


@dataclass(frozen=True)
class Learnt:
    """What calibration found out: sensitivities of plain palettes, and of ``calibrated`` ones."""

    hessians: Mapping[str, Hessian]
    gains: Mapping[str, float]
    chosen: Sequence[Weight]

    @property
    def calibrated(self) -> Assign:
        """Who finds palettes by their inputs."""
        return Calibrated(self.hessians, optimal_palette)

    def sensitivities(self, assign: Assign, *, compensated: bool = False) -> tuple[Sensitivity, ...]:
        """Those of palettes that ``assign`` finds."""
        return sensitivities(self.chosen, self.hessians, assign, gains=self.gains, compensated=compensated)


def learnt(known: Subject, work: Path, say: Callable[[str], None]) -> Learnt:
    """Collect Hessians, and measure gains, or take those that are in ``work``."""
    program = known.program
    began = time.perf_counter()
    hessians = collect_hessians(program, known.calibration, Collecting(), folder=work)
    say(f"\nHessians: {time.perf_counter() - began:.0f} s")
    began, kept = time.perf_counter(), work / "gains.json"
    if not kept.exists():
        gains = measure_gains(program, known.calibration[::7][:3])
        with replacing(kept) as draft:
            draft.write_text(json.dumps(gains))
    say(f"Gains: {time.perf_counter() - began:.0f} s")
    chosen = [one for one in weights_of(program) if known.selection.has(one)]
    return Learnt(hessians, json.loads(kept.read_text()), chosen)


def rows(known: Subject, options: argparse.Namespace, work: Path, say: Callable[[str], None]) -> None:
    """Measure everything, saying each row as it comes."""
    found = learnt(known, work, say)
    plain = found.sensitivities(optimal_palette)
    compensated = found.sensitivities(optimal_palette, compensated=True)
    if options.correlation:
        correlation, count = rank_correlation(known, plain, options.correlation)
        say(
            f"Rank correlation of expected and measured noise of {count} weights at 2 bits: {correlation:.3f}"
        )
    table = Table(known, work / "rows.json", say)
    say("\n| UNet | bits | MB | expected dB | dB | prompt accuracy |\n|---|---|---|---|---|---|")
    table.uniform("16 bits", Keep())
    for nbits in options.widths:
        table.uniform(f"{nbits} bits", Palettize(nbits))
        table.uniform(f"{nbits} bits, calibrated", Palettize(nbits), found.calibrated)
    for nbits in options.mixed:
        size = bytes_at(plain, nbits)
        table.planned(f"mixed {nbits}", plan_for_bytes(plain, size))
        table.mixed(f"mixed {nbits}, Apple's threshold", rivals.by_threshold(plain, size))
        table.mixed(f"mixed {nbits}, coreai-opt's greedy recipe", rivals.by_greed(plain, size))
        plan = plan_for_bytes(compensated, size)
        table.planned(f"mixed {nbits}, calibrated (gap {plan.gap:.1%})", plan, found.calibrated)
    if options.coreai:
        coreai_rows(table, found, plain, options)
    if options.trained:
        nbits = min(options.widths)
        table.add(f"{nbits} bits, trained", lambda: (trained(known, options.trained, nbits, work), None))


def bytes_at(weights: Sequence[Sensitivity], nbits: int) -> int:
    """What the weights take at one width, tables included; those that have it not, as they are."""
    return sum(
        next(
            (one for one in each.candidates if one.scheme == Palettize(nbits)), each.candidates[0]
        ).stored_bytes
        for each in weights
    )


def coreai_rows(
    table: Table, found: Learnt, plain: Sequence[Sensitivity], options: argparse.Namespace
) -> None:
    """Palettes of coreai-opt's weighted k-means, for all weights alike and in its greedy recipe."""
    from sdc.demo.shipped import demo_checkpoint

    with demo_checkpoint() as shipped:
        unet = rivals.open_unet(options.checkpoint or shipped)
    network = rivals.Network.of(unet, found.chosen, table.known.calibration[:: options.every])
    how, assign = rivals.coreai_palettes(network)
    for nbits in options.widths:
        table.uniform(f"{nbits} bits, coreai-opt's weighted k-means ({how})", Palettize(nbits), assign)
    if options.mixed:
        weighted = found.sensitivities(assign)
        for nbits in options.mixed:
            recipe = rivals.by_greed(weighted, bytes_at(plain, nbits))
            table.mixed(f"mixed {nbits}, coreai-opt's recipe and k-means ({how})", recipe, assign)


def trained(known: Subject, checkpoint: Path, nbits: int, work: Path) -> CompressedProgram:
    """The UNet of a checkpoint of ``train_palettized``, in the values that it was trained in.

    Its size is told beside that of the weights before the training.
    """
    place = work / "trained"
    bundle = open_bundle(place if place.exists() else converted(checkpoint, place)).at_size()
    (component,) = bundle.components("denoiser")
    program = with_target(read_package(bundle.package(component)).program, 18)
    return compress(program, uniform_recipe(program, Palettize(nbits), known.selection))


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
    parser.add_argument("--trained", type=Path, help="what train_palettized wrote, of the least width")
    parser.add_argument("--coreai", action="store_true", help="also as coreai-opt finds palettes and recipes")
    parser.add_argument("--checkpoint", type=Path, help="of the bundle, for --coreai; by default the demo's")
    parser.add_argument(
        "--every", type=int, default=1, help="of the runs that calibrate, so many for --coreai"
    )
    parser.add_argument("--work", type=Path, help="keep what is found out there, and go on from it")
    parser.add_argument("--correlation", type=int, default=40, help="weights to measure alone; 0 for none")
    parser.add_argument(
        "--weights", nargs="+", default=["*"], help="patterns of names, of which one must match"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        bundle = open_bundle(options.bundle or _demo_bundle(Path(folder) / "bundle")).at_size()
        rows(subject(bundle, options, work), options, work, lambda text: print(text, flush=True))


def converted(checkpoint: Path, path: Path) -> Path:
    """A bundle of the checkpoint, at ``path``."""
    from sd_convert import convert, open_checkpoint

    convert(open_checkpoint(checkpoint), path)
    return path


def _demo_bundle(path: Path) -> Path:
    from sdc.demo.shipped import demo_checkpoint

    with demo_checkpoint() as checkpoint:
        return converted(checkpoint, path)


if __name__ == "__main__":
    main()

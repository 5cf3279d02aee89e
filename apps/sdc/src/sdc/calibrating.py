"""``--calibrate`` and budgets of ``sdc compress``: from prompts to palettes, and to a recipe."""

from __future__ import annotations

import shutil
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from sd_bundle import Bundle
    from sd_compress import (
        Assign,
        Device,
        Hessian,
        LayerInput,
        Plan,
        Recipe,
        Selection,
        Sensitivity,
        Statistics,
        Weight,
    )
    from sd_mil import Program
    from sd_mil.engines import ProgramEngine

    from sdc.recording import Runs

#: Is told what is done now, and how many of how many steps of that.
Tell: TypeAlias = Callable[[str, int, int], None]

#: Steps of a calibration picture, and how many of its runs of each network are looked at. With our prompts
#: SD 1.5 takes 11 minutes and 6.8 GB on two cores with AVX-512, where a run takes 8 s; it is estimated at 22
#: without, where it takes 16. Of the demo's, twice the steps make no better palettes.
STEPS: Final = 4
RUNS: Final = 3
#: Seeds of the pictures that quality is measured on are this far from those of calibration.
_OTHER_SEEDS: Final = 1_000_000
#: Pictures that quality is measured on, and runs that gains are measured with.
_MEASURED, _GAIN_RUNS = 1, 2

#: Prompts that differ in what is shown and how, for bundles of which nothing is known.
PROMPTS: Final = (
    "a photograph of an astronaut riding a horse on a beach at sunset",
    "a watercolour painting of a small village in the mountains, soft light",
    "portrait of an old fisherman with a grey beard, studio lighting, highly detailed",
    "a bowl of fresh fruit on a wooden table, still life, oil on canvas",
    "a futuristic city at night in the rain, neon signs, wide angle",
)


#: No network but that of the demo checkpoint draws so few pixels.
_DEMO_PIXELS: Final = 128


def default_prompts(bundle: Bundle) -> list[str]:
    """Captions that the demo checkpoint knows for a bundle of it, varied prompts for others."""
    image = bundle.at_size().manifest.model.image
    if max(image.width, image.height) > _DEMO_PIXELS:
        return list(PROMPTS)
    from sdc.demo.captions import seen_captions

    return [str(caption) for caption in seen_captions()[::13]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found out while the bundle drew.

    ``hessians``, ``inputs`` of layers and ``gains`` are by the name of the weight, empty if they were not
    wanted; ``measured`` are runs of other pictures.
    """

    hessians: Mapping[str, Hessian]
    inputs: Mapping[str, tuple[LayerInput, ...]]
    gains: Mapping[str, float]
    measured: Runs
    device: Device | None = None

    def assign(self) -> Assign:
        """Who finds palettes."""
        from sd_compress import Calibrated, optimal_palette

        if not self.hessians:
            return optimal_palette
        return Calibrated(self.hessians, optimal_palette, device=self.device)

    def signal_to_noise(self, package: str, before: Program, after: Program) -> float:
        """How far the outputs of a package are from what they were, in dB, on runs not calibrated with."""
        from sd_compress import signal_to_noise

        return signal_to_noise(before, after, self.measured[package])


@dataclass(frozen=True, slots=True)
class Calibrating:
    """How a bundle is calibrated; ``memory`` bounds all Hessians of a package, in bytes.

    They are left in ``folder``, from which they are read while palettes are found. ``device``: where torch
    computes; None is without torch.
    """

    bundle: Bundle
    components: tuple[str, ...]
    prompts: Sequence[str]
    folder: Path
    tell: Tell
    memory: int
    device: Device | None = None

    def run(self, *, gains: bool, hessians: bool = True, activations: bool = False) -> Calibration:
        """Draw the prompts, collect what is wanted over the same runs, and measure ``gains`` if they are.

        Raises:
            sd_compress.CalibrationError: the networks overflow, two of their weights have one name, or there
                is no such device.
        """
        if self.device is not None:
            from sd_compress import check_device

            check_device(self.device)
        runs = self._record(self.prompts, 0)
        measured = self._record(self.prompts[:_MEASURED], _OTHER_SEEDS)
        all_hessians: ChainMap[str, Hessian] = ChainMap()
        all_inputs: dict[str, tuple[LayerInput, ...]] = {}
        found: dict[str, float] = {}
        for package, inputs in runs.items():
            statistics = self._statistics(package, inputs, hessians=hessians, activations=activations)
            _check_apart(all_hessians, statistics.hessians)
            _check_apart(all_inputs, statistics.inputs)
            all_hessians.maps.append(statistics.hessians)  # type: ignore[arg-type] # never written to
            all_inputs |= statistics.inputs
            if gains:
                found |= self._gains(package, inputs)
        return Calibration(all_hessians, all_inputs, found, measured, self.device)

    def programs(self, packages: Iterable[str]) -> dict[str, Program]:
        """Those that were calibrated, by the names of their packages."""
        return {package: program_of(self.bundle, package) for package in packages}

    def _record(self, prompts: Sequence[str], seed: int) -> Runs:
        from sdc.recording import Recording

        recording = Recording(self.components, STEPS, RUNS, seed, self._engine(), self.folder)
        return recording.record(self.bundle, prompts, lambda done: self.tell("drawing", done, len(prompts)))

    def _statistics(
        self, package: str, inputs: Sequence[Mapping[str, Any]], *, hessians: bool, activations: bool
    ) -> Statistics:
        from sd_compress import Collecting, collect_statistics

        return collect_statistics(
            program_of(self.bundle, package),
            inputs,
            Collecting(memory=self.memory, engine=self._engine(), device=self.device),
            hessians=hessians,
            activations=activations,
            folder=self.folder,
            left_there=True,
            progress=lambda done, total: self.tell(f"inputs of {package}", done, total),
        )

    def _gains(self, package: str, inputs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        from sd_compress import measure_gains

        return measure_gains(
            program_of(self.bundle, package),
            inputs[:: max(1, len(inputs) // _GAIN_RUNS)][:_GAIN_RUNS],
            engine=self._engine(),
            progress=lambda done, total: self.tell(f"gains of {package}", done, total),
        )

    def _engine(self) -> ProgramEngine:
        from sd_mil.engines import OpenVINO

        return OpenVINO()


def _check_apart(found: Mapping[str, object], others: Mapping[str, object]) -> None:
    from sd_compress import CalibrationError

    if both := sorted(found.keys() & others.keys()):
        raise CalibrationError(f"expected weights of different names in all packages, got {both[0]!r} twice")


def program_of(bundle: Bundle, package: str) -> Program:
    """The program of a package, with the function that the bundle draws with as its default one."""
    from sd_mil import read_package

    program = read_package(bundle.checked_folder(package)).program
    chunks = (chunk for one in bundle.at_size().manifest.components for chunk in one.variant.chunks)
    names = [chunk.function for chunk in chunks if chunk.package == package and chunk.function]
    return replace(program, default_function=names[0]) if names else program


@contextmanager
def calibration_folder(given: Path | None, output: Path) -> Iterator[Path]:
    """Where what is found out is kept: as it is if the user named it, until success if not."""
    folder = given or output.with_name(f"{output.name}.calibration")
    yield folder
    if given is None:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a recipe is planned for, one of: bytes of the whole model, bits for each element, dB."""

    size: float | None = None
    bits: float | None = None
    snr: float | None = None


#: What a compressed weight takes in its file beside what is counted: records, padding, its line in the
#: recipe.
_OVERHEAD: Final = 512


@dataclass(frozen=True, slots=True)
class Measuring:
    """Where packages are, by their names, and how many processes measure their weights."""

    packages: Mapping[str, Path]
    jobs: int


@dataclass(frozen=True, slots=True)
class Planning:
    """Recipes for programs, by their packages' names, in ``model_bytes`` of files.

    ``measuring``: the noise of each weight is measured instead of expected.
    """

    programs: Mapping[str, Program]
    selection: Selection
    calibration: Calibration | None
    model_bytes: int
    tell: Tell
    measuring: Measuring | None = None

    def recipe(self, budget: Budget) -> tuple[Recipe, tuple[Plan, ...]]:
        """The recipe for a budget, and the plans that it is made of: for dB one for each package.

        Raises:
            sd_compress.BudgetError: it cannot be met; the message names the nearest that can.
            sd_compress.CalibrationError: dB without a calibration, which they are measured with.
        """
        from sd_compress import Recipe

        weights = {name: self._sensitivities(name) for name in self.programs}
        if budget.snr is not None:
            plans = tuple(self._good_enough(name, several, budget.snr) for name, several in weights.items())
        else:
            plans = (self._within([one for several in weights.values() for one in several], budget),)
        return Recipe({name: scheme for plan in plans for name, scheme in plan.schemes.items()}), plans

    def check(self, budget: Budget) -> None:
        """Refuse a size or a number of bits that no recipe meets, before anything is calibrated.

        Raises:
            sd_compress.BudgetError: it cannot be met; the message names the nearest that can.
        """
        from sd_compress import stored_sizes, widths_for

        if budget.snr is None:
            sizes = [stored_sizes(self._weights(one), widths_for(one)) for one in self.programs.values()]
            self._within([one for several in sizes for one in several], budget)

    def _within(self, weights: Sequence[Sensitivity], budget: Budget) -> Plan:
        from sd_compress import plan_for_bits, plan_for_bytes

        if budget.bits is not None:
            return plan_for_bits(weights, budget.bits)
        kept = sum(one.candidates[0].stored_bytes for one in weights)
        rest = self.model_bytes - kept + _OVERHEAD * len(weights)
        return plan_for_bytes(weights, (budget.size or 0) - rest, beside=rest)

    def _weights(self, program: Program) -> list[Weight]:
        from sd_compress import weights_of

        return [one for one in weights_of(program) if self.selection.has(one)]

    def _sensitivities(self, package: str) -> tuple[Sensitivity, ...]:
        from sd_compress import (
            measured_sensitivities,
            optimal_palette,
            sensitivities,
            widths_for,
        )

        program, known = self.programs[package], self.calibration
        found = self._weights(program)
        if self.measuring is not None and known is not None:
            return measured_sensitivities(
                self.measuring.packages[package],
                [one.name for one in found],
                known.measured[package],
                schemes=widths_for(program),
                assign=known.assign(),
                jobs=self.measuring.jobs,
                progress=lambda done, total: self.tell(f"weights of {package}", done, total),
            )
        return sensitivities(
            found,
            {} if known is None else known.hessians,
            optimal_palette,
            gains=None if known is None else known.gains,
            schemes=widths_for(program),
            compensated=known is not None,
            progress=lambda done, total: self.tell(f"sensitivities of {package}", done, total),
        )

    def _good_enough(self, package: str, weights: Sequence[Sensitivity], snr: float) -> Plan:
        from sd_compress import CalibrationError, Recipe, compress, smallest_plan

        known, program = self.calibration, self.programs[package]
        if known is None:
            raise CalibrationError("expected a calibration to measure noise with, got none")
        tried: list[float] = []

        def measure(plan: Plan) -> float:
            self.tell(f"recipes for {package}", len(tried), len(tried) + 1)
            made = compress(program, Recipe(plan.schemes), assign=known.assign()).program
            tried.append(known.signal_to_noise(package, program, made))
            return tried[-1]

        plan, _ = smallest_plan(weights, snr, measure)
        return plan

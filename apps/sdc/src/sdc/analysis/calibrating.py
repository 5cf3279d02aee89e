"""What calibration knows of a bundle's components: palettes for their inputs, sensitivities, mixed bits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sdc.analysis.settings import FromRecipe, Setting, Uniform
from sdc.analysis.subjects import BundleSubject, Watch

if TYPE_CHECKING:
    from sd_compress import Assign, Hessian
    from sd_compress import Sensitivity as Candidates
    from sd_compress.report import Sensitivity
    from sd_mil import Program
    from sd_mil.engines import ProgramEngine

#: Predictions of each network that are kept for every prompt.
RUNS: Final = 4
#: Inputs on which the gain of each layer is measured.
_GAIN_INPUTS: Final = 2
#: Between the seeds of what is drawn to calibrate and those of what is drawn to measure.
_OTHER_SEEDS: Final = 100_000
_METHOD: Final = "calibrated palettization"


@dataclass(frozen=True)
class Calibration:
    """``assigns`` and ``candidates`` of every weight, by component."""

    assigns: Mapping[str, Assign]
    candidates: Mapping[str, tuple[Candidates, ...]]

    def uniform(self, setting: Uniform) -> Setting:
        """The same widths, with palettes that keep the outputs close."""
        return Uniform(setting.bits, f"{setting.name}, calibrated", _METHOD, self.assigns)

    def mixed(self, snr: float) -> Setting:
        """Of each component the smallest recipe that is expected to keep ``snr`` dB.

        Raises:
            sd_compress.BudgetError: no recipe is that good.
        """
        from sd_compress import Recipe, plan_for_snr

        plans = [plan_for_snr(weights, snr) for weights in self.candidates.values() if weights]
        schemes = {name: scheme for plan in plans for name, scheme in plan.schemes.items()}
        return FromRecipe("mixed bits", Recipe(schemes), f"{_METHOD}, planned for {snr:g} dB", self.assigns)

    def sensitivities(self, component: str) -> Mapping[str, Mapping[str, float]]:
        """For each weight, by width, the signal to noise that is left if it alone has that width; in dB."""
        return {weight.weight: dict(_by_width(weight)) for weight in self.candidates.get(component, ())}

    def described(self) -> Sensitivity | None:
        """What these numbers are, for the report."""
        from sd_compress.report import Sensitivity

        several = [self.sensitivities(component) for component in self.candidates]
        widths = {int(width) for one in several for found in one.values() for width in found}
        if not widths:
            return None
        meaning = (
            "what would be left of the component’s outputs if this weight alone had so many bits, from its "
            "error, the Hessian of its inputs, and the measured gain of its layer"
        )
        return Sensitivity(tuple(sorted(widths, reverse=True)), "dB", meaning, "low")


def _by_width(weight: Candidates) -> Iterator[tuple[str, float]]:
    from sd_compress import Palettize

    for candidate in weight.candidates:
        if isinstance(candidate.scheme, Palettize) and candidate.noise > 0:
            yield str(candidate.scheme.nbits), -10 * math.log10(candidate.noise)


def calibrate(
    subject: BundleSubject, prompts: Sequence[str], widths: Sequence[Uniform], watch: Watch
) -> Calibration:
    """Draw ``prompts``, and learn from what the components are given meanwhile.

    Raises:
        sd_compress.CalibrationError: the network overflows, or does not fit what it is given.
    """
    from sd_compress import Calibrated, optimal_palette
    from sd_mil import read_package
    from sd_mil.engines import OpenVINO, ProgramEngine

    from sdc.recording import Recording

    engine = subject.engine if isinstance(subject.engine, ProgramEngine) else OpenVINO()
    drawing = subject.drawing
    seed = (drawing.seed + _OTHER_SEEDS) % 2**31
    recording = Recording(subject.components, drawing.num_inference_steps, RUNS, seed, engine)
    watch("drawing")
    runs = recording.record(
        subject.bundle, prompts, lambda done: watch(f"drew {done} of {len(prompts)} prompts")
    )
    assigns: dict[str, Assign] = {}
    candidates: dict[str, tuple[Candidates, ...]] = {}
    for component in subject.components:
        hessians: dict[str, Hessian] = {}
        for folder in subject.folders(component):
            program, inputs = read_package(folder).program, runs[folder.name]
            known = _Learning(component, program, inputs, engine, watch)
            hessians |= known.hessians()
            candidates[component] = (*candidates.get(component, ()), *known.candidates(hessians, widths))
        assigns[component] = Calibrated(hessians, optimal_palette)
    return Calibration(assigns, candidates)


@dataclass(frozen=True)
class _Learning:
    """One package, and what it was given."""

    component: str
    program: Program
    inputs: Sequence[Mapping[str, object]]
    engine: ProgramEngine
    watch: Watch

    def hessians(self) -> dict[str, Hessian]:
        from sd_compress import Collecting, collect_hessians

        return collect_hessians(
            self.program,
            self.inputs,  # type: ignore[arg-type]
            Collecting(engine=self.engine),
            progress=lambda done, total: self.watch(f"Hessians of {self.component}, {done} of {total} runs"),
        )

    def candidates(
        self, hessians: Mapping[str, Hessian], widths: Sequence[Uniform]
    ) -> tuple[Candidates, ...]:
        """Of the weights that are compressed at one of the widths."""
        from sd_compress import (
            Palettize,
            Selection,
            measure_gains,
            optimal_palette,
            sensitivities,
            weights_of,
        )

        selection = Selection()
        gains = measure_gains(
            self.program,
            self.inputs[:: max(1, len(self.inputs) // _GAIN_INPUTS)][:_GAIN_INPUTS],  # type: ignore[arg-type]
            engine=self.engine,
            progress=lambda done, total: self.watch(f"gains of {self.component}, {done} of {total}"),
        )
        return sensitivities(
            [weight for weight in weights_of(self.program) if selection.has(weight)],
            hessians,
            optimal_palette,
            gains=gains,
            schemes=[Palettize(width.bits) for width in widths],
            progress=lambda done, total: self.watch(f"sensitivities of {self.component}, {done} of {total}"),
        )

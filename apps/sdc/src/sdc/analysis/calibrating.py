"""What calibration knows of a bundle's components: palettes for their inputs, sensitivities, mixed bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sdc.analysis.settings import FromRecipe, Setting, Uniform
from sdc.analysis.subjects import BundleSubject, Watch

if TYPE_CHECKING:
    from sd_compress import Assign, Plan
    from sd_compress import Sensitivity as Candidates
    from sd_compress.report import Sensitivity
    from sd_mil import Program

    from sdc.calibrating import Calibration as Known
    from sdc.calibrating import Tell

#: Bytes that the Hessians of a package may take.
_MEMORY: Final = 3 * 10**9
_METHOD: Final = "calibrated palettization"


@dataclass(frozen=True)
class Calibration:
    """``assigns`` and ``candidates`` of every weight, by component."""

    assigns: Mapping[str, Assign]
    candidates: Mapping[str, tuple[Candidates, ...]]

    def uniform(self, setting: Uniform) -> Setting:
        """The same widths, with palettes that keep the outputs close."""
        return Uniform(setting.bits, f"{setting.name}, calibrated", _METHOD, self.assigns)

    def mixed(self, snr: float, measure: Callable[[str, Setting], float]) -> Setting:
        """Of each component the smallest recipe that keeps ``snr`` dB, as ``measure`` has it of a component.

        Raises:
            sd_compress.BudgetError: no recipe is that good.
        """
        from sd_compress import smallest_plan

        def measured(component: str, plan: Plan) -> float:
            return measure(component, self._planned("mixed bits", [plan]))

        plans = [
            smallest_plan(weights, snr, partial(measured, component))[0]
            for component, weights in self.candidates.items()
            if weights
        ]
        return self._planned("mixed bits", plans)

    def curve(self, widths: Sequence[Uniform]) -> Iterator[Setting]:
        """The best recipes in the bytes that all weights take at each of the widths.

        A width that the smallest recipe does not fit into is left out.
        """
        from sd_compress import BudgetError, plan_for_bytes

        for width in widths:
            every = [one for weights in self.candidates.values() for one in weights]
            try:
                plan = plan_for_bytes(every, _bytes_at(every, width.bits))
            except BudgetError:
                continue
            yield self._planned(f"mixed bits, as large as {width.name}", [plan])

    def _planned(self, name: str, plans: Sequence[Plan]) -> Setting:
        """With what was expected of the plans, and how far from the best they may be."""
        from sd_compress import Recipe

        schemes = {weight: scheme for plan in plans for weight, scheme in plan.schemes.items()}
        worst, gap = min(plan.snr for plan in plans), max(plan.gap for plan in plans)
        said = f"{_METHOD}, planned: {worst:.1f} dB expected, within {gap:.2%} of the best recipe"
        return FromRecipe(name, Recipe(schemes), said, self.assigns)

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


def _bytes_at(weights: Sequence[Candidates], bits: int) -> int:
    """What the weights take at that width; those that do not have it, as they are."""
    from sd_compress import Palettize

    return sum(
        next(
            (one for one in each.candidates if one.scheme == Palettize(bits)), each.candidates[0]
        ).stored_bytes
        for each in weights
    )


def _by_width(weight: Candidates) -> Iterator[tuple[str, float]]:
    from sd_compress import Palettize

    for candidate in weight.candidates:
        if isinstance(candidate.scheme, Palettize) and candidate.noise > 0:
            yield str(candidate.scheme.nbits), candidate.snr


def calibrate(
    subject: BundleSubject, prompts: Sequence[str], widths: Sequence[Uniform], watch: Watch, folder: Path
) -> Calibration:
    """Draw ``prompts``, and learn from what the components are given meanwhile.

    What is learnt is left in ``folder`` and read from there while settings are tried.

    Raises:
        sd_compress.CalibrationError: the network overflows, or two of its weights have one name.
    """
    from sd_mil import read_package

    from sdc.calibrating import Calibrating

    def tell(words: str, done: int, total: int) -> None:
        watch(f"{words}, {done} of {total}")

    calibrating = Calibrating(subject.bundle, subject.components, prompts, folder, tell, _MEMORY)
    known = calibrating.run(gains=True)
    candidates = {
        component: tuple(
            candidate
            for folder in subject.folders(component)
            for candidate in _candidates(read_package(folder).program, known, widths, tell)
        )
        for component in subject.components
    }
    return Calibration(dict.fromkeys(subject.components, known.assign()), candidates)


def _candidates(
    program: Program, known: Known, widths: Sequence[Uniform], tell: Tell
) -> tuple[Candidates, ...]:
    """Of the weights that are compressed at one of the widths."""
    from sd_compress import Palettize, Selection, optimal_palette, sensitivities, weights_of

    selection = Selection()
    return sensitivities(
        [weight for weight in weights_of(program) if selection.has(weight)],
        known.hessians,
        optimal_palette,
        gains=known.gains,
        schemes=[Palettize(width.bits) for width in widths],
        progress=lambda done, total: tell("sensitivities", done, total),
    )

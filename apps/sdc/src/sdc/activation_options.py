"""``--activations`` of ``sdc compress``: which layers' inputs become int8, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sd_compress import InputNoise, LayerInputs, Recipe, RecipeFor
    from sd_mil import Program

_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--min-activation-snr",
        type=float,
        metavar="DB",
        help="Layers whose output would have less signal to noise keep the activations that they have.",
    ),
    click.option(
        "--keep-activations",
        multiple=True,
        metavar="PATTERN",
        help="So do layers whose weights have such names; repeatable.",
    ),
)


def activation_options(command: _F) -> _F:
    """Adds the options; :meth:`Fitting.taken_from` takes what was given out of the command's."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Fitted:
    """A recipe whose activations can be quantized, what that costs, and by weight why others are not."""

    recipe: Recipe
    noises: tuple[InputNoise, ...]
    left: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fitting:
    """Which activations stay as they are though the recipe has them quantized."""

    min_snr: float | None
    without: tuple[str, ...]

    @classmethod
    def taken_from(cls, asked: dict[str, Any]) -> Fitting:
        """The options of :func:`activation_options`, which are not in ``asked`` any more."""
        return cls(asked.pop("min_activation_snr"), asked.pop("keep_activations"))

    def check(self, recipes: Sequence[Recipe], *, is_calibrated: bool) -> None:
        """Refuse options that would do nothing, and activations that nothing would be known of.

        Raises:
            click.UsageError: saying which option needs which.
        """
        given = {"min-activation-snr": self.min_snr, "keep-activations": self.without or None}
        if not any(True for recipe in recipes for _ in with_activations(recipe)):
            for name in (name for name, value in given.items() if value is not None):
                raise click.UsageError(f"--{name}: it needs --activations, or a recipe that has some")
        elif not is_calibrated:
            raise click.UsageError("--activations: it needs --calibrate, which sees how large they are")

    def fitted(
        self, recipe: RecipeFor, programs: Mapping[str, Program], inputs: LayerInputs, tell: Tell
    ) -> Fitted:
        """One recipe for all programs, which are by the name of their package."""
        from sd_compress import Recipe, fit_activations

        schemes = dict(recipe.schemes) if isinstance(recipe, Recipe) else {}
        noises: list[InputNoise] = []
        left: dict[str, str] = {}
        for package, program in programs.items():
            found = fit_activations(
                program,
                recipe if isinstance(recipe, Recipe) else recipe(program),
                inputs,
                min_snr=self.min_snr,
                without=self.without,
                progress=_progress(tell, f"activations of {package}"),
            )
            changed = {name: one for name, one in found.recipe.schemes.items() if name not in schemes}
            schemes |= {**changed, **{name: found.recipe.schemes[name] for name in found.left}}
            noises += found.noises
            left |= found.left
        return Fitted(Recipe(schemes), tuple(noises), left)


#: Is told what is done now, and how many of how many steps of that.
Tell = Callable[[str, int, int], None]


def _progress(tell: Tell, what: str) -> Callable[[int, int], None]:
    return lambda done, total: tell(what, done, total)


def with_activations(recipe: Recipe) -> Iterator[str]:
    """The weights whose layers' inputs are to be quantized."""
    from sd_compress import Linear

    for name, scheme in recipe.schemes.items():
        if isinstance(scheme, Linear) and scheme.activations is not None:
            yield name


def activation_facts(fitted: Fitted) -> dict[str, Any]:
    """For ``--json``: dB at the output of each layer whose inputs are int8 now, and why others are not."""
    from sdc.json_output import finite

    return {"snr": {one.weight: finite(one.snr) for one in fitted.noises}, "left": dict(fitted.left)}


def print_activations(fitted: Fitted) -> None:
    """How many layers have int8 inputs, which of them costs most, and which stay as they are."""
    from sd_compress import AS_ASKED

    from sdc.console import console, decibels

    out = console()
    if fitted.noises:
        worst = max(fitted.noises, key=lambda one: one.noise)
        out.print(
            f"int8 activations of {len(fitted.noises)} weights' layers; the most noise is that of "
            f"{worst.weight}: {decibels(worst.snr)} dB at the layer's output",
            soft_wrap=True,
        )
    for name, reason in fitted.left.items():
        if reason != AS_ASKED:
            out.print(f"activations kept as they are: {name}: {reason}", soft_wrap=True)

"""The options of calibration and budgets of ``sdc compress``, and what they come to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from sdc.activation_options import Fitted, Fitting, activation_options, with_activations
from sdc.calibrating import (
    Budget,
    Calibrating,
    Calibration,
    Measuring,
    Planning,
    Tell,
    calibration_folder,
    default_prompts,
)

if TYPE_CHECKING:
    from sd_bundle import Bundle
    from sd_compress import Assign, Device, Plan, Recipe, RecipeFor, Selection
    from sd_mil import Program

#: Bytes of all Hessians of a package.
_MEMORY: Final = 5 * 10**9 // 2


def bytes_asked(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A callback for ``600MB``, ``1.2GB`` or a number of bytes: powers of ten, as disks are sold."""
    if value is None:
        return None
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kMG]?)B?\s*", value)
    if found is None:
        raise click.BadParameter(f"expected a size such as 600MB or 1.2GB, got {value!r}")
    return float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]]


_F = TypeVar("_F", bound=Callable[..., Any])
_DEFAULT: Final = "the default prompts"

_OPTIONS = (
    click.option(
        "--calibrate",
        metavar="[FILE]",
        is_flag=False,
        flag_value=_DEFAULT,
        help="Draw the prompts in the lines of FILE (or some of ours); choose palettes by what they do to "
        "the outputs then, and the range of int8 activations.",
    ),
    click.option(
        "--target-size",
        metavar="600MB",
        callback=bytes_asked,
        help="The best recipe for a model of that size.",
    ),
    click.option(
        "--target-bits",
        type=click.FloatRange(min=0, min_open=True),
        help="... of so many bits for each weight on average.",
    ),
    click.option(
        "--min-snr",
        type=float,
        help="The smallest recipe with that signal to noise at the outputs, in dB (with --calibrate).",
    ),
    click.option(
        "--calibration-folder",
        type=click.Path(path_type=Path, file_okay=False),
        help="Keep what was found out there; by default beside the output, until all is done.",
    ),
    click.option(
        "--calibration-memory",
        metavar="2GB",
        callback=bytes_asked,
        help="What the statistics of a network's inputs may take; by default 2.5GB.",
    ),
    click.option(
        "--sensitivities",
        type=click.Choice(["expected", "measured"]),
        help="What a budget goes by: noise that is expected of each weight (the default), or measured with "
        "that weight alone compressed, which takes a run for each of its widths (with --calibrate).",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        help="Processes that measure; by default one for each core (with --sensitivities measured).",
    ),
    click.option(
        "--device",
        type=click.Choice(["cpu", "cuda"]),
        help="Calibrate with torch there; by default without torch (with --calibrate).",
    ),
)


def calibration_options(command: _F) -> _F:
    """Adds the options; :meth:`Wanted.taken_from` takes what was given out of the command's."""
    command = activation_options(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for of calibration and planning."""

    calibrate: str | None
    budget: Budget | None
    folder: Path | None
    memory: float | None
    device: Device | None
    measured: bool
    jobs: int | None
    fitting: Fitting

    @classmethod
    def taken_from(cls, asked: dict[str, Any], *, is_bundle: bool) -> Wanted:
        """The options of :func:`calibration_options`, which are not in ``asked`` any more.

        Raises:
            click.UsageError: options that do not go together.
        """
        names = {"target_size": "size", "target_bits": "bits", "min_snr": "snr"}
        budgets = {name: asked.pop(option) for option, name in names.items()}
        given = [name for name, value in budgets.items() if value is not None]
        if len(given) > 1:
            raise click.UsageError("expected one of --target-size, --target-bits and --min-snr, got several")
        wanted = cls(
            asked.pop("calibrate"),
            Budget(**budgets) if given else None,
            asked.pop("calibration_folder"),
            asked.pop("calibration_memory"),
            asked.pop("device"),
            asked.pop("sensitivities") == "measured",
            asked.pop("jobs"),
            Fitting.taken_from(asked),
        )
        wanted._check(is_bundle)
        return wanted

    def _check(self, is_bundle: bool) -> None:
        if self.measured and self.budget is None:
            raise click.UsageError("--sensitivities: it needs a budget, for which they are measured")
        if self.jobs is not None and not self.measured:
            raise click.UsageError("--jobs: it needs --sensitivities measured")
        if self.calibrate is None:
            given = {
                "sensitivities": self.measured or None,
                "calibration-folder": self.folder,
                "calibration-memory": self.memory,
                "device": self.device,
            }
            for name, value in given.items():
                if value is not None:
                    raise click.UsageError(f"--{name}: it needs --calibrate")
            if self.budget is not None and self.budget.snr is not None:
                raise click.UsageError("--min-snr: it needs --calibrate, whose pictures noise is measured on")
        elif not is_bundle:
            raise click.UsageError("--calibrate: expected a bundle, which can draw prompts, got a package")

    def prompts(self, bundle: Bundle) -> list[str] | None:
        """What is drawn to calibrate; None if nothing is.

        Raises:
            sd_compress.CalibrationError: the file is no list of prompts.
        """
        from sdc.recording import read_prompts

        if self.calibrate is None:
            return None
        return default_prompts(bundle) if self.calibrate == _DEFAULT else read_prompts(Path(self.calibrate))

    @contextmanager
    def prepared(self, work: Work) -> Iterator[Prepared]:
        """Draw the prompts and plan the recipe, as far as that was asked for.

        What was found out is thrown away when the context is left without an error, unless it has a folder.

        Raises:
            sd_compress.CompressionError: see :class:`Calibrating` and :class:`Planning`.
        """
        from sd_compress import optimal_palette

        prompts = None if work.bundle is None else self.prompts(work.bundle)
        recipes = work.recipes()
        self.fitting.check(recipes, is_calibrated=prompts is not None)
        planning = None
        if self.budget is not None:
            planning = self._planning(work)
            planning.check(self.budget)
        if work.bundle is None or prompts is None:
            yield Prepared(*self._planned(work, planning, None), optimal_palette, None, None)
            return
        has_activations = any(True for recipe in recipes for _ in with_activations(recipe))
        has_palettes = self.budget is not None or any(map(_has_palettes, recipes))
        if not has_activations and not has_palettes:
            raise click.UsageError("--calibrate: it finds palettes and ranges of activations; there are none")
        with calibration_folder(self.folder, work.output) as folder:
            memory = int(self.memory or _MEMORY)
            bundle = work.bundle
            how = Calibrating(bundle, work.components, prompts, folder, work.tell, memory, self.device)
            calibration = how.run(
                gains=self.budget is not None, hessians=has_palettes, activations=has_activations
            )
            recipe, plans = self._planned(work, planning, calibration)
            fitted = None
            if has_activations:
                programs = how.programs(calibration.measured)
                fitted = self.fitting.fitted(recipe, programs, calibration.inputs, work.tell)
                recipe = fitted.recipe
            yield Prepared(recipe, plans, calibration.assign(), calibration, fitted)

    def _planned(
        self, work: Work, planning: Planning | None, calibration: Calibration | None
    ) -> tuple[RecipeFor, tuple[Plan, ...]]:
        if self.budget is None or planning is None:
            return work.recipe, ()
        return replace(planning, calibration=calibration).recipe(self.budget)

    def _planning(self, work: Work) -> Planning:
        files = [path for path in work.model.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files or [work.model])
        measuring = None
        if self.measured:
            if work.target is not None:
                raise click.UsageError("--sensitivities: measured of the model as it is, not with --target")
            measuring = Measuring({path.name: path for path in work.packages}, self.jobs or -1)
        return Planning(work.programs(), work.selection, None, size, work.tell, measuring)


def _has_palettes(recipe: Recipe) -> bool:
    from sd_compress import Palettize

    return any(isinstance(scheme, Palettize) for scheme in recipe.schemes.values())


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be compressed: a bundle's ``components``, or a package if ``bundle`` is None."""

    model: Path
    packages: Sequence[Path]
    bundle: Bundle | None
    components: tuple[str, ...]
    recipe: RecipeFor
    selection: Selection
    target: str | None
    output: Path
    tell: Tell

    def recipes(self) -> list[Recipe]:
        """What is asked for of each package; a recipe of names is the same for all of them.

        Raises:
            sd_compress.UnsupportedFormError: a package's target lacks a form, before anything is calibrated.
        """
        from sd_compress import Recipe, check_forms

        made, recipes = self.recipe, []
        for program in self.programs().values():
            recipes.append(made if isinstance(made, Recipe) else made(program))
            check_forms(program, recipes[-1])
        return recipes

    def programs(self) -> dict[str, Program]:
        """By the names of the packages, for the target."""
        from sd_compress import target_named, with_target
        from sd_mil import read_package

        found = {path.name: read_package(path).program for path in self.packages}
        if self.target is None:
            return found
        return {name: with_target(one, target_named(self.target)) for name, one in found.items()}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to do, who finds palettes, and what noise is measured on, if there was a calibration.

    ``fitted``: what becomes of activations, if any are to be quantized.
    """

    recipe: RecipeFor
    plans: tuple[Plan, ...]
    assign: Assign
    calibration: Calibration | None
    fitted: Fitted | None

"""The options of ``sdc generate`` that say what steers the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sdc.sampling_options import options
from sdc.several import SeveralValues

if TYPE_CHECKING:
    from sd_controlnet import Steering
    from sd_runtime import Pipeline

T = TypeVar("T")

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_NAMES = ("inputs", "scale", "start", "end", "mask")


def _each_has(name: str, metavar: str, about: str, kind: Any = None) -> Callable[[Any], Any]:
    """An option with a value for each network."""
    return click.option(
        f"--{name}", cls=SeveralValues, multiple=True, type=kind, metavar=f"{metavar} ...", help=about
    )


control_options = options(
    _each_has(
        "controlnet",
        "NAME",
        "ControlNets or T2I-Adapters of the bundle that steer the picture, by name or the end of it.",
    ),
    _each_has(
        "controlnet-inputs",
        "FILE",
        "A hint for each, in the same order: a picture, or a .npy file; `sdc hint` makes them.",
        _FILE,
    ),
    _each_has(
        "controlnet-scale",
        "SCALE",
        "How strongly each steers, 0 to 10; by default 1. One value is for all.",
        float,
    ),
    _each_has(
        "controlnet-start",
        "PART",
        "The part of the steps, 0 to 1, from which each steers; by default 0.",
        float,
    ),
    _each_has(
        "controlnet-end", "PART", "The part of the steps up to which each steers; by default 1.", float
    ),
    _each_has(
        "controlnet-mask", "FILE", "Each steers where its mask is white; by default everywhere.", _FILE
    ),
    click.option(
        "--controlnet-guess-mode",
        is_flag=True,
        help="Steer the prompt's side alone, and details less: for hints without a fitting prompt.",
    ),
)


def steering(pipeline: Pipeline, asked: dict[str, Any]) -> Steering | None:
    """What the options ask for, which are taken out of ``asked``; None if that is nothing."""
    names: tuple[str, ...] = asked.pop("controlnet")
    guess_mode: bool = asked.pop("controlnet_guess_mode")
    given = {name: asked.pop(f"controlnet_{name}") for name in _NAMES}
    if not names:
        for name, values in {**given, "guess-mode": guess_mode}.items():
            if values:
                raise click.UsageError(f"expected --controlnet with --controlnet-{name}, got none")
        return None
    from sd_controlnet import Control, Steering

    if len(hints := given["inputs"]) != len(names):
        raise click.UsageError(
            f"expected a --controlnet-inputs for each --controlnet ({len(names)}), got {len(hints)}"
        )
    scales, starts = _each(given, "scale", names, 1.0), _each(given, "start", names, 0.0)
    ends, masks = _each(given, "end", names, 1.0), _each(given, "mask", names, None)
    controls = [
        Control(name, hint, scale, start, end, guess_mode=guess_mode, mask=mask)
        for name, hint, scale, start, end, mask in zip(names, hints, scales, starts, ends, masks, strict=True)
    ]
    return Steering(pipeline, controls)


def _each(given: dict[str, Any], name: str, names: Sequence[str], default: T) -> Sequence[T]:
    """A value for each network: as many as given, the one that was, or the default."""
    values: tuple[T, ...] = given[name] or (default,)
    if len(values) not in (1, len(names)):
        raise click.UsageError(
            f"expected one --controlnet-{name}, or one for each --controlnet ({len(names)}), got "
            f"{len(values)}"
        )
    return values * len(names) if len(values) == 1 else values

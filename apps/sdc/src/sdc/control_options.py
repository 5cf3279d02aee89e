"""The options of ``sdc generate`` that say what steers the picture."""

from __future__ import annotations

from collections.abc import Sequence
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

control_options = options(
    click.option(
        "--controlnet",
        cls=SeveralValues,
        multiple=True,
        metavar="NAME ...",
        help="ControlNets or T2I-Adapters of the bundle that steer the picture, by name or the end of it.",
    ),
    click.option(
        "--controlnet-inputs",
        cls=SeveralValues,
        multiple=True,
        type=_FILE,
        metavar="FILE ...",
        help="A hint for each, in the same order: a picture, or a .npy file; `sdc hint` makes them.",
    ),
    click.option(
        "--controlnet-scale",
        cls=SeveralValues,
        multiple=True,
        type=float,
        metavar="SCALE ...",
        help="How strongly each steers, 0 to 10; by default 1. One value is for all.",
    ),
    click.option(
        "--controlnet-start",
        cls=SeveralValues,
        multiple=True,
        type=float,
        metavar="PART ...",
        help="The part of the steps, 0 to 1, from which each steers; by default 0.",
    ),
    click.option(
        "--controlnet-end",
        cls=SeveralValues,
        multiple=True,
        type=float,
        metavar="PART ...",
        help="The part of the steps up to which each steers; by default 1.",
    ),
    click.option(
        "--controlnet-mask",
        cls=SeveralValues,
        multiple=True,
        type=_FILE,
        metavar="FILE ...",
        help="Each steers where its mask is white; by default everywhere.",
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

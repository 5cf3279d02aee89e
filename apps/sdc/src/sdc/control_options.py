"""The options of ``sdc generate`` that say what steers the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
_NAMES = ("inputs", "scale", "start", "end", "mask", "mode")
_IMAGE_NAMES = ("scale", "start", "end")


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
    _each_has(
        "controlnet-mode",
        "NUMBER",
        "Of union ControlNets, the kind of hint: 0 pose, 1 depth, 2 soft edges, 3 lines, 4 normals, "
        "5 segmentation, 6 tile, 7 repaint of xinsir's.",
        int,
    ),
    click.option(
        "--controlnet-guess-mode",
        is_flag=True,
        help="Steer the prompt's side alone, and details less: for hints without a fitting prompt.",
    ),
    _each_has(
        "ip-adapter-image",
        "FILE",
        "Images that the picture is to be like, through the bundle's IP-Adapters, one for each.",
        _FILE,
    ),
    _each_has(
        "ip-adapter",
        "NAME",
        "Which of them each image is for, by name or the end of it; by default in their order.",
    ),
    _each_has(
        "ip-adapter-scale",
        "SCALE",
        "How strongly each image steers, 0 to 10; by default 1. One value is for all.",
        float,
    ),
    _each_has(
        "ip-adapter-start",
        "PART",
        "The part of the steps, 0 to 1, from which each image steers; by default 0.",
        float,
    ),
    _each_has(
        "ip-adapter-end", "PART", "The part of the steps up to which each image steers; by default 1.", float
    ),
)


def steering(pipeline: Pipeline, asked: dict[str, Any]) -> Steering | None:
    """What the options ask for, which are taken out of ``asked``; None if that is nothing."""
    controls, images = _controls(asked), _images(asked)
    if not controls and not images:
        return None
    from sd_controlnet import Control, ImagePrompt, Steering

    return Steering(
        pipeline,
        [Control(**each) for each in controls],
        [ImagePrompt(**each) for each in images],
    )


def _controls(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of each ``Control``."""
    names: tuple[str, ...] = asked.pop("controlnet")
    guess_mode: bool = asked.pop("controlnet_guess_mode")
    given = {name: asked.pop(f"controlnet_{name}") for name in _NAMES}
    if not names:
        _refuse_beside("controlnet", "controlnet", {**given, "guess-mode": guess_mode})
        return []
    if len(hints := given["inputs"]) != len(names):
        raise click.UsageError(
            f"expected a --controlnet-inputs for each --controlnet ({len(names)}), got {len(hints)}"
        )
    spans = _spans("controlnet", given, len(names))
    masks = _each("controlnet", given, "mask", len(names), None)
    modes = _each("controlnet", given, "mode", len(names), None)
    return [
        {"component": name, "hint": hint, "guess_mode": guess_mode, "mask": mask, "mode": mode, **span}
        for name, hint, mask, mode, span in zip(names, hints, masks, modes, spans, strict=True)
    ]


def _images(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of each ``ImagePrompt``."""
    images: tuple[Path, ...] = asked.pop("ip_adapter_image")
    names: tuple[str, ...] = asked.pop("ip_adapter")
    given = {name: asked.pop(f"ip_adapter_{name}") for name in _IMAGE_NAMES}
    if not images:
        _refuse_beside("ip-adapter-image", "ip-adapter", {"": names, **given})
        return []
    if names and len(names) != len(images):
        raise click.UsageError(
            f"expected an --ip-adapter for each --ip-adapter-image ({len(images)}), or none, got {len(names)}"
        )
    spans = _spans("ip-adapter", given, len(images))
    return [
        {"image": image, "adapter": name, **span}
        for image, name, span in zip(images, names or [None] * len(images), spans, strict=True)
    ]


def _refuse_beside(wanted: str, prefix: str, given: Mapping[str, object]) -> None:
    """Refuse options that would have no effect without ``wanted``."""
    for name, values in given.items():
        if values:
            raise click.UsageError(
                f"expected --{wanted} with --{'-'.join(filter(None, (prefix, name)))}, got none"
            )


def _spans(prefix: str, given: dict[str, Any], count: int) -> list[dict[str, float]]:
    """How strongly, and when, each steers."""
    scales, starts, ends = (
        _each(prefix, given, name, count, value)
        for name, value in (("scale", 1.0), ("start", 0.0), ("end", 1.0))
    )
    return [
        {"scale": scale, "start": start, "end": end}
        for scale, start, end in zip(scales, starts, ends, strict=True)
    ]


def _each(prefix: str, given: dict[str, Any], name: str, count: int, default: T) -> Sequence[T]:
    """A value for each network: as many as given, the one that was, or the default."""
    values: tuple[T, ...] = given[name] or (default,)
    if len(values) not in (1, count):
        raise click.UsageError(
            f"expected one --{prefix}-{name}, or one for each --{prefix} ({count}), got {len(values)}"
        )
    return values * count if len(values) == 1 else values

"""``sdc hint``: a picture to what a ControlNet is to see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdc.sampling_options import NameOf

if TYPE_CHECKING:
    from collections.abc import Sequence

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_MODEL = "model:"


def _kinds() -> Sequence[str]:
    from sd_controlnet import HINTS

    return (*HINTS, f"{_MODEL}FILE.mlpackage")


@click.command("hint", short_help="Make a hint for a ControlNet from a picture.")
@click.argument("picture", type=_FILE)
@click.option(
    "--kind",
    type=NameOf("kind", _kinds),
    required=True,
    help="How to make it. A Core ML model (model:depth.mlpackage) may be any preprocessor: a picture in, a "
    "picture or numbers out.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The .png to write; of the kind inpaint, a .npy.",
)
@click.option("--mask", type=_FILE, help="Of the kind inpaint: white where to paint anew.")
@click.option(
    "--option",
    "options",
    metavar="NAME=NUMBER",
    multiple=True,
    help="A number of the kind: low and high of canny, sigma of softedge, lineart and blur, threshold of "
    "scribble, factor of tile and palette.",
)
def command(picture: Path, *, kind: str, output: Path, mask: Path | None, options: tuple[str, ...]) -> None:
    """Make a hint from PICTURE: edges, lines, colours, or what a Core ML model sees in it."""
    import time

    from sd_controlnet import make_hint, model_hint, read_hint

    from sdc.console import console

    suffix = ".npy" if kind == "inpaint" else ".png"
    if output.suffix.lower() != suffix:
        raise click.BadParameter(
            f"expected a file name that ends in {suffix}, got {output.name}", param_hint="-o"
        )
    began, numbers, image = time.perf_counter(), dict(map(_number, options)), read_hint(picture)
    if kind.startswith(_MODEL):
        if mask is not None or numbers:
            raise click.UsageError("expected neither --mask nor --option with a model, got one")
        made: Any = model_hint(image, kind.removeprefix(_MODEL))
    else:
        made = make_hint(image, kind, mask=None if mask is None else read_hint(mask), **numbers)
    _write(made, output)
    seconds = time.perf_counter() - began
    console().print(
        f"wrote {output}: {kind}, {image.width}x{image.height}, in {seconds:.1f} s", soft_wrap=True
    )


def _number(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise click.BadParameter(f"expected NAME=NUMBER, got {text!r}", param_hint="--option") from None


def _write(made: Any, output: Path) -> None:
    """Whole or not at all."""
    import numpy as np
    from sd_bundle.drafts import replacing

    with replacing(output) as draft:
        if isinstance(made, np.ndarray):
            with draft.open("wb") as file:
                np.save(file, made)
        else:
            made.save(draft, format="PNG")

"""``sdc generate``: a bundle and a prompt to PNG files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import click

from sdc.control_options import control_options, steering
from sdc.engines import engine_options
from sdc.sampling_options import WithDefaults, options, sampling_options
from sdc.several import TakesSeveral

if TYPE_CHECKING:
    from PIL.Image import Image
    from sd_runtime import GeneratedImage, Pipeline, Precision, SamplingOptions

Command = TypeVar("Command", bound=Callable[..., Any])


def _pair(separator: str) -> Callable[[click.Context, click.Parameter, str | None], tuple[int, int] | None]:
    """A callback for two whole numbers, such as ``1024x768`` (width, height), kept as (second, first)."""

    def parse(_: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
        if value is None:
            return None
        first, found, second = value.partition(separator)
        if not (found and first.isascii() and first.isdigit() and second.isascii() and second.isdigit()):
            raise click.BadParameter(f"expected {option.metavar}, got {value!r}")
        return int(second), int(first)

    return parse


#: numpy's Mersenne Twister takes 32 bits.
_LAST_SEED = 2**32 - 1

_PICTURE = click.Path(path_type=Path, dir_okay=False, exists=True)


_picture_options = options(
    click.option(
        "--image",
        type=_PICTURE,
        help="A picture to start from; with a mask, or for InstructPix2Pix models, the one to change.",
    ),
    click.option("--mask", type=_PICTURE, help="What is white in it is painted anew."),
    click.option(
        "--strength",
        cls=WithDefaults,
        type=float,
        help="How much of the schedule runs on the picture, 0 to 1; by default {strength:g}, refiners "
        "{refiner_strength:g}, with a mask {inpainting_strength:g}.",
    ),
    click.option(
        "--image-guidance-scale",
        cls=WithDefaults,
        type=float,
        help="InstructPix2Pix models: how far to follow the picture; by default {image_guidance_scale:g}.",
    ),
)
_xl_options = options(
    click.option(
        "--refiner", type=click.Path(path_type=Path), help="A bundle of SDXL's refiner, to draw the end."
    ),
    click.option(
        "--refiner-start",
        cls=WithDefaults,
        type=float,
        help="Where it takes over, 0 to 1; by default {refiner_start:g}.",
    ),
    click.option(
        "--original-size",
        metavar="WIDTHxHEIGHT",
        callback=_pair("x"),
        help="What SDXL is told of the picture before any crop.",
    ),
    click.option(
        "--crop-top-left", metavar="LEFT,TOP", callback=_pair(","), help="What SDXL is told of the crop."
    ),
    click.option(
        "--target-size",
        metavar="WIDTHxHEIGHT",
        callback=_pair("x"),
        help="What SDXL is told of the picture's own size.",
    ),
    click.option(
        "--aesthetic-score",
        cls=WithDefaults,
        type=float,
        help="What the refiner is told to reach; by default {aesthetic_score:g}.",
    ),
    click.option(
        "--negative-aesthetic-score",
        cls=WithDefaults,
        type=float,
        help="What the refiner is told to avoid; by default {negative_aesthetic_score:g}.",
    ),
)


@click.command("generate", cls=TakesSeveral, short_help="Draw pictures of a prompt with a bundle.")
@click.argument("prompt")
@click.option(
    "-i", "--bundle", type=click.Path(path_type=Path), required=True, help="The bundle to draw with."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The PNG to write; with several images, FILE-SEED.png each.",
)
@click.option(
    "--image-count", default=1, show_default=True, type=click.IntRange(min=1), help="How many to draw."
)
@sampling_options
@_picture_options
@_xl_options
@control_options
@click.option("--disable-safety", is_flag=True, help="Do not ask the bundle's safety checker, if it has one.")
@engine_options("auto")
def command(
    prompt: str,
    *,
    bundle: Path,
    output: Path,
    image_count: int,
    disable_safety: bool,
    engine: str,
    precision: Precision | None,
    seed: int,
    refiner: Path | None,
    image: Path | None,
    mask: Path | None,
    **asked: Any,
) -> None:
    """Draw PROMPT with the bundle of -i and write a PNG that carries its settings as text."""
    from sd_runtime import Pipeline

    from sdc.console import console, peak_memory, size

    _check_output(output)
    _check_seeds(seed, image_count)
    began = time.perf_counter()
    # Loading the denoiser takes a small part of the time of a picture; having it to itself saves gigabytes.
    pipeline = Pipeline.open(bundle, engine=engine, precision=precision, reduce_memory=True)
    if refiner is not None:
        asked["refiner"] = Pipeline.open(refiner, engine=engine, precision=precision, reduce_memory=True)
    for name, path in (("image", image), ("mask", mask)):
        if path is not None:
            asked[name] = _read(path, pipeline)
    if (steer := steering(pipeline, asked)) is not None:
        asked["steer"] = steer
    for index in range(image_count):
        target = numbered(output, seed + index) if image_count > 1 else output
        drawn = draw(pipeline, prompt, check_safety=not disable_safety, seed=seed + index, **asked)
        drawn.save(target)
        _say(drawn, target)
    console().print(
        f"{image_count} image(s), {drawn.settings.num_inference_steps} steps each: "
        f"{time.perf_counter() - began:.1f} s, peak memory {size(peak_memory())}; "
        f"engine {pipeline.engine}, {pipeline.precision} arithmetic",
        soft_wrap=True,
    )


def draw(
    pipeline: Pipeline, prompt: str, *, check_safety: bool = True, **options: Unpack[SamplingOptions]
) -> GeneratedImage:
    """One picture, behind a bar that counts the steps."""
    from sdc.console import progress

    settings = pipeline.settings(prompt, **options)
    with progress() as bar:
        task = bar.add_task("loading", total=None)
        for step in pipeline.steps(prompt, **options):
            bar.update(task, description="sampling", total=step.total, completed=step.index + 1)
        bar.update(task, description="decoding")
        return pipeline.finish(step.latent, settings, check_safety=check_safety)


def numbered(output: Path, seed: int) -> Path:
    """``cat.png`` for seed 93 of several: ``cat-93.png``."""
    return output.with_name(f"{output.stem}-{seed}{output.suffix}")


def _read(path: Path, pipeline: Pipeline) -> Image:
    """A picture of the user's; says so if it has another size than the model's."""
    from sd_runtime import read_image

    from sdc.console import console

    image, size = read_image(path), pipeline.bundle.manifest.model.image
    if image.size != (size.width, size.height):
        shapes = f"{image.width}x{image.height} to {size.width}x{size.height}"
        stretched = " (stretched)" if image.width * size.height != image.height * size.width else ""
        console().print(f"{path.name}: resized from {shapes}{stretched}, the model's size", soft_wrap=True)
    return image


def _say(drawn: GeneratedImage, target: Path) -> None:
    from sdc.console import console

    flag = "; black, because the safety checker flagged it" if drawn.flagged else ""
    recipe = f", recipe {drawn.settings.recipe}" if drawn.settings.recipe else ""
    console().print(f"wrote {target} (seed {drawn.settings.seed}{recipe}){flag}", soft_wrap=True)


def _check_seeds(first: int, count: int) -> None:
    """The last seed too, before the first picture is drawn."""
    if first <= _LAST_SEED < first + count - 1:
        raise click.BadParameter(
            f"expected seeds from 0 to {_LAST_SEED}, got {first} to {first + count - 1}", param_hint="--seed"
        )


def _check_output(output: Path) -> None:
    """Say what is wrong with the output before minutes of work are lost on it."""
    if output.suffix.lower() != ".png":
        raise click.BadParameter(
            f"expected a file name that ends in .png, got {output.name}", param_hint="-o"
        )
    if not output.parent.is_dir():
        raise click.BadParameter(f"expected an existing folder, got {output.parent}", param_hint="-o")

"""``sdc generate``: a bundle and a prompt to pictures that know how they were made."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sdc.apple_options import apple_options, check_bundle, engine_on, prompt_of, stated
from sdc.control_options import control_options, steering
from sdc.drawing import UNCHECKED, Beside, Series
from sdc.engines import engine_options
from sdc.hires_options import hires_options
from sdc.mask_options import mask_options
from sdc.preview_options import preview_option
from sdc.prompt_lists import read_prompts, unread_weight
from sdc.safety_options import safety_of, safety_options
from sdc.sampling_options import Numbers, WithDefaults, options, sampling_options
from sdc.several import TakesSeveral
from sdc.text_options import files_by_name, text_options

if TYPE_CHECKING:
    from PIL.Image import Image
    from sd_runtime import (
        ComputeUnit,
        ImageSize,
        Pipeline,
        Precision,
        Reused,
    )

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


#: Of a picture whose settings state none.
_SEED = 93
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
        "--resize/--no-resize",
        default=True,
        help="A picture or mask of another size is brought to the model's, or refused.",
    ),
    click.option(
        "--outpaint",
        type=Numbers(int),
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        help="Paint so many pixels around the picture of --image, which is then brought to the model's size.",
    ),
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


class _Generate(TakesSeveral):
    """The prompt is an argument, an option, or that of a picture."""

    def missing_arguments(self, args: list[str]) -> int:
        """How many arguments are still to come."""
        elsewhere = any(token.partition("=")[0] in ("--prompt", "--prompts", "--like") for token in args)
        return 0 if elsewhere else 1


@click.command("generate", cls=_Generate, short_help="Draw pictures of a prompt with a bundle.")
@click.argument("prompt", required=False)
@click.option("--prompt", "prompt_option", metavar="TEXT", help="The same, as Apple's pipeline has it.")
@click.option(
    "--prompts",
    type=_PICTURE,
    help="A text file with a prompt on each line, all of which are drawn: FILE-001.png, ...",
)
@click.option(
    "-i",
    "--bundle",
    "--resource-path",
    type=click.Path(path_type=Path),
    required=True,
    help="The bundle to draw with, or a folder of Apple's converter or Swift package.",
)
@click.option(
    "-o",
    "--output",
    "--output-path",
    type=click.Path(path_type=Path),
    required=True,
    help="The picture to write: .png, .jpg or .webp; with several images, FILE-SEED.png each. In a folder "
    "it is named after the prompt and the seed.",
)
@click.option(
    "--image-count", default=1, show_default=True, type=click.IntRange(min=1), help="How many to draw."
)
@click.option(
    "--grid",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Beside them, write all in one picture: a row for each prompt, a column for each seed.",
)
@click.option(
    "--size",
    metavar="WIDTHxHEIGHT",
    callback=_pair("x"),
    help="Which of the bundle's picture sizes; by default its first.",
)
@click.option(
    "--like",
    type=_PICTURE,
    help="Draw with the settings in a picture, of sdc or of a web UI; what is stated here comes first.",
)
@click.option(
    "--save-every",
    default=0,
    metavar="N",
    type=click.IntRange(min=0),
    help="Write what every N-th step has come to, too: FILE-step-010.png.",
)
@preview_option
@sampling_options
@text_options
@hires_options
@_picture_options
@mask_options
@_xl_options
@control_options
@safety_options
@apple_options
@engine_options("auto")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    prompt: str | None,
    *,
    prompt_option: str | None,
    prompts: Path | None,
    bundle: Path,
    output: Path,
    image_count: int,
    grid: Path | None,
    size: tuple[int, int] | None,
    like: Path | None,
    save_every: int,
    preview: str | None,
    measure_guidance: bool,
    disable_safety: bool,
    safety: str | None,
    safety_adjustment: float | None,
    compute_unit: ComputeUnit | None,
    model_version: str | None,
    model_sources: str | None,
    unet_batch_one: bool,
    reduce_memory: bool,
    engine: str,
    precision: Precision | None,
    hires_bundle: Path | None,
    embedding: tuple[str, ...],
    clip_skip: int | None,
    refiner: Path | None,
    image: Path | None,
    mask: Path | None,
    resize: bool,
    **asked: Any,
) -> None:
    """Draw PROMPT with the bundle of -i and write a picture that carries its settings as text."""
    from sd_runtime import Pipeline, reused

    from sdc.console import console, peak_memory
    from sdc.console import size as bytes_of

    said = prompt_of(prompt, prompt_option, is_optional=(prompts or like) is not None)
    if said is not None and prompts is not None:
        raise click.UsageError("expected one prompt or --prompts, got both")
    if preview is not None and not save_every:
        raise click.UsageError("expected --save-every with --preview, got none")
    listed = None if prompts is None else read_prompts(prompts)
    _check_output(output, "-o")
    if grid is not None:
        _check_output(grid, "--grid")
    began = time.perf_counter()
    source = None if like is None else reused(like)
    if source is None:
        _check_seeds(asked["seed"], image_count)
    resolved = engine_on(engine, precision, compute_unit)
    # Loading the denoiser takes a small part of the time of a picture; having it to itself saves gigabytes.
    pipeline = Pipeline.open(
        bundle,
        engine=resolved,
        size=_size(size, source),
        reduce_memory=reduce_memory,
        hires_bundle=hires_bundle,
        embeddings=files_by_name(embedding),
        clip_skip=clip_skip or (source and source.options.get("clip_skip")) or 1,
    )
    check_bundle(
        pipeline,
        model_version=model_version,
        model_sources=model_sources,
        unet_batch_one=unet_batch_one,
    )
    if preview is not None:
        pipeline.check_preview(preview)
    policy = safety_of(pipeline.bundle, safety, safety_adjustment, disabled=disable_safety)
    given = _pictures(pipeline, asked, image, mask, resize=resize) | {
        "refiner": refiner and Pipeline.open(refiner, engine=resolved, reduce_memory=reduce_memory),
        "steer": steering(pipeline, asked),
    }
    given = {name: value for name, value in given.items() if value is not None}
    drawing = {"prompt": said, **asked, **given}
    if source is not None:
        own = {} if said is None and listed is None else {"prompt": said}
        drawing = _again(source, pipeline, {**own, **stated(ctx, asked), **given})
    if measure_guidance and drawing.get("guidance_start") is None and drawing.get("guidance_end") is None:
        raise click.UsageError(
            "expected --guidance-start or --guidance-end with --measure-guidance, got none"
        )
    own_text = drawing.pop("prompt", None)
    texts = [own_text] if listed is None else listed
    _say_what_is_not_read(texts, drawing)
    counted = "seed" if drawing.get("variation_seed") is None else "variation_seed"
    first = drawing.pop(counted, _SEED)
    _check_seeds(first, image_count)
    series = Series(output, texts, counted, range(first, first + image_count), grid)
    series.check(pipeline.bundle.manifest.model.image, drawing.get("hires_scale") or 1)
    beside = Beside(save_every, preview, measure_guidance)
    drawn = series.draw(pipeline, drawing, beside, check_safety=not disable_safety, safety=policy)
    console().print(
        f"{len(texts) * image_count} image(s), {drawn.settings.num_inference_steps} steps each: "
        f"{time.perf_counter() - began:.1f} s, peak memory {bytes_of(peak_memory())}; "
        f"engine {pipeline.engine}, {pipeline.precision} arithmetic"
        f"{UNCHECKED.get(drawn.safety.status, '')}",
        soft_wrap=True,
    )


def _pictures(
    pipeline: Pipeline, asked: Mapping[str, Any], image: Path | None, mask: Path | None, *, resize: bool
) -> dict[str, Any]:
    """The user's, in the model's size where it is not the runtime that brings them to it."""
    from sd_runtime import read_image

    keeps_size = asked["outpaint"] or asked["padding_mask_crop"] is not None
    if keeps_size and not resize:
        raise click.UsageError(
            "expected --no-resize without --outpaint and --padding-mask-crop, which resize, got both"
        )
    paths = {name: path for name, path in (("image", image), ("mask", mask)) if path is not None}
    return {
        name: read_image(path) if keeps_size else _read(path, pipeline, resize=resize)
        for name, path in paths.items()
    }


def _say_what_is_not_read(texts: Sequence[str], drawing: Mapping[str, Any]) -> None:
    """Weights of a web UI in a prompt that is plain text."""
    from sdc.console import console

    if drawing.get("prompt_syntax", "plain") != "plain":
        return
    if weight := unread_weight([*texts, drawing.get("negative_prompt", "")]):
        console().print(
            f"{weight} is read word for word; --prompt-syntax a1111 reads it as a weight", soft_wrap=True
        )


def _size(asked: tuple[int, int] | None, source: Reused | None) -> ImageSize | None:
    """That of --size (height, width), or of the picture whose settings are used again."""
    from sd_runtime import ImageSize

    if asked is not None:
        return ImageSize(height=asked[0], width=asked[1])
    return None if source is None else source.size


def _again(source: Reused, pipeline: Pipeline, said: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a picture, but for what is ``said``; another model than its own is no mistake."""
    from sdc.console import console

    model = pipeline.bundle.manifest.model.identifier
    if source.model not in (None, model):
        console().print(f"note: that picture is of {source.model}, this one of {model}", soft_wrap=True)
    # clip_skip is that of the picture, or the one that was stated
    return {**source.with_options(said), "clip_skip": pipeline.text.clip_skip}


def _read(path: Path, pipeline: Pipeline, *, resize: bool) -> Image:
    """A picture of the user's; says so if it has another size than the model's.

    Raises:
        UsageError: it has, and is not to be resized.
    """
    from sd_runtime import read_image

    from sdc.console import console

    image, size = read_image(path), pipeline.bundle.manifest.model.image
    if image.size != (size.width, size.height):
        if not resize:
            raise click.UsageError(
                f"{path.name}: expected {size.width}x{size.height} pixels with --no-resize, got "
                f"{image.width}x{image.height}"
            )
        shapes = f"{image.width}x{image.height} to {size.width}x{size.height}"
        stretched = " (stretched)" if image.width * size.height != image.height * size.width else ""
        console().print(f"{path.name}: resized from {shapes}{stretched}, the model's size", soft_wrap=True)
    return image


def _check_seeds(first: int, count: int) -> None:
    """The last seed too, before the first picture is drawn."""
    if first <= _LAST_SEED < first + count - 1:
        raise click.BadParameter(
            f"expected seeds from 0 to {_LAST_SEED}, got {first} to {first + count - 1}", param_hint="--seed"
        )


def _check_output(output: Path, option: str) -> None:
    """Say what is wrong with the output before minutes of work are lost on it."""
    from sd_runtime import ImageTextError, format_of

    if output.is_dir():
        return
    try:
        format_of(output)
    except ImageTextError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
    if not output.parent.is_dir():
        raise click.BadParameter(f"expected an existing folder, got {output.parent}", param_hint=option)

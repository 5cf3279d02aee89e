"""``sdc generate``: a bundle and a prompt to pictures that know how they were made."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import click

from sdc.apple_options import apple_options, check_bundle, engine_on, named, prompt_of, stated
from sdc.contact_sheets import check_sheet, save_sheet
from sdc.control_options import control_options, steering
from sdc.engines import engine_options
from sdc.hires_options import hires_options
from sdc.mask_options import mask_options
from sdc.preview_options import preview_option
from sdc.prompt_lists import of_several, read_prompts, unread_weight
from sdc.safety_options import safety_of, safety_options
from sdc.sampling_options import Numbers, WithDefaults, options, sampling_options
from sdc.several import TakesSeveral
from sdc.text_options import files_by_name, text_options

if TYPE_CHECKING:
    from PIL.Image import Image
    from sd_runtime import (
        ComputeUnit,
        GeneratedImage,
        ImageSize,
        Pipeline,
        Precision,
        Reused,
        Safety,
        SamplingOptions,
    )
    from sd_schedulers import Step

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
    "it is named after the prompt.",
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
        drawing = source.with_options({**own, **stated(ctx, asked), **given})
        drawing["clip_skip"] = pipeline.text.clip_skip  # that of the picture, or the one that was stated
        _say_what_differs(source, pipeline)
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
    places = list(_places(output, texts, range(first, first + image_count)))
    if grid is not None:
        _check_grid(grid, [path for path, _, _ in places])
        check_sheet(
            len(texts), image_count, pipeline.bundle.manifest.model.image, drawing.get("hires_scale") or 1
        )
    pictures = []
    for path, text, seed in places:
        options: dict[str, Any] = {**drawing, counted: seed}
        drawn = draw(
            pipeline,
            text,
            check_safety=not disable_safety,
            safety=policy,
            save=_every(save_every, path, preview),
            sampled=_measured(pipeline, text, options) if measure_guidance else None,
            **options,
        )
        drawn.save(path)
        _say(drawn, path)
        if grid is not None:
            pictures.append(drawn.image)
    if grid is not None:
        save_sheet(pictures, image_count, grid)
        console().print(f"wrote {grid}", soft_wrap=True)
    console().print(
        f"{len(texts) * image_count} image(s), {drawn.settings.num_inference_steps} steps each: "
        f"{time.perf_counter() - began:.1f} s, peak memory {bytes_of(peak_memory())}; "
        f"engine {pipeline.engine}, {pipeline.precision} arithmetic"
        f"{_UNCHECKED.get(drawn.safety.status, '')}",
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


def _places(output: Path, texts: Sequence[str], seeds: range) -> Iterator[tuple[Path, str, int]]:
    """Where the picture of each text with each seed is written."""
    for (place, text), seed in itertools.product(enumerate(texts, 1), seeds):
        target = of_several(named(output, text), place, len(texts))
        yield numbered(target, seed) if len(seeds) > 1 else target, text, seed


def _check_grid(grid: Path, pictures: Sequence[Path]) -> None:
    """The sheet is written beside the pictures, and not over one of them."""
    if grid.resolve() in {path.resolve() for path in pictures}:
        raise click.UsageError(f"expected another file for --grid than those of the pictures, got {grid}")


_UNCHECKED = {"absent": "; unchecked, for want of a safety checker", "off": "; unchecked, as asked"}


def draw(
    pipeline: Pipeline,
    prompt: str,
    *,
    check_safety: bool,
    safety: Safety | None,
    save: Callable[[Pipeline, Step], None] | None = None,
    sampled: Callable[[Step, float], None] | None = None,
    **options: Unpack[SamplingOptions],
) -> GeneratedImage:
    """One picture, behind a bar that counts the steps, their rate and the time left; ``save`` sees each.

    ``sampled`` gets the last one, and the seconds that all took.
    """
    from sdc.console import progress

    settings = pipeline.settings(prompt, **options)
    with progress(rate="step/s") as bar:
        task = bar.add_task("loading", total=None)
        steps = pipeline.steps(prompt, **options)  # prompts are encoded and networks loaded here
        began = time.perf_counter()
        for step in steps:
            bar.update(task, description="sampling", total=step.total, completed=step.index + 1)
            if save is not None:
                save(pipeline, step)
        if sampled is not None:
            bar.update(task, description="with guidance in all steps")
            sampled(step, time.perf_counter() - began)
        bar.update(task, description="decoding")
        given: dict[str, Any] = {name: options.get(name) for name in ("image", "mask")}
        return pipeline.finish(step.latent, settings, check_safety=check_safety, safety=safety, **given)


def _measured(pipeline: Pipeline, prompt: str, options: dict[str, Any]) -> Callable[[Step, float], None]:
    """What says how far a picture is from the one with guidance in all steps."""
    from sdc.console import console
    from sdc.skipping import held

    def say(last: Step, seconds: float) -> None:
        console().print(str(held(pipeline, prompt, last.latent, seconds, options)), soft_wrap=True)

    return say


def _every(count: int, path: Path, preview: str | None) -> Callable[[Pipeline, Step], None] | None:
    """What writes every ``count``-th step beside ``path``; the last one is the picture itself."""
    if count == 0:
        return None

    def save(pipeline: Pipeline, step: Step) -> None:
        number = step.index + 1
        if number % count == 0 and number != step.total:
            from sd_bundle.drafts import replacing
            from sd_runtime import format_of

            target = path.with_name(f"{path.stem}-step-{number:03d}{path.suffix}")
            with replacing(target) as draft:
                pipeline.preview(step.denoised, preview or "vae").save(draft, format=format_of(target))

    return save


def _size(asked: tuple[int, int] | None, source: Reused | None) -> ImageSize | None:
    """That of --size (height, width), or of the picture whose settings are used again."""
    from sd_runtime import ImageSize

    if asked is not None:
        return ImageSize(height=asked[0], width=asked[1])
    return None if source is None else source.size


def _say_what_differs(source: Reused, pipeline: Pipeline) -> None:
    """The model is another one if another bundle was chosen, which is no mistake."""
    from sdc.console import console

    model = pipeline.bundle.manifest.model.identifier
    if source.model not in (None, model):
        console().print(f"note: that picture is of {source.model}, this one of {model}", soft_wrap=True)


def numbered(output: Path, seed: int) -> Path:
    """``cat.png`` for seed 93 of several: ``cat-93.png``."""
    return output.with_name(f"{output.stem}-{seed}{output.suffix}")


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


def _say(drawn: GeneratedImage, target: Path) -> None:
    from sdc.console import console

    flag = ""
    if drawn.flagged:
        done = {"black": "black", "blur": "blurred"}.get(drawn.safety.action or "", "shown")
        flag = f"; {done}, and the safety checker flagged it"
    recipe = f", recipe {drawn.settings.recipe}" if drawn.settings.recipe else ""
    console().print(f"wrote {target} (seed {drawn.settings.seed}{recipe}){flag}", soft_wrap=True)


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

"""``sdc generate``: a bundle and a prompt to PNG files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

if TYPE_CHECKING:
    from sd_runtime import Engine, GeneratedImage, Pipeline, Precision, Rng, SamplingOptions


@click.command("generate", short_help="Draw pictures of a prompt with a bundle.")
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
@click.option("--negative-prompt", default="", help="What not to draw.")
@click.option("--seed", default=93, show_default=True, help="Of the first image; the next take seed + 1, ...")
@click.option("--num-inference-steps", default=20, show_default=True, help="Sampling steps.")
@click.option(
    "--guidance-scale", default=7.5, show_default=True, help="How far to follow the prompt; 1 is off."
)
@click.option("--scheduler", metavar="NAME", help="pndm, ddim, euler, dpmpp_2m; by default the bundle's own.")
@click.option(
    "--rng",
    type=click.Choice(["numpy", "torch"]),
    default="numpy",
    show_default=True,
    help="Whose noise a seed stands for: numpy as Apple's pipeline, torch as diffusers on a CPU.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "coreml", "portable", "reference"]),
    default="auto",
    show_default=True,
    help="auto: Core ML on macOS, portable elsewhere.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Arithmetic of the portable engine.",
)
@click.option(
    "--image-count", default=1, show_default=True, type=click.IntRange(min=1), help="How many to draw."
)
def command(
    prompt: str,
    *,
    bundle: Path,
    output: Path,
    negative_prompt: str,
    seed: int,
    num_inference_steps: int,
    guidance_scale: float,
    scheduler: str | None,
    rng: Rng,
    engine: Engine,
    precision: Precision,
    image_count: int,
) -> None:
    """Draw PROMPT with the bundle of -i and write a PNG that carries its settings as text."""
    from sd_runtime import Pipeline

    from sdc.console import console, peak_memory, size

    _check_output(output)
    began = time.perf_counter()
    pipeline = Pipeline.open(bundle, engine=engine, precision=precision)
    for index in range(image_count):
        target = numbered(output, seed + index) if image_count > 1 else output
        image = draw(
            pipeline,
            prompt,
            negative_prompt=negative_prompt,
            seed=seed + index,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            scheduler=scheduler,
            rng=rng,
        )
        image.save(target)
        console().print(f"wrote {target} (seed {seed + index})", soft_wrap=True)
    console().print(
        f"{image_count} image(s), {num_inference_steps} steps each: {time.perf_counter() - began:.1f} s, "
        f"peak memory {size(peak_memory())}; engine {pipeline.engine}, {pipeline.precision} arithmetic",
        soft_wrap=True,
    )


def draw(pipeline: Pipeline, prompt: str, **options: Unpack[SamplingOptions]) -> GeneratedImage:
    """One picture, behind a bar that counts the steps."""
    from sd_runtime import GeneratedImage

    from sdc.console import progress

    settings = pipeline.settings(prompt, **options)
    with progress() as bar:
        task = bar.add_task("loading", total=None)
        for step in pipeline.steps(prompt, **options):
            bar.update(task, description="sampling", total=step.total, completed=step.index + 1)
    return GeneratedImage(pipeline.decode(step.latent), settings)


def numbered(output: Path, seed: int) -> Path:
    """``cat.png`` for seed 93 of several: ``cat-93.png``."""
    return output.with_name(f"{output.stem}-{seed}{output.suffix}")


def _check_output(output: Path) -> None:
    """Say what is wrong with the output before minutes of work are lost on it."""
    if output.suffix.lower() != ".png":
        raise click.BadParameter(
            f"expected a file name that ends in .png, got {output.name}", param_hint="-o"
        )
    if not output.parent.is_dir():
        raise click.BadParameter(f"expected an existing folder, got {output.parent}", param_hint="-o")

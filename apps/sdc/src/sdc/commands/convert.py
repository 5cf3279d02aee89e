"""``sdc convert``: a checkpoint to a bundle."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sdc.calibration_options import bytes_asked
from sdc.commands.chunk import cut_facts, print_cuts
from sdc.conversions import conversion_facts, plan_facts, print_conversion, print_plan, print_recipe, worst
from sdc.devices import check_free, choose, deliver, facts, print_delivered, resources_beside
from sdc.json_output import json_option, print_json
from sdc.networks import network_options, open_with_networks
from sdc.quantizing import palettizing
from sdc.recipe_option import check_recipe, names, recipe_of
from sdc.sampling_options import NameOf
from sdc.several import TakesSeveral
from sdc.sizes import image_size
from sdc.sources import SOURCE_NAMES, source_options

if TYPE_CHECKING:
    from sd_convert import (
        Checkpoint,
        ComponentKind,
        ConversionCache,
        ConversionOptions,
        ConversionReport,
        Likeness,
        Transform,
    )

    from sdc.chunking import Cut
    from sdc.chunking import Wanted as Pieces


@click.command("convert", cls=TakesSeveral, short_help="Convert a checkpoint to a Core ML bundle.")
@click.argument("checkpoint")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The bundle to write.")
@click.option(
    "--for",
    "device",
    type=click.Choice(["iphone", "ipad", "mac"]),
    is_eager=True,
    callback=choose,
    help="Make what such a device runs well: attention, system, bits and pieces, unless they are said here; "
    "compile it beside the bundle (OUTPUT-Resources) and lint it.",
)
@click.option(
    "--components",
    metavar="A,B",
    help="text_encoder, text_encoder_2, unet, vae_decoder, vae_encoder, safety_checker, preview_decoder, "
    "names of ControlNets and adapters; by default all that the checkpoint has, and those.",
)
@click.option(
    "--attention-implementation",
    type=click.Choice(["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "SDPA", "AUTO"], case_sensitive=False),
    default="SPLIT_EINSUM",
    show_default=True,
    help="SPLIT_EINSUM(_V2) for the Neural Engine, ORIGINAL or SDPA (iOS18, macOS15) for the GPU; "
    "AUTO chooses for each attention.",
)
@click.option(
    "--compute-unit",
    type=click.Choice(["ALL", "CPU_AND_GPU", "CPU_ONLY", "CPU_AND_NE"], case_sensitive=False),
    help="What apps should run it on; by default what the attention implementation is made for.",
)
@click.option(
    "--size",
    "sizes",
    metavar="WIDTHxHEIGHT",
    multiple=True,
    help="Of pictures; repeatable: a network for each, all of which share their weights. The first is drawn "
    "where none is asked for.",
)
@click.option("--latent-h", type=click.IntRange(min=1), help="Latent height; the image's is 8 times that.")
@click.option("--latent-w", type=click.IntRange(min=1), help="Latent width.")
@click.option(
    "--text-token-sequence-length",
    type=click.IntRange(min=1),
    help="Tokens that the UNet attends to: up to 77, by default, or a multiple of 77 for long prompts.",
)
@click.option(
    "--unet-support-controlnet", is_flag=True, help="Give the UNet inputs for the residuals of a ControlNet."
)
@click.option(
    "--unet-support-t2i-adapter", is_flag=True, help="Give the UNet inputs for those of a T2I-Adapter."
)
@network_options
@click.option(
    "--unet-batch-one", is_flag=True, help="One sample at a time: less memory, two calls for each step."
)
@click.option(
    "--unet-form",
    "unet_forms",
    metavar="controlnet|batch-one|tokens=N",
    multiple=True,
    help="Make the UNet so, too: with inputs for ControlNets, for one sample, for prompts of N tokens (154, "
    "231, …); repeatable, in all combinations, which share their weights. What draws takes the one that a "
    "picture needs.",
)
@click.option(
    "--min-deployment-target", default="macOS13", show_default=True, help="Oldest system to run on."
)
@click.option(
    "--compute-precision",
    metavar="[NAME=]auto|fp16|fp32",
    multiple=True,
    help="For all components or one (vae_decoder=fp32); by default fp16, or fp32 where that overflows.",
)
@click.option(
    "--quantize-nbits",
    type=int,
    help="Palettize the UNet, the text encoders and ControlNets to so many bits: 1, 2, 3, 4, 6 or 8; see "
    "`sdc compress`. 16 leaves them as they are.",
)
@click.option("--chunks", type=click.IntRange(min=2), help="Cut the UNet into so many pieces.")
@click.option("--chunk-unet", is_flag=True, help="Into two: Apple's name for --chunks 2.")
@click.option(
    "--chunk-size", metavar="400MB", callback=bytes_asked, help="Into as few as have so many bytes each."
)
@click.option("--merge-chunks", is_flag=True, help="And these into one package, a Core ML pipeline.")
@click.option(
    "--like",
    metavar="BUNDLE",
    type=click.Path(path_type=Path),
    help="Put the weights into the programs of a bundle of the same architecture, with its options.",
)
@click.option(
    "--recipe",
    type=NameOf("recipe", names),
    help="How `sdc generate` is to sample where nothing else is said, of a model or LoRA for few steps; by "
    "default that of a LoRA whose name is known.",
)
@click.option("--no-cache", is_flag=True, help="Neither use nor keep what earlier conversions found out.")
@source_options
@click.option(
    "--check-output-correctness", is_flag=True, help="Verify each component against torch afterwards."
)
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that exists, once the new one is complete.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    checkpoint: str,
    *,
    output: Path,
    device: str | None,
    components: str | None,
    attention_implementation: str,
    compute_unit: str | None,
    sizes: tuple[str, ...],
    latent_h: int | None,
    latent_w: int | None,
    text_token_sequence_length: int | None,
    unet_support_controlnet: bool,
    unet_support_t2i_adapter: bool,
    convert_controlnet: tuple[str, ...],
    union_hints: int,
    convert_t2i_adapter: tuple[str, ...],
    ip_adapter: tuple[str, ...],
    image_encoder: str | None,
    preview_vae: str | None,
    unet_batch_one: bool,
    unet_forms: tuple[str, ...],
    min_deployment_target: str,
    compute_precision: tuple[str, ...],
    quantize_nbits: int | None,
    chunks: int | None,
    chunk_unet: bool,
    chunk_size: float | None,
    merge_chunks: bool,
    like: Path | None,
    recipe: str | None,
    no_cache: bool,
    source: dict[str, Any],
    check_output_correctness: bool,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Convert CHECKPOINT to a bundle of Core ML packages.

    CHECKPOINT is a diffusers folder, a single .safetensors file, or a hub id (ORGANISATION/NAME, for a
    single file ORGANISATION/NAME/FILE.safetensors).
    """
    from sd_convert import ConversionCache, ConversionOptions, Likeness, plan, verify

    from sdc.commands.verify import print_report

    check_recipe(recipe)
    if like is not None:
        _refuse_beside_like(ctx)
    likeness = None if like is None else Likeness.of(like)
    options = ConversionOptions(
        components=tuple(components.split(",")) if components else None,
        attention_implementation=attention_implementation.upper(),
        compute_unit=compute_unit.upper() if compute_unit else None,
        latent_height=latent_h,
        latent_width=latent_w,
        sizes=tuple(map(image_size, sizes)),
        text_token_sequence_length=text_token_sequence_length,
        unet_support_controlnet=unet_support_controlnet,
        unet_support_t2i_adapter=unet_support_t2i_adapter,
        unet_batch_one=unet_batch_one,
        unet_forms=unet_forms,
        target=min_deployment_target,
        compute_precision=compute_precision,
        overwrite=overwrite,
    )
    if ctx.get_parameter_source("chunk_unet") is ParameterSource.DEFAULT_MAP:
        chunk_unet = chunks is None and chunk_size is None
    pieces = _pieces(chunks, chunk_size, chunk_unet=chunk_unet, merge=merge_chunks)
    transform = None if quantize_nbits in (None, 16) else palettizing(quantize_nbits, output.resolve().parent)
    resolved = options if likeness is None else likeness.options(options)
    if resolved.components is None or "unet" in resolved.components:
        _check_supported("controlnet", convert_controlnet, resolved.takes_residuals)
        _check_supported("t2i-adapter", convert_t2i_adapter, resolved.unet_support_t2i_adapter)
    if device is not None:
        check_free(resources_beside(output), overwrite=overwrite)
    opened, kinds = open_with_networks(
        checkpoint,
        source,
        controlnets=convert_controlnet,
        union_hints=union_hints,
        adapters=convert_t2i_adapter,
        ip_adapters=ip_adapter,
        image_encoder=image_encoder,
        preview_vae=preview_vae,
        components=resolved.components,
    )
    guessed = recipe_of(opened) if recipe is None else None
    chosen = recipe if guessed is None else guessed[0]
    options, resolved = replace(options, recipe=chosen), replace(resolved, recipe=chosen)
    cache = None if no_cache else ConversionCache()
    if dry_run:
        planned = plan(opened, resolved, cache=cache, kinds=kinds)
        print_json(plan_facts(planned)) if as_json else print_plan(planned, resolved, output)
        return
    cuts: list[Cut] = []
    if pieces is None:
        conversion = run_conversion(opened, output, options, cache, transform, likeness, kinds=kinds)
    else:
        conversion, cuts = _in_pieces(opened, output, options, cache, transform, kinds, pieces)
    report = verify(output, opened, kinds=kinds) if check_output_correctness else None
    delivered = None if device is None else deliver(output, device)
    if as_json:
        made = conversion_facts(conversion, report) | ({"cuts": cut_facts(cuts)} if cuts else {})
        print_json(made | ({} if delivered is None else facts(delivered)))
    else:
        print_conversion(conversion)
        if guessed is not None:
            print_recipe(*guessed)
        if cuts:
            print_cuts(cuts)
        if report is not None:
            print_report(report)
        if delivered is not None and device is not None:
            print_delivered(delivered, output, device, worst(report))
    ctx.exit(0 if report is None or report.passed else 1)


def _pieces(count: int | None, most: float | None, *, chunk_unet: bool, merge: bool) -> Pieces | None:
    """What is asked of the UNet's pieces, None for one piece."""
    from sdc.chunking import MIN_PSNR
    from sdc.chunking import Wanted as Pieces

    given = [count is not None, most is not None, chunk_unet]
    if sum(given) > 1:
        raise click.UsageError("expected one of --chunks, --chunk-size and --chunk-unet, got several")
    if not any(given):
        if merge:
            raise click.UsageError("--merge-chunks: it needs --chunks or --chunk-size")
        return None
    return Pieces(2 if chunk_unet else count, None if most is None else int(most), merge, MIN_PSNR, 0)


def _in_pieces(
    checkpoint: Checkpoint,
    output: Path,
    options: ConversionOptions,
    cache: ConversionCache | None,
    transform: Transform | None,
    kinds: Iterable[ComponentKind],
    pieces: Pieces,
) -> tuple[ConversionReport, list[Cut]]:
    """Convert beside ``output``, and write it from there with the UNet in pieces."""
    from sd_bundle import OutputExistsError, open_bundle
    from sd_bundle.drafts import draft_folder, remove_abandoned

    from sdc.chunking import chunk_bundle
    from sdc.commands.chunk import showing

    if output.exists() and not options.overwrite:
        raise OutputExistsError(f"{output} exists: choose another output, or ask to overwrite it")
    began, place = time.perf_counter(), output.resolve()
    remove_abandoned(place)
    with draft_folder(place) as draft:
        report = run_conversion(checkpoint, draft / "whole", options, cache, transform, kinds=kinds)
        bundle = open_bundle(draft / "whole")
        names = [one.name for one in bundle.components("denoiser")]
        if not names:
            raise click.UsageError("--chunks: expected a UNet among the components, got none")
        with showing() as show:
            cuts = chunk_bundle(bundle, output, names, pieces, show, overwrite=options.overwrite)
    return replace(report, bundle=output, seconds=time.perf_counter() - began), cuts


def run_conversion(
    checkpoint: Checkpoint,
    output: Path,
    options: ConversionOptions,
    cache: ConversionCache | None = None,
    transform: Transform | None = None,
    like: Likeness | None = None,
    *,
    kinds: Iterable[ComponentKind] | None = None,
) -> ConversionReport:
    """Convert behind a bar that names the component at work; ``kinds`` are sd-convert's own if not given."""
    from sd_convert import KINDS, Progress, convert

    from sdc.console import progress

    with progress() as bar:
        task = bar.add_task("reading", total=None)

        def show(event: Progress) -> None:
            done = event.index + (event.report is not None)
            bar.update(task, description=event.component, total=event.total, completed=done)

        return convert(
            checkpoint,
            output,
            options,
            progress=show,
            cache=cache,
            transform=transform,
            like=like,
            kinds=KINDS if kinds is None else kinds,
        )


#: Options that go with --like: the others, a bundle says already.
_BESIDE_LIKE = (
    "checkpoint",
    "output",
    "components",
    "like",
    "recipe",
    "no_cache",
    "check_output_correctness",
    "overwrite",
    "as_json",
)


def _refuse_beside_like(ctx: click.Context) -> None:
    """Refuse options that would have no effect."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        said = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if said and name not in (*_BESIDE_LIKE, *SOURCE_NAMES):
            raise click.UsageError(f"{parameter.opts[0]} does not go with --like: the bundle says it already")


def _check_supported(what: str, sources: Sequence[str], is_supported: bool) -> None:
    """Refuse networks that the UNet beside them would have no inputs for."""
    if sources and not is_supported:
        raise click.UsageError(
            f"expected --unet-support-{what} with --convert-{what}, got none: the UNet would not take what "
            f"{sources[0]} gives"
        )

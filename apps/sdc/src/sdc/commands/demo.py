"""``sdc demo``: the whole way with the checkpoint that ships with sdc."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdc.json_output import json_option, print_json

if TYPE_CHECKING:
    from PIL.Image import Image
    from sd_convert import ConversionReport, VerificationReport

    from sdc.demo.captions import Caption
    from sdc.demo.conditioned import Conditioned
    from sdc.demo.sheet import Exhibit

_SEED = 93


@click.command("demo", short_help="Convert, prove and draw with the checkpoint that ships with sdc.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("sdc-demo"),
    show_default=True,
    help="Folder for bundle/, controlled/ and demo.png; bundles of an earlier run there are replaced.",
)
@click.option(
    "--pictures", type=click.IntRange(1, 200), default=24, show_default=True, help="How many to draw."
)
@click.option(
    "--conditioned",
    type=click.IntRange(0, 100),
    default=3,
    show_default=True,
    help="How many to draw with a ControlNet and an edge map.",
)
@click.option("--num-inference-steps", default=20, show_default=True, help="Sampling steps for each.")
@click.option(
    "--checkpoint",
    "copy",
    type=click.Path(path_type=Path),
    help="Only write the checkpoint, a diffusers folder, to this new place: to try other commands on.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    output: Path,
    pictures: int,
    conditioned: int,
    num_inference_steps: int,
    copy: Path | None,
    as_json: bool,
) -> None:
    """Convert the demo checkpoint, hold every output against torch, and draw a contact sheet.

    The checkpoint is a small latent diffusion model that knows captions of the form
    "a red circle on a blue background". With it comes a ControlNet for edge maps.
    """
    from sdc.console import console
    from sdc.conversions import conversion_facts
    from sdc.demo.conditioned import EDGES, draw_conditioned, wanted_pictures
    from sdc.demo.sheet import contact_sheet
    from sdc.demo.shipped import demo_checkpoint

    if copy is not None:
        write_checkpoint(copy)
        print_json({"checkpoint": str(copy)}) if as_json else console().print(f"wrote {copy}", soft_wrap=True)
        return
    began = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    with demo_checkpoint() as folder:
        conversion, verification = convert_and_verify(folder, output / "bundle")
        steering = convert_and_verify(folder, output / "controlled", EDGES) if conditioned else None
    exhibits = draw_all(output / "bundle", demo_captions(pictures), num_inference_steps=num_inference_steps)
    steered = (
        draw_conditioned(
            output / "controlled", wanted_pictures(conditioned), num_inference_steps=num_inference_steps
        )
        if conditioned
        else []
    )
    save_atomically(contact_sheet(exhibits, steered), output / "demo.png")
    seconds = time.perf_counter() - began
    if as_json:
        facts = conversion_facts(conversion, verification)
        print_json(facts | _exhibited(exhibits, steered, output / "demo.png") | {"seconds": seconds})
    else:
        _print(conversion, verification, exhibits, steered, output, seconds)
    ctx.exit(0 if verification.passed and (steering is None or steering[1].passed) else 1)


def convert_and_verify(
    folder: Path, bundle: Path, controlnet: str | None = None
) -> tuple[ConversionReport, VerificationReport]:
    """The demo checkpoint in ``folder`` as a bundle, with the ControlNet of that name if one is given."""
    from sd_controlnet.conversion import with_controlnets
    from sd_convert import KINDS, ConversionOptions, open_checkpoint, verify

    from sdc.commands.convert import run_conversion
    from sdc.console import console

    controlnets = [] if controlnet is None else [folder / controlnet]
    checkpoint, more = with_controlnets(open_checkpoint(folder), controlnets)
    options = ConversionOptions(
        model_version="sdc-demo", overwrite=True, unet_support_controlnet=controlnet is not None
    )
    kinds = (*KINDS, *more)
    conversion = run_conversion(checkpoint, bundle, options, kinds=kinds)
    with console(err=True).status("verifying against torch"):
        return conversion, verify(
            bundle, checkpoint, kinds=kinds, components=("unet", controlnet) if controlnet else None
        )


def _exhibited(exhibits: list[Exhibit], steered: list[Conditioned], sheet: Path) -> dict[str, Any]:
    """For ``--json``: what each picture shows, as far as the judge can see it."""
    pictures = [
        {"caption": str(one.caption), "seen": str(one.verdict), "right": one.right, "in_training": one.seen}
        for one in exhibits
    ]
    conditioned = [{"caption": str(one.wanted.caption), "overlap": one.overlap} for one in steered]
    return {"sheet": str(sheet), "pictures": pictures, "conditioned": conditioned}


def _print(
    conversion: ConversionReport,
    verification: VerificationReport,
    exhibits: list[Exhibit],
    steered: list[Conditioned],
    output: Path,
    seconds: float,
) -> None:
    from sdc.console import console, peak_memory, size
    from sdc.demo.sheet import accuracy

    console().print(_summary(conversion, verification))
    console().print(f"arithmetic: {verification.arithmetic}", soft_wrap=True)
    right = sum(exhibit.right for exhibit in exhibits)
    console().print(f"prompt accuracy: {right} of {len(exhibits)} pictures ({accuracy(exhibits):.0%})")
    for exhibit in exhibits:
        if not exhibit.right:
            console().print(f"  asked for {exhibit.caption}; the judge sees {exhibit.verdict}")
    if steered:
        mean = sum(one.overlap for one in steered) / len(steered)
        console().print(f"with a ControlNet: shapes overlap their edge maps by {mean:.0%} on average")
    console().print(
        f"wrote {output / 'bundle'} and {output / 'demo.png'} in {seconds:.0f} s, "
        f"peak memory {size(peak_memory())}",
        soft_wrap=True,
    )


def write_checkpoint(path: Path) -> None:
    """Copy the demo checkpoint to a folder that is not there yet, whole or not at all."""
    import shutil

    from sd_bundle.drafts import draft_folder, remove_abandoned

    from sdc.demo.shipped import demo_checkpoint

    if path.exists():
        raise click.ClickException(
            f"expected a new folder for the checkpoint, got {path}; choose another name"
        )
    remove_abandoned(path)
    with demo_checkpoint() as folder, draft_folder(path) as draft:
        shutil.copytree(folder, draft, dirs_exist_ok=True)
        draft.rename(path)


def demo_captions(count: int) -> list[Caption]:
    """Three captions of the training to one that it never showed, always the same ones."""
    from sdc.demo.captions import seen_captions, unseen_captions

    rng = random.Random(_SEED)  # noqa: S311 - a choice of captions, not a secret
    unseen = rng.sample(unseen_captions(), min(count // 4, len(unseen_captions())))
    seen = rng.sample(seen_captions(), count - len(unseen))
    return [*seen, *unseen]


def draw_all(bundle: Path, captions: list[Caption], *, num_inference_steps: int) -> list[Exhibit]:
    """One picture for each caption, each from its own seed, judged."""
    from sd_runtime import Pipeline

    from sdc.console import progress
    from sdc.demo.captions import unseen_captions
    from sdc.demo.judge import judge
    from sdc.demo.sheet import Exhibit

    pipeline, unseen = Pipeline.open(bundle), set(unseen_captions())
    exhibits = []
    with progress() as bar:
        for index, caption in enumerate(bar.track(captions, description="drawing")):
            (drawn,) = pipeline.generate(
                str(caption), seed=_SEED + index, num_inference_steps=num_inference_steps
            )
            exhibits.append(Exhibit(caption, drawn.image, judge(drawn.image), caption not in unseen))
    return exhibits


def save_atomically(image: Image, path: Path) -> None:
    """Write a PNG whole or not at all."""
    from sd_bundle.drafts import replacing

    with replacing(path) as draft:
        image.save(draft, format="PNG")


def _summary(conversion: ConversionReport, verification: VerificationReport) -> object:
    from sdc.console import table

    rows = table("component", "seconds", "MB", "dB")
    for part in conversion.components:
        worst = min(row.psnr for row in verification.rows if row.component == part.name)
        rows.add_row(part.name, f"{part.seconds:.1f}", f"{part.bytes / 1e6:.1f}", f"{worst:.1f}")
    return rows

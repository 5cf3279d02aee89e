"""``sdc chunk``: networks in pieces that a device can load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdc.calibration_options import bytes_asked
from sdc.chunking import MIN_PSNR
from sdc.json_output import finite, json_option, print_json

if TYPE_CHECKING:
    from sdc.chunking import Cut, Wanted


@click.command("chunk", short_help="Cut a network into pieces that run one after the other.")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where to write it.")
@click.option("--chunks", type=click.IntRange(min=2), help="How many pieces.")
@click.option("--chunk-size", metavar="400MB", callback=bytes_asked, help="At most so much for each piece.")
@click.option("--components", metavar="A,B", help="Of a bundle; by default the UNet.")
@click.option("--merge-chunks", is_flag=True, help="One package, a Core ML pipeline of the pieces.")
@click.option(
    "--min-psnr",
    type=float,
    default=MIN_PSNR,
    show_default=True,
    help="In dB: nothing is written if an output is further from the whole's.",
)
@click.option(
    "--boundaries",
    type=click.Choice(["auto", "fp16", "fp32"]),
    default="auto",
    show_default=True,
    help="How what is computed in fp16 passes from piece to piece; auto: in fp32 where fp16 does not hold "
    "it, to --min-psnr, on random inputs.",
)
@click.option("--seed", default=0, show_default=True, help="Of the random inputs that it is proved on.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@json_option
def command(
    *,
    model: Path,
    output: Path,
    chunks: int | None,
    chunk_size: float | None,
    components: str | None,
    merge_chunks: bool,
    min_psnr: float,
    boundaries: str,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Cut the UNet of the bundle MODEL, or an .mlpackage, and prove that its outputs are the same.

    \b
    sdc chunk bundle -o cut --chunks 2
    sdc chunk unet.mlpackage -o pieces --chunk-size 400MB
    sdc chunk unet.mlpackage -o whole --chunks 3 --merge-chunks

    Cuts are where the fewest bytes cross, in the type that they are computed in unless that loses. The pieces
    and the whole then run on the portable engine on the same random inputs. Of a package, OUTPUT is a folder.
    """
    from sdc.chunking import Wanted
    from sdc.console import console, peak_memory, size

    if (chunks is None) == (chunk_size is None):
        raise click.UsageError("expected one of --chunks and --chunk-size")
    began = time.perf_counter()
    most = None if chunk_size is None else int(chunk_size)
    wanted = Wanted(chunks, most, merge_chunks, min_psnr, seed, boundaries)
    if (model / "manifest.json").is_file():
        cuts = _bundle(model, output, components, wanted, overwrite=overwrite)
    else:
        if components or overwrite:
            raise click.UsageError("--components and --overwrite: not options for a package")
        cuts = _package(model, output, wanted)
    seconds, peak = time.perf_counter() - began, peak_memory()
    if as_json:
        print_json({"path": str(output), "cuts": cut_facts(cuts), "seconds": seconds, "peak_memory": peak})
        return
    print_cuts(cuts)
    console().print(f"wrote {output}: {seconds:.1f} s, peak memory {size(peak)}", soft_wrap=True)


def _bundle(
    model: Path, output: Path, components: str | None, wanted: Wanted, *, overwrite: bool
) -> list[Cut]:
    from sd_bundle import open_bundle

    from sdc.chunking import chunk_bundle

    bundle = open_bundle(model)
    names = components.split(",") if components else [one.name for one in bundle.components("denoiser")]
    if not names:
        raise click.UsageError("expected a UNet in the bundle, got none: name --components")
    with showing() as show:
        return chunk_bundle(bundle, output, names, wanted, show, overwrite=overwrite)


def _package(model: Path, output: Path, wanted: Wanted) -> list[Cut]:
    """Written beside its place, and renamed once it is proved."""
    from sd_bundle.drafts import draft_folder, remove_abandoned

    from sdc.chunking import chunk_package

    place = output.resolve()
    if place.exists():
        raise click.ClickException(f"expected a new path, got {output}, which exists; choose another")
    remove_abandoned(place)
    with showing() as show, draft_folder(place) as draft:
        cuts, _ = chunk_package(model, draft, wanted, show)
        draft.rename(place)
    return cuts


@contextmanager
def showing() -> Iterator[Callable[[str], None]]:
    """A bar that says what is done now."""
    from sdc.console import progress

    with progress() as bar:
        task = bar.add_task("reading", total=None)
        yield lambda what: bar.update(task, description=what)


def cut_facts(cuts: list[Cut]) -> list[dict[str, Any]]:
    """For ``--json``."""
    return [
        {
            "network": cut.name,
            "pieces": cut.count,
            "bytes": list(cut.pieces),
            "crossing": cut.crossing,
            "in_fp32": list(cut.raised),
            "psnr": finite(cut.proof.worst.psnr),
            "max_error": cut.proof.worst.max_error,
        }
        for cut in cuts
    ]


def print_cuts(cuts: list[Cut]) -> None:
    """A row for each network: its pieces, what crosses, and how far its outputs are from the whole's."""
    from sdc.console import console, decibels, size, table

    rows = table("network", "pieces", "largest", "crossing", "in fp32", "dB", "largest error")
    for cut in cuts:
        worst = cut.proof.worst
        rows.add_row(
            cut.name,
            str(cut.count),
            size(max(cut.pieces)),
            size(cut.crossing),
            str(len(cut.raised)),
            decibels(worst.psnr),
            f"{worst.max_error:.3g}",
        )
    if cuts:
        console().print(rows)
    else:
        console().print("not compared: the portable engine is not installed")

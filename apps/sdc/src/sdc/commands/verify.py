"""``sdc verify``: a bundle's outputs against torch, or those of one engine against another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sdc.console import printable
from sdc.engines import engine_options
from sdc.json_output import finite, in_json, json_option, print_json
from sdc.networks import OPTIONS, network_options, open_with_networks
from sdc.several import TakesSeveral
from sdc.sources import source_options

if TYPE_CHECKING:
    from sd_convert import VerificationReport
    from sd_mil.engines import Engine


@click.command("verify", cls=TakesSeveral, short_help="Prove a bundle against its checkpoint.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--against",
    "checkpoint",
    help="The checkpoint: a folder, file or hub id; without one, --engine is held against portable.",
)
@network_options
@source_options
@click.option("--min-psnr", default=35.0, show_default=True, help="In dB; below it the exit status is 1.")
@engine_options("portable")
@json_option
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON to this file, too."
)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    bundle: Path,
    checkpoint: str | None,
    convert_controlnet: tuple[str, ...],
    union_hints: int,
    convert_t2i_adapter: tuple[str, ...],
    ip_adapter: tuple[str, ...],
    image_encoder: str | None,
    preview_vae: str | None,
    min_psnr: float,
    engine: str,
    precision: Literal["fp32", "bf16"] | None,
    as_json: bool,
    report: Path | None,
    source: dict[str, Any],
) -> None:
    """Run every component of BUNDLE and hold each output against torch's, in fp32, from the checkpoint.

    On a Mac, `sdc verify BUNDLE --engine coreml` needs no checkpoint: it holds Core ML's outputs against
    those of the portable engine.
    """
    from sd_runtime import resolve_engine

    resolved = resolve_engine(engine, precision)  # before minutes of work
    if checkpoint is None:
        from sdc.between_engines import left_out, verify_engine

        found = verify_engine(bundle, resolved, min_psnr=min_psnr)
        for name in left_out(bundle, found):
            click.echo(
                printable(f"sdc: note: {name} takes no part in a plain picture: not compared"), err=True
            )
    else:
        given = {
            "controlnet": convert_controlnet,
            "t2i_adapter": convert_t2i_adapter,
            "image_projection": ip_adapter,
            "preview_decoder": () if preview_vae is None else (preview_vae,),
        }
        found = _against(
            checkpoint, bundle, given, source, image_encoder, union_hints, min_psnr=min_psnr, engine=resolved
        )
    facts = report_facts(found)
    if report is not None:
        from sd_bundle.drafts import replacing

        with replacing(report) as draft:
            draft.write_text(f"{in_json(facts)}\n", encoding="utf-8")
    if as_json:
        print_json(facts)
    else:
        print_report(found)
    ctx.exit(0 if found.passed else 1)


def _against(
    checkpoint: str,
    bundle: Path,
    given: dict[str, tuple[str, ...]],
    source: dict[str, Any],
    image_encoder: str | None,
    union_hints: int,
    *,
    min_psnr: float,
    engine: Engine,
) -> VerificationReport:
    """The bundle against torch; ``given`` are the networks that came from elsewhere, by their roles."""
    from sd_bundle import open_bundle
    from sd_convert import verify

    opened = open_bundle(bundle)
    for component in opened.manifest.components:
        if not given.get(component.role, (True,)):
            raise click.UsageError(
                f"expected {OPTIONS[component.role]} for {component.name} of {bundle}, got none: it is held "
                "against the network that it was made from"
            )
    network, kinds = open_with_networks(
        checkpoint,
        source,
        controlnets=given["controlnet"],
        union_hints=union_hints,
        adapters=given["t2i_adapter"],
        ip_adapters=given["image_projection"],
        image_encoder=image_encoder,
        preview_vae=next(iter(given["preview_decoder"]), None),
        components=tuple(component.name for component in opened.manifest.components),
    )
    return verify(bundle, network, kinds=kinds, min_psnr=min_psnr, engine=engine)


def report_facts(report: VerificationReport) -> dict[str, Any]:
    """The report for ``--json``, and the machine that it was made on.

    Outputs that are equal to the last bit have the ``psnr`` null (infinite).
    """
    import platform

    from sdc.benchmarking import device

    rows = [asdict(row) | {"psnr": finite(row.psnr)} for row in report.rows]
    return {
        "bundle": str(report.bundle),
        "checkpoint": report.checkpoint,
        "min_psnr": report.min_psnr,
        "passed": report.passed,
        "arithmetic": report.arithmetic,
        "machine": {"device": device(), "system": platform.platform(), "python": platform.python_version()},
        "rows": rows,
    }


def print_report(report: VerificationReport) -> None:
    """A row for each output, then the verdict and the arithmetic."""
    from sdc.console import console, table

    rows = table("component", "output", "dB", "max error", "s")
    for row in report.rows:
        network = " ".join(word for word in (row.component, row.size, row.form and f"({row.form})") if word)
        rows.add_row(network, row.output, f"{row.psnr:.1f}", f"{row.max_error:.2e}", f"{row.seconds:.1f}")
    console().print(rows)
    verdict = "passed" if report.passed else "FAILED"
    console().print(f"{verdict}: every output needs {report.min_psnr:g} dB or more", soft_wrap=True)
    console().print(f"arithmetic: {report.arithmetic}", soft_wrap=True)

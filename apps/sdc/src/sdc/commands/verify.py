"""``sdc verify``: every output of every component of a bundle against torch."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sdc.engines import engine_options
from sdc.networks import OPTIONS, network_options, open_with_networks
from sdc.several import TakesSeveral
from sdc.sources import source_options

if TYPE_CHECKING:
    from sd_convert import VerificationReport


@click.command("verify", cls=TakesSeveral, short_help="Prove a bundle against its checkpoint.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--against", "checkpoint", required=True, help="The checkpoint: a folder, file or hub id.")
@network_options
@source_options
@click.option("--min-psnr", default=35.0, show_default=True, help="In dB; below it the exit status is 1.")
@engine_options("portable")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    bundle: Path,
    checkpoint: str,
    convert_controlnet: tuple[str, ...],
    convert_t2i_adapter: tuple[str, ...],
    min_psnr: float,
    engine: str,
    precision: Literal["fp32", "bf16"] | None,
    as_json: bool,
    source: dict[str, Any],
) -> None:
    """Run every component of BUNDLE and hold each output against torch's, in fp32, from the checkpoint."""
    from sd_bundle import open_bundle
    from sd_convert import verify

    opened = open_bundle(bundle)
    given = {"controlnet": convert_controlnet, "t2i_adapter": convert_t2i_adapter}
    for component in opened.manifest.components:
        if not given.get(component.role, (True,)):
            raise click.UsageError(
                f"expected {OPTIONS[component.role]} for {component.name} of {bundle}, got none: it is held "
                "against the network that it was made from"
            )
    network, kinds = open_with_networks(
        checkpoint,
        source,
        controlnets=convert_controlnet,
        adapters=convert_t2i_adapter,
        components=tuple(component.name for component in opened.manifest.components),
    )
    report = verify(
        bundle,
        network,
        kinds=kinds,
        min_psnr=min_psnr,
        engine=engine,
        precision=precision,
    )
    if as_json:
        click.echo(json.dumps(report_facts(report), indent=2, allow_nan=False))
    else:
        print_report(report)
    ctx.exit(0 if report.passed else 1)


def report_facts(report: VerificationReport) -> dict[str, Any]:
    """The report for ``--json``; outputs that are equal to the last bit have the ``psnr`` null (infinite)."""
    rows = [asdict(row) | {"psnr": row.psnr if math.isfinite(row.psnr) else None} for row in report.rows]
    return {
        "bundle": str(report.bundle),
        "checkpoint": report.checkpoint,
        "min_psnr": report.min_psnr,
        "passed": report.passed,
        "arithmetic": report.arithmetic,
        "rows": rows,
    }


def print_report(report: VerificationReport) -> None:
    """A row for each output, then the verdict and the arithmetic."""
    from sdc.console import console, table

    rows = table("component", "output", "dB", "max error", "s")
    for row in report.rows:
        network = f"{row.component} {row.size}" if row.size else row.component
        rows.add_row(network, row.output, f"{row.psnr:.1f}", f"{row.max_error:.2e}", f"{row.seconds:.1f}")
    console().print(rows)
    verdict = "passed" if report.passed else "FAILED"
    console().print(f"{verdict}: every output needs {report.min_psnr:g} dB or more", soft_wrap=True)
    console().print(f"arithmetic: {report.arithmetic}", soft_wrap=True)

"""``sdc verify``: every output of every component of a bundle against torch."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sdc.engines import engine_options
from sdc.sources import open_checkpoint, source_options

if TYPE_CHECKING:
    from sd_convert import VerificationReport


@click.command("verify", short_help="Prove a bundle against its checkpoint.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--against", "checkpoint", required=True, help="The checkpoint: a folder, file or hub id.")
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
    names = tuple(component.name for component in opened.manifest.components)
    report = verify(
        bundle,
        open_checkpoint(checkpoint, source, components=names),
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

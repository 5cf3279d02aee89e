"""``sdc benchmark``: Apple's table of benchmarks, for this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdc.apple_options import compute_unit_option, engine_on
from sdc.engines import engine_options
from sdc.json_output import json_as, print_json
from sdc.sampling_options import NameOf, schedulers

if TYPE_CHECKING:
    from sd_bundle import ComputeUnit
    from sd_runtime import Precision


@click.command("benchmark", short_help="How long a picture takes on this machine.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--runs", default=5, show_default=True, type=click.IntRange(min=1), help="Pictures to measure.")
@click.option(
    "--num-inference-steps",
    "--step-count",
    default=20,
    show_default=True,
    type=click.IntRange(min=1),
    help="Steps of each.",
)
@click.option("--scheduler", type=NameOf("scheduler", schedulers), help="By default the bundle's own.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="How to print it.",
)
@json_as("form")
@compute_unit_option
@engine_options("auto")
def command(
    bundle: Path,
    *,
    runs: int,
    num_inference_steps: int,
    scheduler: str | None,
    form: str,
    compute_unit: ComputeUnit | None,
    engine: str,
    precision: Precision | None,
) -> None:
    """Draw pictures with BUNDLE and print compute unit, attention, latency, speed and memory.

    The first picture, in which networks load, is stated by itself; the others' medians are the result.
    """
    from sd_runtime import Pipeline

    from sdc.benchmarking import COLUMNS, headline, in_markdown, measured, row
    from sdc.console import console, progress, table

    resolved = engine_on(engine, precision, compute_unit)
    pipeline = Pipeline.open(bundle, engine=resolved)
    with progress() as bar:
        task = bar.add_task("measuring", total=runs)
        found = measured(
            pipeline,
            resolved,
            runs=runs,
            steps=num_inference_steps,
            scheduler=scheduler,
            seen=lambda count: bar.update(task, completed=count),
        )
    if form == "json":
        facts = {**asdict(found), "latency": found.latency, "rate": found.rate}
        print_json(facts)
    elif form == "markdown":
        click.echo(in_markdown(found))
    else:
        rows = table("measured", "")
        for name, cell in zip(COLUMNS, row(found), strict=True):
            rows.add_row(name, cell)
        console().print(headline(found), soft_wrap=True)
        console().print(rows)

"""``sdc run``: any model, on inputs from files or at random."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sdc.engines import engine_options
from sdc.json_output import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sd_mil import Comparison, MLModel

_EXISTING = click.Path(exists=True, path_type=Path)


@click.command("run", short_help="Execute any model; compare it, find where it overflows or diverges.")
@click.argument("model", type=_EXISTING)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="A number, a list ('[1, 2]'), a .npy or .npz file, a picture, 'random', 'random:1x77'; repeatable.",
)
@click.option("--random", "rest_random", is_flag=True, help="Draw every input that is not given.")
@click.option("--resize", is_flag=True, help="Resize pictures to the size that the model expects.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Save the outputs in this folder.",
)
@engine_options("portable")
@click.option(
    "--rounding", type=click.Choice(["fp16"]), help="Round as fp16 hardware would (reference only)."
)
@click.option("--function", help="The function to run, of a model that has several.")
@click.option("--seed", default=0, show_default=True, help="Of the random inputs.")
@click.option("--compare", "other", type=_EXISTING, help="Hold the outputs against this model's (or .onnx).")
@click.option("--min-psnr", default=35.0, show_default=True, help="In dB; below it the exit status is 1.")
@click.option(
    "--first-divergence", is_flag=True, help="Name the first operation that differs from --compare,"
)
@click.option("--threshold", default=40.0, show_default=True, help="… by fewer dB than this.")
@click.option("--overflow", is_flag=True, help="Name the operations whose results fp16 cannot hold.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    model: Path,
    inputs: tuple[str, ...],
    rest_random: bool,
    resize: bool,
    output: Path | None,
    engine: str,
    precision: Literal["fp32", "bf16"] | None,
    rounding: Literal["fp16"] | None,
    function: str | None,
    seed: int,
    other: Path | None,
    min_psnr: float,
    first_divergence: bool,
    threshold: float,
    overflow: bool,
    as_json: bool,
) -> None:
    """Execute MODEL, an .mlpackage, .mlmodelc or .mlmodel, and print what comes out.

    --compare pairs outputs by name, else by shape and type where only one of each model has these. It says
    so, and refuses what is left over.

    --first-divergence holds it against the model of --compare; without one, against its own exact execution
    by the reference engine.
    """
    from sd_mil import MLModel, compare_outputs

    from sdc.inputs import assemble
    from sdc.outputs import save

    def opened(path: Path) -> MLModel:
        return MLModel(path, engine, precision=precision, rounding=rounding, function_name=function)

    started = time.perf_counter()
    made = opened(model)
    values = assemble(made, inputs, rest_random=rest_random, resize=resize, seed=seed)
    loaded = time.perf_counter()
    results = made.predict(values, made.make_state() if made.states else None)
    facts = _facts(made, results, loaded - started, time.perf_counter() - loaded)
    comparison = None
    if other is not None:
        expected = _predicted(other, opened, values)
        comparison = compare_outputs(expected, results)
        facts["comparison"] = _comparison_facts(comparison, min_psnr)
    if first_divergence:
        facts["first_divergence"] = str(_divergence(made, other, opened, values, threshold))
    if overflow:
        facts["overflow"] = str(_overflow(made, values))
    if output is not None:
        facts["files"] = save(results, output)
    print_json(facts) if as_json else _print(facts)
    ctx.exit(0 if comparison is None or comparison.passed(min_psnr) else 1)


def _predicted(path: Path, opened: Callable[[Path], MLModel], values: Mapping[str, Any]) -> Mapping[str, Any]:
    from sd_mil import predictor

    return predictor(path if path.suffix == ".onnx" else opened(path))(values)


def _divergence(
    made: MLModel,
    other: Path | None,
    opened: Callable[[Path], MLModel],
    values: Mapping[str, Any],
    threshold: float,
) -> object:
    from sd_mil import MLModel, first_divergence
    from sd_mil.engines import Reference

    if other is not None:
        return first_divergence(opened(other), made, values, threshold_db=threshold)
    if made.engine == Reference():
        raise click.ClickException(
            "expected something to diverge from: --compare OTHER, --rounding fp16, or --engine portable"
        )
    exact = MLModel(made.package, "reference", function_name=made.function_name)
    return first_divergence(exact, made, values, threshold_db=threshold)


def _overflow(made: MLModel, values: Mapping[str, Any]) -> object:
    from sd_mil import overflow

    return overflow(made, values)


def _facts(made: MLModel, results: Mapping[str, Any], load: float, run: float) -> dict[str, Any]:
    from sdc.console import peak_memory

    return {
        "outputs": [_row(name, value) for name, value in results.items()],
        "load_seconds": load,
        "run_seconds": run,
        "peak_memory": peak_memory(),
        "arithmetic": made.arithmetic,
    }


def _row(name: str, value: Any) -> dict[str, Any]:
    import numpy as np

    if isinstance(value, dict):
        best = sorted(value.items(), key=lambda pair: -pair[1])[:5]
        top = {str(label): _stated(number) for label, number in best}
        return {"name": name, "dtype": "dictionary", "shape": [len(value)], "best": top}
    if isinstance(value, str | int | float):
        return {"name": name, "dtype": type(value).__name__, "shape": [], "value": _stated(value)}
    array = np.asarray(value)
    kind = "image" if not isinstance(value, np.ndarray) else array.dtype.name
    row = {"name": name, "dtype": kind, "shape": list(array.shape)}
    if not array.size:
        return row
    numbers = array.astype(np.float64)
    with np.errstate(all="ignore"):
        summary = {"min": numbers.min(), "max": numbers.max(), "mean": numbers.mean()}
    return row | {key: _stated(float(one)) for key, one in summary.items()}


def _stated(value: Any) -> Any:
    """JSON has no infinities, and no NaN."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _comparison_facts(comparison: Comparison, min_psnr: float) -> dict[str, Any]:
    """Outputs that are equal to the last bit have the ``psnr`` null (infinite)."""
    return {
        "min_psnr": min_psnr,
        "passed": comparison.passed(min_psnr),
        "rows": [
            {
                "output": row.output,
                "other": row.other,
                "paired_by": row.paired_by,
                "psnr": row.psnr if math.isfinite(row.psnr) else None,
                "max_error": row.max_error if math.isfinite(row.max_error) else None,
                "verdict": str(row),
            }
            for row in comparison.rows
        ],
    }


def _print(facts: dict[str, Any]) -> None:
    from sdc.console import console, size, table

    out = console()
    rows = table("output", "dtype", "shape", "min", "max", "mean")
    for row in facts["outputs"]:
        shape = " × ".join(map(str, row["shape"]))
        known = [row[key] for key in ("min", "max", "mean") if key in row]
        numbers = [f"{one:.4g}" if isinstance(one, float) else str(one) for one in known]
        rows.add_row(row["name"], row["dtype"], shape, *numbers)
    out.print(rows)
    for row in facts["outputs"]:
        if said := row.get("value", row.get("best")):
            out.print(f"{row['name']}: {said}", soft_wrap=True, markup=False)
    for part in ("overflow", "first_divergence"):
        if part in facts:
            out.print(facts[part], soft_wrap=True, markup=False)
    if "comparison" in facts:
        compared = facts["comparison"]
        for row in compared["rows"]:
            out.print(row["verdict"], soft_wrap=True, markup=False)
        verdict = "passed" if compared["passed"] else "FAILED"
        out.print(f"{verdict}: every output needs {compared['min_psnr']:g} dB or more", soft_wrap=True)
    out.print(
        f"loaded in {facts['load_seconds']:.2f} s, run in {facts['run_seconds']:.3f} s, "
        f"peak memory {size(facts['peak_memory'])}",
        soft_wrap=True,
    )
    out.print(f"arithmetic: {facts['arithmetic']}", soft_wrap=True, markup=False)
    if "files" in facts:
        out.print(f"saved {', '.join(facts['files'])}", soft_wrap=True, markup=False)

"""``sdc repair``: a model without what lint finds in it, as far as that is a matter of rewriting."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdc.json_output import finite, json_option, print_json
from sdc.linting import lint_options

if TYPE_CHECKING:
    from sd_mil.analysis.lint import Finding

    from sdc.repairing import Mended, Wanted


@click.command("repair", short_help="Rewrite a model so that devices and systems run it.")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Where to write it: an .mlpackage, or for a bundle a folder.",
)
@lint_options
@click.option("--only", "rules", multiple=True, metavar="RULE", help="Mend only this; repeatable.")
@click.option(
    "--min-psnr",
    type=float,
    default=60.0,
    show_default=True,
    help="In dB: nothing is written if an output is further from what it was.",
)
@click.option("--seed", default=0, show_default=True, help="Of the random inputs that it is proved on.")
@json_option
def command(
    *,
    model: Path,
    output: Path,
    device: str,
    system: int,
    rules: tuple[str, ...],
    min_psnr: float,
    seed: int,
    as_json: bool,
) -> None:
    """Mend MODEL, a bundle, or an .mlpackage, .mlmodelc or .mlmodel, and prove that its outputs are the same.

    \b
    sdc repair TextEncoder.mlmodelc --target mac -o TextEncoder.mlpackage
    sdc repair bundle --target iphone --os 26 -o mended

    What `sdc lint` finds is rewritten where it can be: attention of rank 3 to rank 4, attention by batch and
    by queries, iOS18's tables of weights to iOS16's, needless casts. Both models then run on the portable
    engine on the same random inputs. What is left is listed with the reason. Of a pipeline each model is
    rewritten, and the whole is proved.
    """
    from sdc.linting import bundle_at
    from sdc.repairing import Wanted, repair_bundle

    _check_rules(rules)
    began = time.perf_counter()
    if os.path.lexists(output):
        raise click.ClickException(f"expected a new path, got {output}, which exists; choose another")
    wanted = Wanted(device, system, rules, min_psnr, seed)
    bundle = bundle_at(model)
    results = [_package(model, output, wanted)] if bundle is None else repair_bundle(bundle, output, wanted)
    seconds = time.perf_counter() - began
    if as_json:
        print_json(_facts(results, output, seconds))
    else:
        _print(results, output, seconds)


def _check_rules(rules: tuple[str, ...]) -> None:
    from sd_mil.analysis.lint import REPAIRS

    for rule in rules:
        if rule not in REPAIRS:
            raise click.BadParameter(
                f"expected one of {', '.join(REPAIRS)}, got {rule!r}", param_hint="--only"
            )


def _package(model: Path, output: Path, wanted: Wanted) -> Mended:
    """Written beside its place, and renamed once it is proved."""
    from sd_bundle.drafts import draft_folder, remove_abandoned

    from sdc.linting import models_in
    from sdc.repairing import repair_package

    if several := models_in(model):
        names = ", ".join(str(one.relative_to(model)) for one in several)
        raise click.ClickException(
            f"expected a model or a bundle, got a folder of models; repair each of them by itself: {names}"
        )
    if output.suffix != ".mlpackage":
        raise click.ClickException(f"expected an output that ends in .mlpackage, got {output.name!r}")
    place = output.resolve()
    remove_abandoned(place)
    with draft_folder(place) as draft:
        result = repair_package(model, draft / place.name, wanted)
        if result.proofs:
            (draft / place.name).rename(place)
    return result


def _facts(results: list[Mended], output: Path, seconds: float) -> dict[str, Any]:
    """For ``--json``; nothing was written where ``output`` is null."""
    from sdc.console import peak_memory
    from sdc.linting import finding_facts

    is_written = any(result.proofs for result in results)
    return {
        "output": str(output) if is_written else None,
        "bytes": _bytes(output) if is_written else 0,
        "seconds": seconds,
        "peak_memory": peak_memory(),
        "packages": [
            {
                "package": result.name,
                "mended": [finding_facts(finding) for finding in result.mended],
                "left": [finding_facts(finding) | {"why": why} for finding, why in result.left],
                "functions": [
                    {
                        "function": function or None,
                        "psnr": finite(proof.worst.psnr),
                        "max_error": proof.worst.max_error,
                    }
                    for function, proof in result.proofs.items()
                ],
            }
            for result in results
        ],
    }


def _print(results: list[Mended], output: Path, seconds: float) -> None:
    from sdc.console import console, decibels, peak_memory, size, table
    from sdc.linting import print_findings

    out = console()
    rows = table("package", "function", "mended", "left", "dB", "largest error")
    for result in results:
        for function, proof in result.proofs.items():
            count = [
                sum(function in ("", one.function) for one in some) for some in (result.mended, result.before)
            ]
            worst = proof.worst
            rows.add_row(
                result.name,
                function,
                f"{count[0]} of {count[1]}",
                str(sum(function in ("", one.function) for one, _ in result.left)),
                decibels(worst.psnr),
                f"{worst.max_error:.3g}",
            )
    if any(result.proofs for result in results):
        out.print(rows)
    for result in results:
        for finding in result.mended:
            out.print(
                f"mended in {_place(result, finding)}: {finding.rule.id}: {finding.said}", soft_wrap=True
            )
    for result in results:
        for finding, why in result.left:
            print_findings((finding,))
            out.print(f"  left as it is: {why}", soft_wrap=True)
    end = f"{seconds:.1f} s, peak memory {size(peak_memory())}"
    if not any(result.proofs for result in results):
        out.print(f"nothing to mend was found; nothing was written: {end}", soft_wrap=True)
        return
    out.print(f"wrote {output}: {size(_bytes(output))}, {end}", soft_wrap=True)


def _place(result: Mended, finding: Finding) -> str:
    """The package, and in a pipeline the model in it."""
    inner = Path(finding.model).name
    return result.name if inner == result.name else f"{result.name}, {inner}"


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

"""``sdc compress``: the weights of a bundle or a package in fewer bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from sdc.activation_options import activation_facts, print_activations
from sdc.calibration_options import Prepared, Wanted, Work, calibration_options
from sdc.json_output import finite, json_option, print_json
from sdc.schemes import is_given, scheme_asked, scheme_options, schemes_by_pattern

if TYPE_CHECKING:
    from sd_bundle import Bundle
    from sd_compress import BundleReport, PackageReport, Plan, Recipe, Selection
    from sd_mil import Program

    from sdc.calibrating import Calibration

#: The measure, ``psnr`` or ``snr``, and how far the outputs of a package are from those of another by it: dB,
#: or None where there is no engine.
Meter: TypeAlias = tuple[str, Callable[[Path, Path], float | None]]
_HEADINGS = {"psnr": "PSNR, dB", "snr": "SNR, dB"}
_EXISTING = click.Path(exists=True, path_type=Path)


@click.command("compress", short_help="Compress the weights of a bundle or a package.")
@click.argument("model", type=_EXISTING)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where to write it.")
@scheme_options
@calibration_options
@click.option("--recipe", type=_EXISTING, help="A recipe, or a recipe file of Apple's mixed-bit analysis.")
@click.option("--recipe-name", metavar="NAME", help="Which of the recipes in Apple's file.")
@click.option(
    "--components", metavar="A,B", help="Of a bundle; by default all but the VAE and the safety checker."
)
@click.option("--select", multiple=True, metavar="PATTERN", help="Only weights of such names; repeatable.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No weights of such names; repeatable.")
@click.option(
    "--op-types", metavar="A,B", help="Only weights that these take; by default conv, linear and matmul."
)
@click.option(
    "--min-elements", type=click.IntRange(min=0), help="Smaller weights stay as they are; by default 2048."
)
@click.option(
    "--weight",
    "overrides",
    multiple=True,
    metavar="PATTERN=SCHEME",
    help="Another scheme for some: bits of a palette, 'keep', or JSON as in a recipe; repeatable.",
)
@click.option("--target", help="The oldest system to run on, if a newer one than now is needed: iOS18.")
@click.option(
    "--measure/--no-measure", default=True, show_default=True, help="Run both on random inputs, for the dB."
)
@click.option("--seed", default=0, show_default=True, help="Of those inputs.")
@click.option("--overwrite", is_flag=True, help="Replace what is there, once the new one is complete.")
@json_option
def command(
    *,
    model: Path,
    output: Path,
    recipe: Path | None,
    recipe_name: str | None,
    components: str | None,
    select: tuple[str, ...],
    exclude: tuple[str, ...],
    op_types: str | None,
    min_elements: int | None,
    overrides: tuple[str, ...],
    target: str | None,
    measure: bool,
    seed: int,
    overwrite: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Compress the weights of MODEL, a bundle, or an .mlpackage, .mlmodelc or .mlmodel.

    \b
    sdc compress bundle -o small --nbits 6
    sdc compress unet.mlpackage -o small.mlpackage --nbits 4 --group-size 16 --target iOS18
    sdc compress bundle -o small --target-size 600MB --calibrate prompts.txt
    sdc compress bundle -o small --method linear --activations --calibrate prompts.txt --target iOS17
    """
    from sd_bundle import open_bundle
    from sd_compress import check_patterns, chosen_components, compress_bundle, compress_package
    from sd_mil import read_package

    from sdc.console import peak_memory

    selection = {"select": select, "exclude": exclude, "op_types": op_types, "min_elements": min_elements}
    is_bundle = (model / "manifest.json").is_file()
    wanted = Wanted.taken_from(asked, is_bundle=is_bundle)
    chosen = _chosen(wanted, recipe, recipe_name, selection, overrides, asked)
    if components is not None and not is_bundle:
        raise click.UsageError("--components: not an option for a package")
    bundle = open_bundle(model) if is_bundle else None
    names = None if bundle is None else _names(bundle, components, recipe, chosen)
    parts = () if bundle is None else chosen_components(bundle, names)
    packages = [model / one for part in parts for one in part.packages] if bundle else [model]
    patterns = (*schemes_by_pattern(overrides), *select, *exclude, *wanted.fitting.without)
    check_patterns(patterns, [read_package(path).program for path in packages] if patterns else [])
    began = time.perf_counter()
    with ExitStack() as stack:
        show = stack.enter_context(_bar())
        work = Work(
            model,
            packages,
            bundle,
            tuple(part.name for part in parts),
            chosen,
            _selection(selection),
            target,
            output,
            show,
        )
        prepared = stack.enter_context(wanted.prepared(work))
        given: dict[str, Any] = {"target": target, "overwrite": overwrite, "progress": _in_millions(show)}
        given |= {"assign": prepared.assign}
        if prepared.calibration is not None:
            given |= {"inputs": prepared.calibration.inputs}
        report: BundleReport | PackageReport = (
            compress_package(model, output, prepared.recipe, **given)
            if bundle is None
            else compress_bundle(model, output, prepared.recipe, components=names, **given)
        )
        seconds, peak = time.perf_counter() - began, peak_memory()
        facts = _facts(model, output, report, _meter(prepared, seed) if measure else None)
    facts |= {"output": str(output), "seconds": seconds, "peak_memory": peak}
    if as_json:
        print_json(facts | _calibration_facts(prepared))
        return
    print_compression(facts)
    for plan in prepared.plans:
        print_plan(plan)
    if prepared.fitted is not None:
        print_activations(prepared.fitted)


def _chosen(
    wanted: Wanted,
    recipe: Path | None,
    recipe_name: str | None,
    selection: dict[str, Any],
    overrides: tuple[str, ...],
    asked: dict[str, Any],
) -> Recipe | Callable[[Program], Recipe]:
    """What is done to which weights, as far as no plan is to say so; what does not go together is refused."""
    from sd_compress import Recipe

    chosen: Recipe | Callable[[Program], Recipe] = Recipe({})
    if wanted.budget is None:
        chosen = _recipe(recipe, recipe_name, selection, overrides, asked)
    else:
        _refuse_beside_budget({**asked, "recipe": recipe, "recipe_name": recipe_name, "weight": overrides})
    if wanted.calibrate is not None:
        _refuse_without_palettes(asked)
    return chosen


def _names(
    bundle: Bundle, components: str | None, recipe: Path | None, chosen: Recipe | Callable[[Program], Recipe]
) -> list[str] | None:
    """The components asked for; None for those that are compressed by default."""
    from sd_compress import Recipe

    if components:
        return components.split(",")
    is_of_apple = recipe is not None and not isinstance(chosen, Recipe)
    return [one.name for one in bundle.components("denoiser")] if is_of_apple else None


def _recipe(
    recipe: Path | None,
    recipe_name: str | None,
    selection: dict[str, Any],
    overrides: tuple[str, ...],
    asked: dict[str, Any],
) -> Recipe | Callable[[Program], Recipe]:
    """What a file says, or one scheme for all selected weights; with what is said of single ones."""
    from sd_compress import Recipe, read_any_recipe, with_schemes

    if recipe is None:
        if recipe_name is not None:
            raise click.UsageError("--recipe-name: it needs --recipe")
        return _uniform(selection, overrides, asked)
    given = [name for name, value in {**asked, **selection}.items() if is_given(value)]
    if given:
        raise click.UsageError(f"--{given[0].replace('_', '-')}: not an option beside --recipe")
    found, changed = read_any_recipe(recipe, recipe_name), schemes_by_pattern(overrides)
    if isinstance(found, Recipe):
        return with_schemes(found, changed)
    return lambda program: with_schemes(found(program), changed)


def _uniform(
    selection: dict[str, Any], overrides: tuple[str, ...], asked: dict[str, Any]
) -> Callable[[Program], Recipe]:
    from sd_compress import uniform_recipe, with_schemes

    scheme, changed, selected = scheme_asked(asked), schemes_by_pattern(overrides), _selection(selection)
    return lambda program: with_schemes(uniform_recipe(program, scheme, selected), changed)


def _selection(selection: dict[str, Any]) -> Selection:
    from sd_compress import Selection

    default, kinds, fewest = Selection(), selection["op_types"], selection["min_elements"]
    return Selection(
        names=selection["select"] or default.names,
        without=selection["exclude"],
        kinds=tuple(kinds.split(",")) if kinds else default.kinds,
        fewest_elements=default.fewest_elements if fewest is None else fewest,
    )


def _refuse_beside_budget(asked: dict[str, Any]) -> None:
    """A plan chooses a table for each weight; nothing else may say how weights are stored."""
    if given := [name for name, value in asked.items() if is_given(value)]:
        raise click.UsageError(f"--{given[0].replace('_', '-')}: not an option beside a budget")


def _refuse_without_palettes(asked: dict[str, Any]) -> None:
    others = {"dtype", "mode", "granularity", "block_size", "sparsity", "n_m"}
    if asked["activations"] is not None:
        return
    if asked["method"] not in (None, "palettize") or any(asked[name] is not None for name in others):
        raise click.UsageError(
            "--calibrate: it finds palettes and ranges of --activations; there are neither here"
        )


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar that shows what is done now, and how many of how many steps of it."""
    from sdc.console import progress

    with progress() as bar:
        task = bar.add_task("reading", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=max(1, total))

        yield show


def _in_millions(show: Callable[[str, int, int], None]) -> Callable[[str, int, int, str], None]:
    return lambda package, done, total, _: show(package, done // 10**6, total // 10**6)


def print_plan(plan: Plan) -> None:
    """What was planned, and by how much another recipe could be better at most."""
    from sdc.console import console

    console().print(
        f"planned {len(plan.schemes)} weights: {plan.bits_per_weight:.2f} bits each, "
        f"within {plan.gap:.2%} of the best recipe",
        soft_wrap=True,
    )


def _facts(
    model: Path, output: Path, report: BundleReport | PackageReport, meter: Meter | None
) -> dict[str, Any]:
    """What became of each package; a measure of null is infinite, and is left out where nothing measured."""
    from sd_compress import BundleReport

    packages = (
        [(report.name, model, output, report)]
        if not isinstance(report, BundleReport)
        else [
            (name, model / one.name, output / one.name, one)
            for name, several in report.components.items()
            for one in several
        ]
    )
    rows = [
        {
            "component": name,
            "package": one.name,
            "bits_before": one.before.total.bits_per_weight,
            "bits_after": one.bits_per_weight,
            "bytes_before": one.bytes_before,
            "bytes_after": one.bytes_after,
            "seconds": one.seconds,
            "kept": {weight.name: weight.kept for weight in one.weights if weight.kept},
            **({} if meter is None else _measured(meter, before, after)),
        }
        for name, before, after, one in packages
    ]
    return {"measure": None if meter is None else meter[0], "packages": rows}


def _measured(meter: Meter, before: Path, after: Path) -> dict[str, float | None]:
    measure, measured = meter
    found = measured(before, after)
    return {} if found is None else {measure: finite(found)}


def _calibration_facts(prepared: Prepared) -> dict[str, Any]:
    """What was planned and which activations were quantized, where that was asked."""
    plans = [
        {"weights": len(plan.schemes), "bits_per_weight": plan.bits_per_weight, "gap": plan.gap}
        for plan in prepared.plans
    ]
    return {
        "plans": plans,
        "activations": None if prepared.fitted is None else activation_facts(prepared.fitted),
    }


def print_compression(facts: dict[str, Any]) -> None:
    """A row for each package, what was left as it is, and what it took."""
    from sdc.console import console, decibels, size, table

    measure = facts["measure"]
    rows = table("component", "bits", "before", "after", _HEADINGS.get(measure, "dB"), "s")
    for one in facts["packages"]:
        unmeasured = "" if measure is None else "no engine"
        rows.add_row(
            one["component"],
            f"{one['bits_before']:.2f} to {one['bits_after']:.2f}",
            size(one["bytes_before"]),
            size(one["bytes_after"]),
            decibels(one[measure]) if measure in one else unmeasured,
            f"{one['seconds']:.1f}",
        )
    out = console()
    out.print(rows)
    for one in facts["packages"]:
        for name, why in one["kept"].items():
            out.print(f"kept as it is: {name}: {why}")
    out.print(f"{facts['output']}: {facts['seconds']:.1f} s, peak memory {size(facts['peak_memory'])}")


def _meter(prepared: Prepared, seed: int) -> Meter:
    """Signal to noise of pictures that calibration had not, else peak signal to noise of random inputs."""
    if prepared.calibration is None:
        return "psnr", partial(_on_random_inputs, seed=seed)
    return "snr", partial(_on_other_pictures, prepared.calibration)


def _on_other_pictures(calibration: Calibration, before: Path, after: Path) -> float:
    from sd_mil import read_package

    programs = (read_package(path).program for path in (before, after))
    return calibration.signal_to_noise(before.name, *programs)


def _on_random_inputs(before: Path, after: Path, seed: int) -> float | None:
    """The output that is worst."""
    from sd_mil import MissingEngineError, MLModel, compare_outputs

    from sdc.inputs import assemble

    try:
        made = MLModel(before, "portable")
        values = assemble(made, (), rest_random=True, resize=False, seed=seed)
        expected = made.predict(values, made.make_state() if made.states else None)
        del made
        other = MLModel(after, "portable")
        got = other.predict(values, other.make_state() if other.states else None)
    except MissingEngineError:
        return None
    return compare_outputs(expected, got).worst.psnr

"""``sdc compress``: the weights of a bundle or a package in fewer bits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdc.schemes import scheme_asked, scheme_options, schemes_by_pattern

if TYPE_CHECKING:
    from sd_compress import BundleReport, PackageReport, Recipe
    from sd_mil import Program

_EXISTING = click.Path(exists=True, path_type=Path)


@click.command("compress", short_help="Compress the weights of a bundle or a package.")
@click.argument("model", type=_EXISTING)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Where to write it.")
@scheme_options
@click.option("--recipe", type=_EXISTING, help="A recipe, or a recipe file of Apple's mixed-bit analysis.")
@click.option("--recipe-name", metavar="NAME", help="Which of the recipes in Apple's file.")
@click.option("--components", metavar="A,B", help="Of a bundle; by default the UNet and the text encoders.")
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
    **asked: Any,
) -> None:
    """Compress the weights of MODEL, a bundle, or an .mlpackage, .mlmodelc or .mlmodel.

    \b
    sdc compress bundle -o small --nbits 6
    sdc compress unet.mlpackage -o small.mlpackage --nbits 4 --group-size 16 --target iOS18
    """
    from sd_bundle import open_bundle
    from sd_compress import Recipe, check_patterns, chosen_components, compress_bundle, compress_package
    from sd_mil import read_package

    selection = {"select": select, "exclude": exclude, "op_types": op_types, "min_elements": min_elements}
    chosen = _recipe(recipe, recipe_name, selection, overrides, asked)
    is_bundle = (model / "manifest.json").is_file()
    if components is not None and not is_bundle:
        raise click.UsageError("--components: not an option for a package")
    names, packages = components.split(",") if components else None, [model]
    if is_bundle:
        bundle = open_bundle(model)
        if names is None and recipe is not None and not isinstance(chosen, Recipe):  # Apple's, of a UNet
            names = [component.name for component in bundle.components("denoiser")]
        packages = [model / one for part in chosen_components(bundle, names) for one in part.packages]
    patterns = (*schemes_by_pattern(overrides), *select, *exclude)
    check_patterns(patterns, [read_package(path).program for path in packages] if patterns else [])
    given: dict[str, Any] = {"target": target, "overwrite": overwrite}
    began = time.perf_counter()
    with _bar() as tell:
        if is_bundle:
            report: BundleReport | PackageReport = compress_bundle(
                model, output, chosen, components=names, progress=tell, **given
            )
        else:
            report = compress_package(model, output, chosen, progress=tell, **given)
    print_compression(model, output, report, time.perf_counter() - began, seed if measure else None)


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
    given = [name for name, value in {**asked, **selection}.items() if value not in (None, False, ())]
    if given:
        raise click.UsageError(f"--{given[0].replace('_', '-')}: not an option beside --recipe")
    found, changed = read_any_recipe(recipe, recipe_name), schemes_by_pattern(overrides)
    if isinstance(found, Recipe):
        return with_schemes(found, changed)
    return lambda program: with_schemes(found(program), changed)


def _uniform(
    selection: dict[str, Any], overrides: tuple[str, ...], asked: dict[str, Any]
) -> Callable[[Program], Recipe]:
    from sd_compress import Selection, uniform_recipe, with_schemes

    scheme, changed, default = scheme_asked(asked), schemes_by_pattern(overrides), Selection()
    kinds, fewest = selection["op_types"], selection["min_elements"]
    selected = Selection(
        names=selection["select"] or default.names,
        without=selection["exclude"],
        kinds=tuple(kinds.split(",")) if kinds else default.kinds,
        fewest_elements=default.fewest_elements if fewest is None else fewest,
    )
    return lambda program: with_schemes(uniform_recipe(program, scheme, selected), changed)


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int, str], None]]:
    from sdc.console import progress

    with progress() as bar:
        task = bar.add_task("reading", total=None)

        def tell(package: str, done: int, total: int, _: str) -> None:
            million = 10**6
            bar.update(task, description=package, completed=done // million, total=max(1, total // million))

        yield tell


def print_compression(
    model: Path, output: Path, report: BundleReport | PackageReport, seconds: float, seed: int | None
) -> None:
    """A row for each package, what was left as it is, and what it took."""
    from sd_compress import BundleReport

    from sdc.console import console, peak_memory, size, table

    peak = peak_memory()
    rows = table("component", "bits", "before", "after", "dB", "s")
    packages = (
        [(report.name, model, output, report)]
        if not isinstance(report, BundleReport)
        else [
            (name, model / one.name, output / one.name, one)
            for name, several in report.components.items()
            for one in several
        ]
    )
    for name, before, after, one in packages:
        rows.add_row(
            name,
            f"{one.before.total.bits_per_weight:.2f} to {one.bits_per_weight:.2f}",
            size(one.bytes_before),
            size(one.bytes_after),
            "" if seed is None else _decibels(before, after, seed),
            f"{one.seconds:.1f}",
        )
    out = console()
    out.print(rows)
    for *_, one in packages:
        for weight in one.weights:
            if weight.kept:
                out.print(f"kept as it is: {weight.name}: {weight.kept}")
    out.print(f"{output}: {seconds:.1f} s, peak memory {size(peak)}")


def _decibels(before: Path, after: Path, seed: int) -> str:
    """How far the outputs are from those of the original, on random inputs: the worst of them."""
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
        return "no engine"
    worst = compare_outputs(expected, got).worst.psnr
    return "equal" if math.isinf(worst) and worst > 0 else f"{worst:.1f}"

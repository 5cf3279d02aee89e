"""``sdc analyze``: what compression costs, as a table, as JSON, and as a page."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from sdc.console import printable
from sdc.engines import engine_options
from sdc.json_output import json_option

if TYPE_CHECKING:
    from sd_compress.report import Candidate, Part, Report
    from sd_mil import Program
    from sd_mil.engines import Engine

    from sdc.analysis.calibrating import Calibration
    from sdc.analysis.settings import Setting, Uniform
    from sdc.analysis.subjects import BundleSubject, Drawing, Subject, Watch

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
#: What every Stable Diffusion draws, the demo model too.
_PROMPTS = (
    "a red circle on a blue background",
    "a yellow star on a black background",
    "a green square on a white background",
)
_WIDTHS = (8, 6, 4, 3, 2)
_STEPS = 20
_MOST_PROMPTS = 64


def _widths(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    from sd_compress import PALETTE_BITS

    if value is None:
        return None
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not all(re.fullmatch(r"\d{1,2}", part) and int(part) in PALETTE_BITS for part in parts):
        raise click.BadParameter(f"expected widths of {', '.join(map(str, PALETTE_BITS))}, got {value!r}")
    return tuple(map(int, parts))


def _list(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def _finite(_: click.Context, __: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"expected a number of dB, got {value!r}")
    return value


@click.command("analyze", short_help="Show what fewer bits cost: sizes, dB, pictures, layers.")
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write a page (HTML), for people."
)
@json_option
@click.option(
    "--bits",
    callback=_widths,
    help="Widths to try; by default those of 8,6,4,3,2 that the target can decode.",
)
@click.option("--recipe", "recipes", type=_FILE, multiple=True, help="A recipe to try; repeatable.")
@click.option(
    "--components", callback=_list, help="What to compress, by default unet,text_encoder (those there are)."
)
@click.option("--prompts", type=_FILE, help="What to draw, a line each; by default three simple pictures.")
@click.option(
    "--calibrate",
    type=_FILE,
    help="Prompts to calibrate with, a line each, others than those drawn: adds calibrated palettes, "
    "recipes of mixed bits as large as each width and for --min-snr, and the sensitivity of each layer.",
)
@click.option(
    "--export-recipe",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the recipe of the candidate that is chosen, for compress --recipe.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1 - _MOST_PROMPTS),
    default=93,
    show_default=True,
    help="Of the first picture; the next take seed + 1, ... Of a package's inputs.",
)
@click.option("--num-inference-steps", type=click.IntRange(1, 1000), help="For each picture; by default 20.")
@click.option(
    "--min-snr",
    default=20.0,
    show_default=True,
    callback=_finite,
    help="In dB: the smallest that keeps them is chosen.",
)
@engine_options("portable")
def command(
    bundle: Path,
    *,
    report: Path | None,
    as_json: bool,
    bits: tuple[int, ...] | None,
    recipes: tuple[Path, ...],
    components: tuple[str, ...] | None,
    prompts: Path | None,
    calibrate: Path | None,
    export_recipe: Path | None,
    seed: int,
    num_inference_steps: int | None,
    min_snr: float,
    engine: str,
    precision: Literal["fp32", "bf16"] | None,
) -> None:
    """Compress BUNDLE, or a single .mlpackage, at several widths; measure it, draw the same pictures.

    The signal to noise is that of outputs, on inputs that were recorded while the original drew the prompts.
    Nothing is kept but the report.
    """
    from sd_runtime import resolve_engine

    from sdc.analysis.analysis import analyze
    from sdc.analysis.subjects import Drawing, PackageSubject
    from sdc.console import progress

    _check_output(report, "--report")
    _check_output(export_recipe, "--export-recipe")
    resolved = resolve_engine(engine, precision)
    subject: BundleSubject | PackageSubject
    if bundle.suffix == ".mlpackage":
        _refuse_for_packages(
            components=components,
            prompts=prompts,
            calibrate=calibrate,
            num_inference_steps=num_inference_steps,
        )
        subject = PackageSubject(bundle, resolved, seed)
    else:
        drawing = Drawing(_prompts_of(prompts), seed, num_inference_steps or _STEPS)
        subject = _bundle(bundle, components, drawing, resolved)
    programs = _programs(subject)
    uniform, named = _settings(bits, recipes, programs)
    others = _others(calibrate, subject)
    with progress() as bar, tempfile.TemporaryDirectory(prefix="sdc-analyze-") as folder:
        task = bar.add_task("original", total=None)

        def watch(words: str) -> None:
            bar.update(task, description=words)

        calibration = _calibration(subject, others, uniform, watch, Path(folder))
        settings = (*uniform, *_calibrated(calibration, uniform), *named)
        bar.update(task, total=1 + len(settings))
        tracked = bar.track(settings, task_id=task)
        analysis = analyze(subject, tracked, wanted_snr=min_snr, watch=watch, calibration=calibration)
        found = analysis.report
    if report is not None:
        _write(found, report)
    if export_recipe is not None:
        _export(found, analysis.settings, programs, export_recipe)
    _print_json(found) if as_json else _print(found, report)


def _check_output(path: Path | None, option: str) -> None:
    """Before minutes of work are lost on it."""
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"expected an existing folder, got {path.parent}", param_hint=option)


def _prompts_of(path: Path | None) -> tuple[str, ...]:
    from sdc.recording import read_prompts

    if path is None:
        return _PROMPTS
    prompts = tuple(dict.fromkeys(read_prompts(path)))
    if len(prompts) > _MOST_PROMPTS:
        raise click.ClickException(f"{path}: expected at most {_MOST_PROMPTS} prompts, got {len(prompts)}")
    return prompts


def _refuse_for_packages(**options: object) -> None:
    for name, value in options.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise click.BadParameter("expected a bundle, which draws, got a package", param_hint=option)


def _bundle(
    path: Path, components: tuple[str, ...] | None, drawing: Drawing, engine: Engine
) -> BundleSubject:
    from sd_bundle import open_bundle
    from sd_compress import chosen_components

    from sdc.analysis.subjects import BundleSubject

    bundle = open_bundle(path).at_size()
    chosen = sorted(chosen_components(bundle, components), key=lambda one: one.role != "denoiser")
    return BundleSubject(bundle, tuple(component.name for component in chosen), drawing, engine)


def _settings(
    bits: tuple[int, ...] | None, recipes: tuple[Path, ...], programs: list[Program]
) -> tuple[tuple[Uniform, ...], tuple[Setting, ...]]:
    """Widths and recipes as asked for, or an error; by default what can be done."""
    from sdc.analysis.settings import check, from_recipes, widths

    uniform = widths(_WIDTHS if bits is None else bits)
    named = from_recipes(recipes, programs, [setting.name for setting in uniform])
    if bits is None:
        uniform = tuple(setting for setting in uniform if _can_be_decoded(setting, programs))
    settings: tuple[Setting, ...] = (*uniform, *named)
    for setting in settings:
        check(setting, programs)
    if not any(setting.recipe(program).schemes for setting in settings for program in programs):
        raise click.ClickException(
            "expected weights to compress, got none: no width and no recipe was given, or all weights are "
            "small or compressed already"
        )
    return uniform, named


def _others(path: Path | None, subject: Subject) -> tuple[str, ...]:
    """The prompts to calibrate with; that nothing is measured on what was learnt from is seen to."""
    if path is None or subject.drawing is None:
        return ()
    others = _prompts_of(path)
    if both := sorted(set(others) & set(subject.drawing.prompts)):
        raise click.ClickException(
            f"{path}: expected other prompts than those that are drawn to measure, got {both[0]!r} in both"
        )
    return others


def _calibration(
    subject: Subject, prompts: tuple[str, ...], uniform: tuple[Uniform, ...], watch: Watch, folder: Path
) -> Calibration | None:
    from sdc.analysis.calibrating import calibrate
    from sdc.analysis.subjects import BundleSubject

    if not prompts or not isinstance(subject, BundleSubject):
        return None
    return calibrate(subject, prompts, uniform, lambda words: watch(f"calibrating: {words}"), folder)


def _calibrated(calibration: Calibration | None, uniform: tuple[Uniform, ...]) -> Iterator[Setting]:
    """Every width again, and mixed bits in the same bytes."""
    if calibration is not None:
        yield from map(calibration.uniform, uniform)
        yield from calibration.curve(uniform)


def _can_be_decoded(setting: Setting, programs: list[Program]) -> bool:
    from sd_compress import UnsupportedFormError

    from sdc.analysis.settings import check

    try:
        check(setting, programs)
    except UnsupportedFormError as error:
        click.echo(printable(f"sdc: note: {setting.name} left out: {error}"), err=True)
        return False
    return True


def _programs(subject: Subject) -> list[Program]:
    """Every program that recipes may be about."""
    from sd_mil import read_package

    folders = (folder for component in subject.components for folder in subject.folders(component))
    return [read_package(folder).program for folder in folders]


def _export(found: Report, settings: Sequence[Setting], programs: list[Program], path: Path) -> None:
    """The recipe that was chosen, of all components; an error if none was."""
    from sd_compress import Recipe, format_recipe

    setting = next((one for one in settings if one.name == found.chosen), None)
    if setting is None:
        raise click.ClickException(
            f"--export-recipe: expected a candidate that keeps {found.wanted_snr:g} dB, got none: ask for "
            "less with --min-snr, or for more bits"
        )
    schemes = {name: one for program in programs for name, one in setting.recipe(program).schemes.items()}
    _put(format_recipe(Recipe(schemes)), path, "recipe")


def _write(found: Report, path: Path) -> None:
    """The page."""
    from sd_compress.report import render_page

    _put(render_page(found), path, "page")


def _put(text: str, path: Path, what: str) -> None:
    """A file, whole or not at all."""
    from sd_bundle.drafts import replacing

    try:
        with replacing(path) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(
            f"expected to write the {what} to {str(path)!r}, got: {error}; what was there before is as it was"
        ) from error


def _print_json(found: Report) -> None:
    from sd_compress.report import report_json

    from sdc.console import printable_json

    bare = tuple(replace(candidate, pictures=()) for candidate in found.candidates)
    click.echo(printable_json(report_json(replace(found, candidates=bare))), nl=False)


def _print(found: Report, page: Path | None) -> None:
    from sdc.console import console, size, table

    out = console()
    rows = table("candidate", "component", "bits", "size", "dB")
    for candidate in found.candidates:
        for part in candidate.parts:
            first = part is candidate.parts[0]
            rows.add_row(_label(candidate, found) if first else "", *_numbers(part, candidate))
    out.print(rows)
    for candidate in found.candidates:
        if "planned" in candidate.method:
            out.print(f"{candidate.name}: {candidate.method}", soft_wrap=True)
    out.print(_verdict(found), soft_wrap=True)
    samples = ", ".join(f"{count} inputs of {component}" for component, count in found.samples.items())
    out.print(f"signal to noise of the worst output over {samples}", soft_wrap=True)
    wrote = "" if page is None else f"wrote {page} ({size(page.stat().st_size)}); "
    out.print(f"{wrote}{found.seconds:.1f} s, peak memory {size(found.peak_memory)}", soft_wrap=True)
    out.print(f"arithmetic: {found.environment.arithmetic}", soft_wrap=True)


def _label(candidate: Candidate, found: Report) -> str:
    return candidate.name + (" (chosen)" if candidate.name == found.chosen else "")


def _numbers(part: Part, candidate: Candidate) -> tuple[str, ...]:
    from sdc.console import decibels, size

    compared = "–" if candidate.kind == "original" else decibels(part.snr)
    return part.component, f"{part.bits_per_weight:.2f}", size(part.stored_bytes), compared


def _verdict(found: Report) -> str:
    from sdc.console import size

    if found.choice is None:
        return f"no candidate keeps {found.wanted_snr:g} dB"
    share = found.choice.stored_bytes / max(found.original.stored_bytes, 1)
    return (
        f"{found.choice.name} is the smallest that keeps {found.wanted_snr:g} dB: "
        f"{size(found.choice.stored_bytes)}, {share:.0%} of the original"
    )

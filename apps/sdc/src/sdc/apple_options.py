"""What Apple's Python pipeline and Swift sample call options, where that takes more than a name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sdc.sampling_options import options

if TYPE_CHECKING:
    from sd_bundle import ComputeUnit
    from sd_mil.engines import Engine
    from sd_runtime import Pipeline, Precision

#: Python's names of compute units by Swift's.
_SWIFT_UNITS: Final[Mapping[str, ComputeUnit]] = {
    "all": "ALL",
    "cpuonly": "CPU_ONLY",
    "cpuandgpu": "CPU_AND_GPU",
    "cpuandneuralengine": "CPU_AND_NE",
}
_UNITS: Final[tuple[ComputeUnit, ...]] = ("ALL", "CPU_AND_GPU", "CPU_ONLY", "CPU_AND_NE")
#: Those that are here, too, where there is no Core ML: all that there is, and the processor.
_ANYWHERE: Final = ("ALL", "CPU_ONLY")


def compute_unit_of(_: click.Context, __: click.Parameter, value: str | None) -> ComputeUnit | None:
    """A compute unit in either spelling: ``CPU_AND_NE`` or ``cpuAndNeuralEngine``."""
    if value is None:
        return None
    unit = _SWIFT_UNITS.get(value.lower(), value.upper())
    for known in _UNITS:
        if known == unit:
            return known
    swift = "all, cpuOnly, cpuAndGPU, cpuAndNeuralEngine"
    raise click.BadParameter(f"expected {', '.join(_UNITS)} (or {swift}), got {value!r}")


compute_unit_option = click.option(
    "--compute-unit",
    "--compute-units",
    metavar=f"[{'|'.join(_UNITS)}]",
    callback=compute_unit_of,
    help="Where Core ML runs it, in Apple's spellings; by default what each component was converted for.",
)

apple_options = options(
    compute_unit_option,
    click.option("--model-version", metavar="ID", help="Refuse a bundle of another model than this."),
    click.option(
        "--model-sources",
        type=click.Choice(["packages", "compiled"]),
        help="Refuse a bundle of the other kind of models.",
    ),
    click.option("--unet-batch-one", is_flag=True, help="Refuse a bundle whose UNet takes prompts together."),
    click.option(
        "--reduce-memory/--no-reduce-memory",
        default=True,
        show_default=True,
        help="Keep no network beside the denoiser.",
    ),
)


def engine_on(engine: str, precision: Precision | None, compute_unit: ComputeUnit | None) -> Engine:
    """The engine of that name, which runs on ``compute_unit``.

    Raises:
        click.UsageError: a compute unit that the engine does not have.
        sd_runtime.EngineError: the engine cannot run here.
    """
    from dataclasses import replace

    from sd_mil.engines import CoreML
    from sd_runtime import resolve_engine

    resolved = resolve_engine(engine, precision)
    if isinstance(resolved, CoreML):
        return resolved if compute_unit is None else replace(resolved, compute_unit=compute_unit)
    if compute_unit not in (None, *_ANYWHERE):
        raise click.UsageError(
            f"expected --compute-unit {' or '.join(_ANYWHERE)} for the {resolved.name} engine, got "
            f"{compute_unit}: that is for Core ML on a Mac"
        )
    return resolved


def check_bundle(
    pipeline: Pipeline, *, model_version: str | None, model_sources: str | None, unet_batch_one: bool
) -> None:
    """Refuse a bundle that is not what the options say."""
    bundle = pipeline.bundle
    model = bundle.manifest.model
    if model_version not in (None, model.identifier):
        raise click.UsageError(
            f"expected a bundle of {model_version}, as --model-version says, got {model.identifier}"
        )
    suffix = {"packages": ".mlpackage", "compiled": ".mlmodelc"}.get(model_sources or "", "")
    for package in (package for part in bundle.manifest.components for package in part.packages):
        if not package.endswith(suffix):
            raise click.UsageError(f"expected {suffix} alone, as --model-sources says, got {package}")
    batches = dict.fromkeys(form.batch for form in pipeline.forms)
    if unet_batch_one and list(batches) != [1]:
        raise click.UsageError(
            f"expected a UNet of batch 1, as --unet-batch-one says, got {', '.join(map(str, batches))}: "
            "convert it with --unet-batch-one"
        )


def prompt_of(argument: str | None, option: str | None, *, is_optional: bool) -> str | None:
    """The prompt, which may be an argument, as in Swift, or an option, as in Python."""
    if argument is not None and option is not None:
        raise click.UsageError("expected one prompt, got an argument and --prompt")
    prompt = option if argument is None else argument
    if prompt is None and not is_optional:
        raise click.UsageError("expected a prompt (or --like, for that of a picture), got none")
    return prompt


def named(output: Path, prompt: str) -> Path:
    """``output``, or, where that is a folder, a PNG in it that is named after the prompt, as Apple's are."""
    if not output.is_dir():
        return output
    words = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in prompt[:75])
    return output / f"{words.strip('_') or 'picture'}.png"


def stated(ctx: click.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``values`` that are on the command line, and no option's default."""
    from click.core import ParameterSource

    said = ParameterSource.COMMANDLINE
    return {name: value for name, value in values.items() if ctx.get_parameter_source(name) is said}

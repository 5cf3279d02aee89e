"""What a checkpoint needs to become for a class of devices, where nothing else is asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from sd_mil.analysis.lint import LintReport

    from sdc.resources import Resources

_APPLE: Final = "Apple's ml-stable-diffusion, README"


@dataclass(frozen=True, slots=True)
class Choice:
    """The value of an option of ``sdc convert``, why it is this one, and who says so."""

    value: str | int | bool
    why: str
    source: str = _APPLE


_MOBILE: Final[Mapping[str, Choice]] = {
    "attention_implementation": Choice(
        "SPLIT_EINSUM_V2",
        "for the Neural Engine; 10 to 30 % faster there than SPLIT_EINSUM on mobile devices",
    ),
    "min_deployment_target": Choice(
        "iOS17", "weights in tables are decoded while they are used from iOS 17 on"
    ),
    "quantize_nbits": Choice(6, "a table of 64 values: a third of the size, hardly another picture"),
    "chunk_unet": Choice(True, "larger networks are not loaded on iOS and iPadOS; apps look for two pieces"),
}
#: By the name of the class of devices, what the options are that the command line leaves out.
DEVICES: Final[Mapping[str, Mapping[str, Choice]]] = {
    "iphone": _MOBILE,
    "ipad": _MOBILE,
    "mac": {
        "attention_implementation": Choice("ORIGINAL", "the fastest on the GPU, which is a Mac's fastest"),
        "min_deployment_target": Choice("macOS13", "the oldest with Core ML's ML Programs of this kind"),
    },
}


@dataclass(frozen=True, slots=True)
class Delivered:
    """What is beside a bundle for a device: compiled resources by picture size, and what is known to fail."""

    folder: Path
    resources: dict[str, Resources]
    lint: LintReport
    seconds: float


def choose(ctx: click.Context, _: click.Parameter, device: str | None) -> str | None:
    """Make the device's choices the defaults of this command line."""
    if device is not None:
        chosen = {name: choice.value for name, choice in DEVICES[device].items()}
        ctx.default_map = {**(ctx.default_map or {}), **chosen}
    return device


def resources_beside(output: Path) -> Path:
    """Where the compiled resources of the bundle at ``output`` go."""
    return output.with_name(f"{output.name}-Resources")


def check_free(place: Path, *, overwrite: bool) -> None:
    """Refuse a place for compiled resources where something else is.

    Raises:
        click.UsageError: something is there, and it is not to be overwritten or no such folder.
    """
    if not place.exists():
        return
    if not overwrite:
        raise click.UsageError(f"{place} exists: choose another output, or --overwrite")
    if not any(place.glob("*.mlmodelc")) and not any(place.glob("*/*.mlmodelc")):
        raise click.UsageError(
            f"{place} has no compiled models, so it is not overwritten: choose another output"
        )


def deliver(output: Path, device: str) -> Delivered:
    """Compile the bundle at ``output`` into a folder beside it, as Swift apps read one, and lint the bundle.

    A folder of an earlier run is replaced once the new one is complete.

    Raises: see ``sdc.resources.write_resources``.
    """
    from sd_bundle import open_bundle
    from sd_bundle.drafts import clear_leftovers, draft_folder, put_in_place

    from sdc.linting import linted
    from sdc.resources import write_all

    began, place = time.perf_counter(), resources_beside(output.resolve())
    clear_leftovers(place)
    with draft_folder(place) as draft:
        resources = write_all(open_bundle(output), draft / "Resources")
        put_in_place(draft / "Resources", place)
    # the system of next year counts as the device's: what is known to break there is worth knowing now
    report = linted(output, device, 27)
    return Delivered(place, resources, report, time.perf_counter() - began)


def facts(delivered: Delivered) -> dict[str, Any]:
    """For ``--json``."""
    from sdc.linting import finding_facts

    return {
        "resources": str(delivered.folder),
        "models": {
            f"{size}/{one.name}" if size else one.name: one.bytes
            for size, resources in delivered.resources.items()
            for one in resources.models
        },
        "findings": [finding_facts(finding) for finding in delivered.lint.findings],
    }


def print_delivered(delivered: Delivered, output: Path, device: str, psnr: Mapping[str, float]) -> None:
    """One table: what each component became; ``psnr`` in dB, of those that were compared with something."""
    from sd_bundle import open_bundle

    from sdc.console import console, size, table
    from sdc.linting import counted, print_findings

    bundle = open_bundle(output)
    files = bundle.manifest.files
    rows = table("component", "bits", "pieces", "size", "dB", "findings")
    for component in bundle.manifest.components:
        bits = component.compression.bits_per_weight if component.compression else None
        total = sum(
            file.size
            for package in dict.fromkeys(component.packages)
            for name, file in files.items()
            if name.startswith(f"{package}/")
        )
        found = [one for one in delivered.lint.findings if Path(one.model).name in component.packages]
        rows.add_row(
            component.name,
            "16" if bits is None else f"{bits:.2f}",
            str(len(component.variants[0].chunks)),
            size(total),
            f"{psnr[component.name]:.1f}" if component.name in psnr else "",
            ", ".join(dict.fromkeys(one.rule.id for one in found)) or "none",
        )
    console().print(rows)
    print_findings(delivered.lint.findings)
    console().print(
        f"{delivered.folder}: for apps, in {delivered.seconds:.1f} s; {counted(delivered.lint)} for {device} "
        f"on {delivered.lint.os}",
        soft_wrap=True,
    )

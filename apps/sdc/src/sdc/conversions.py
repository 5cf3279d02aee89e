"""What is said of a conversion, planned or done: as tables, and for ``--json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sd_convert import ConversionOptions, ConversionReport, Plan, VerificationReport


def worst(report: VerificationReport | None) -> dict[str, float]:
    """The dB of each component's worst output, where they were compared with torch's."""
    found: dict[str, float] = {}
    for row in () if report is None else report.rows:
        found[row.component] = min(row.psnr, found.get(row.component, row.psnr))
    return found


def conversion_facts(report: ConversionReport, proof: VerificationReport | None) -> dict[str, Any]:
    """For ``--json``: the conversion, and how far its outputs are from torch's if that was asked."""
    from sdc.commands.verify import report_facts
    from sdc.console import peak_memory

    return {
        **asdict(report),
        "bundle": str(report.bundle),
        "bytes": sum(part.bytes for part in report.components),
        "peak_memory": peak_memory(),
        "verification": None if proof is None else report_facts(proof),
    }


def print_conversion(report: ConversionReport) -> None:
    """A row for each component, then the sum."""
    from sdc.console import console, peak_memory, size, table

    rows = table("component", "s", "size", "peak memory", "precision", "program")
    for part in report.components:
        rows.add_row(
            _titled(part.name, part.variants),
            f"{part.seconds:.1f}",
            size(part.bytes),
            size(part.peak_memory or 0),
            part.precision,
            f"from {part.program}" if part.program else "new",
        )
    console().print(rows)
    for part in report.components:
        if part.reason:
            console().print(f"{part.name} is {part.precision}: {part.reason}", soft_wrap=True)
    total = sum(part.bytes for part in report.components)
    console().print(
        f"wrote {report.bundle}: {size(total)} in {report.seconds:.1f} s, peak memory {size(peak_memory())}",
        soft_wrap=True,
    )


def print_recipe(recipe: str, lora: str) -> None:
    """What was made of a LoRA's name."""
    from sdc.console import console

    console().print(
        f"recipe {recipe}, by the name of {lora}: `sdc generate` samples so; --recipe says otherwise",
        soft_wrap=True,
        markup=False,
    )


def _titled(name: str, variants: Sequence[str]) -> str:
    """``unet (512x512; 512x768)``; of one just the name."""
    return f"{name} ({'; '.join(variants)})" if variants else name


def plan_facts(planned: Plan) -> dict[str, Any]:
    """For ``--json``; nothing is written."""
    return {
        "components": [
            {
                "name": part.name,
                "size": part.size,
                "form": part.form,
                "package": part.package,
                "bytes": part.package_bytes,
                "precision": part.precision,
                "is_reused": part.is_reused,
                **{
                    side: [
                        {"name": port.name, "dtype": port.dtype, "shape": list(port.shape)} for port in ports
                    ]
                    for side, ports in (("inputs", part.inputs), ("outputs", part.outputs))
                },
            }
            for part in planned.components
        ],
        "disk_bytes": planned.disk_bytes,
        "memory_bytes": planned.memory_bytes,
    }


def print_plan(planned: Plan, options: ConversionOptions, output: Path) -> None:
    """A row for each component, the ports of each package, then the sum."""
    from sdc.console import console, size, table

    rows = table("component", "size", "precision", "program")
    for part in planned.components:
        rows.add_row(
            _titled(part.name, [text for text in (part.size, part.form) if text is not None]),
            size(part.package_bytes) if part.package_bytes else "shared",
            part.precision or "to be checked",
            "kept" if part.is_reused else "new",
        )
    console().print(rows)
    for part in planned.components:
        ports = [f"  {port.name}: {port.dtype}{list(port.shape)}" for port in part.inputs]
        ports += [f"  -> {port.name}: {port.dtype}{list(port.shape)}" for port in part.outputs]
        console().print("\n".join([part.package, *ports]), soft_wrap=True, markup=False)
    console().print(
        f"would write {output} ({options.attention_implementation}, {options.resolved_compute_unit}, "
        f"{options.target}), {size(planned.disk_bytes)}, with about {size(planned.memory_bytes)} of memory; "
        "nothing was written",
        soft_wrap=True,
    )

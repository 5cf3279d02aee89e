"""``sdc inspect``: what is in a bundle or in an ``.mlpackage``."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console
    from sd_mil import Package, Port


@click.command("inspect", short_help="Show ports, operations, weights and metadata.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(path: Path, *, as_json: bool) -> None:
    """Show what is in PATH, a bundle or an .mlpackage; nothing is executed."""
    facts = package_facts(path) if path.suffix == ".mlpackage" else bundle_facts(path)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _print(facts)


def bundle_facts(path: Path) -> dict[str, Any]:
    """The manifest's statements about the model, and the facts of each package."""
    from sd_runtime import open_bundle

    bundle = open_bundle(path)
    manifest = bundle.manifest
    return {
        "bundle": path.name,
        "model": asdict(manifest.model),
        "compression": manifest.compression,
        "provenance": asdict(manifest.provenance),
        "bytes": sum(record.size for record in manifest.files.values()),
        "packages": [
            {
                "component": component.name,
                "attention_implementation": component.attention_implementation,
                "compute_unit": component.compute_unit,
                "deployment_target": component.deployment_target,
                **package_facts(bundle.package(component)),
            }
            for component in manifest.components
        ],
    }


def package_facts(path: Path) -> dict[str, Any]:
    """Ports, operations by kind, weights by encoding, and metadata of one package."""
    from sd_compress import storage
    from sd_mil import read_package

    package = read_package(path)
    description = package.description
    return {
        "package": path.name,
        "specification_version": package.specification_version,
        "inputs": _ports(description.inputs),
        "outputs": _ports(description.outputs),
        "operations": _histogram(package),
        "weights": [
            {
                "encoding": row.encoding,
                "tensors": row.weights,
                "elements": row.elements,
                "bytes": row.stored_bytes,
                "bits_per_weight": round(row.bits_per_weight, 3),
            }
            for row in storage(package).rows
        ],
        "metadata": {
            "short_description": description.short_description,
            "version": description.version,
            "author": description.author,
            "license": description.license,
            **description.user_defined,
        },
    }


def _ports(ports: Iterable[Port]) -> list[dict[str, Any]]:
    return [{"name": port.name, "shape": list(port.shape), "dtype": port.dtype} for port in ports]


def _histogram(package: Package) -> dict[str, int]:
    kinds = Counter(operation.type for operation in package.program.operations() if operation.type != "const")
    return dict(kinds.most_common())


def _print(facts: dict[str, Any]) -> None:
    from sdc.console import console, size

    out = console()
    if "packages" in facts:
        model, made = facts["model"], facts["provenance"]
        out.print(
            f"[bold]{facts['bundle']}[/bold]: {model['identifier']} ({model['family']}, "
            f"{model['prediction_type']}), {model['image']['width']}x{model['image']['height']} pixels, "
            f"{size(facts['bytes'])}, made {made['created']} from {made['source']}",
            soft_wrap=True,
        )
    for package in facts.get("packages", [facts]):
        _print_package(out, package)


def _print_package(out: Console, facts: dict[str, Any]) -> None:
    from sdc.console import size, table

    out.print(f"\n[bold]{facts['package']}[/bold] (specification {facts['specification_version']})")
    if "component" in facts:
        keys = ("component", "attention_implementation", "compute_unit", "deployment_target")
        out.print(", ".join(str(facts[key]) for key in keys if facts[key]))
    ports = table("port", "dtype", "shape")
    for arrow, side in (("→", "inputs"), ("←", "outputs")):
        for port in facts[side]:
            ports.add_row(f"{arrow} {port['name']}", port["dtype"], " × ".join(map(str, port["shape"])))
    out.print(ports)
    out.print("operations: " + ", ".join(f"{kind} {count}" for kind, count in facts["operations"].items()))
    weights = table("weights", "tensors", "elements", "size", "bits")
    for row in facts["weights"]:
        bits = f"{row['bits_per_weight']:.2f}"
        weights.add_row(
            row["encoding"], str(row["tensors"]), f"{row['elements']:,}", size(row["bytes"]), bits
        )
    out.print(weights)
    for name, value in facts["metadata"].items():
        if value:
            out.print(f"{name}: {value}", soft_wrap=True, markup=False)

"""``sdc inspect``: what is in a bundle or in any model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdc.json_output import json_option, print_json

if TYPE_CHECKING:
    from rich.console import Console
    from sd_mil import Description, Package, Pipeline, Port, Suppression


@click.command("inspect", short_help="Show ports, operations, weights and metadata.")
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def command(path: Path, *, as_json: bool) -> None:
    """Show what is in PATH: a bundle, an .mlpackage, .mlmodelc or .mlmodel; nothing is executed."""
    facts = bundle_facts(path) if _is_bundle(path) else model_facts(path)
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _is_bundle(path: Path) -> bool:
    """A folder that neither its name nor its content makes a model."""
    inside = ("coremldata.bin", "model.mil", "Manifest.json")
    return not (
        path.suffix in (".mlpackage", ".mlmodelc", ".mlmodel")
        or path.is_file()
        or any((path / name).exists() for name in inside)
    )


def bundle_facts(path: Path) -> dict[str, Any]:
    """The manifest's statements about the model, and the facts of each package."""
    from sd_bundle import encode, open_bundle

    bundle = open_bundle(path)
    manifest = bundle.manifest
    return {
        "bundle": path.name,
        "model": encode(manifest.model),
        "provenance": encode(manifest.provenance),
        "bytes": sum(record.size for record in manifest.files.values()),
        "packages": [
            {
                "component": component.name,
                "picture_size": None if variant.size is None else str(variant.size),
                "form": component.told_apart(variant)[1],
                "chunk": f"chunk {index} of {len(variant.chunks)}" if len(variant.chunks) > 1 else None,
                "function": chunk.function,
                "attention_implementation": component.attention_implementation,
                "compression": encode(component.compression),
                "compute_unit": component.compute_unit,
                "deployment_target": component.deployment_target,
                **model_facts(bundle.checked_folder(chunk.package)),
            }
            for component in manifest.components
            for variant in component.variants
            for index, chunk in enumerate(variant.chunks, start=1)
        ],
    }


def model_facts(path: Path) -> dict[str, Any]:
    """What is in a package, a compiled model, a bare model file or a pipeline."""
    from sd_mil import read_model

    return {"package": path.name, **_facts(read_model(path))}


def _facts(model: Package | Pipeline | Suppression) -> dict[str, Any]:
    from sd_mil import Package, Pipeline

    if isinstance(model, Package):
        return package_facts(model)
    facts = {**_described(model.description), "metadata": _metadata(model.description)}
    if isinstance(model, Pipeline):
        models = [{"package": name, **_facts(one)} for name, one in model.models.items()]
        version = model.specification_version
        return {"kind": "pipeline", "specification_version": version, **facts, "models": models}
    return {
        "kind": "nonMaximumSuppression",
        **facts,
        "iou_threshold": model.iou_threshold,
        "confidence_threshold": model.confidence_threshold,
        "labels": len(model.labels),
    }


def package_facts(package: Package) -> dict[str, Any]:
    """Ports, operations by kind, weights by encoding, and metadata of one package."""
    from sd_compress import storage
    from sd_mil import unsupported_operations

    program = package.program
    descriptions = package.descriptions or {program.default_function: package.description}
    return {
        "kind": "ML Program",
        "specification_version": package.specification_version,
        **_described(package.description),
        "operations": _histogram(package, program.default_function),
        "functions": {
            name: {
                "opset": program.functions[name].opset,
                **_described(one),
                "operations": _compiled_names(package, name),
            }
            for name, one in descriptions.items()
        },
        "default_function": program.default_function,
        "compute_precision": _compute_precision(package),
        "unsupported": dict(unsupported_operations(program, program.default_function)),
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
        "metadata": _metadata(package.description),
    }


def _metadata(description: Description) -> dict[str, str]:
    return {
        "short_description": description.short_description,
        "version": description.version,
        "author": description.author,
        "license": description.license,
        **description.user_defined,
    }


def _described(description: Description) -> dict[str, Any]:
    sides = {
        "inputs": description.inputs,
        "outputs": description.outputs,
        "states": description.states,
    }
    return {side: [_port(port) for port in ports] for side, ports in sides.items()}


def _port(port: Port) -> dict[str, Any]:
    """Name, shape and dtype, and what is special about the port."""
    special = {
        "kind": None if port.kind == "array" else port.kind,
        "color": port.color,
        "flexibility": None if port.flexibility is None else str(port.flexibility),
        "optional": port.optional or None,
        "default": port.default,
        "description": port.description or None,
    }
    plain = {"name": port.name, "shape": list(port.shape), "dtype": port.dtype}
    return plain | {name: value for name, value in special.items() if value is not None}


def _histogram(package: Package, function: str) -> dict[str, int]:
    operations = package.program.operations(function)
    return dict(Counter(one.type for one in operations if one.type != "const").most_common())


def _compiled_names(package: Package, function: str) -> dict[str, int]:
    """The histogram under the names that a compiled model's metadata has: ``Ios16.conv``."""
    from sd_mil.ir import OPSETS

    opset = package.program.functions[function].opset
    prefix = OPSETS[opset].opset.capitalize() if opset in OPSETS else opset
    return {f"{prefix}.{kind}": count for kind, count in _histogram(package, function).items()}


def _compute_precision(package: Package) -> list[str]:
    """The dtypes of what the operations compute, the most frequent first."""
    computed = (one for one in package.program.operations() if not one.type.startswith("const"))
    return [
        dtype for dtype, _ in Counter(out.type.dtype for one in computed for out in one.outputs).most_common()
    ]


def _print(facts: dict[str, Any]) -> None:
    from sdc.console import console, size, styled

    out = console()
    if "packages" in facts:
        model, made = facts["model"], facts["provenance"]
        out.print(
            styled(str(facts["bundle"]), "bold") + f": {model['identifier']} ({model['family']}, "
            f"{_kind(model)}), {_sizes(model)} pixels, "
            f"{size(facts['bytes'])}, made {made['created']} from {made['source']}",
            soft_wrap=True,
        )
        for line in _merged(made["weights"]):
            out.print(line, soft_wrap=True)
    for package in facts.get("packages", [facts]):
        _print_package(out, package)


def _kind(model: dict[str, Any]) -> str:
    """Task, kind of denoiser and what it predicts, as far as they are not the usual."""
    task = None if model["task"] == "text-to-image" else model["task"]
    parts = (task, model["denoiser"]["distillation"], model["prediction_type"])
    return ", ".join(part for part in parts if part)


def _sizes(model: dict[str, Any]) -> str:
    images = (size["image"] for size in model["sizes"])
    return ", ".join(f"{image['width']}x{image['height']}" for image in images)


def _merged(weights: dict[str, Any] | None) -> Iterator[str]:
    """A line for each LoRA, embedding and VAE that is in the weights."""
    if weights is None:
        return
    for lora in weights["loras"]:
        scale = f"{lora['scale']:g}, text {lora['text_scale']:g}"
        yield f"LoRA: {lora['file']['name']} ({scale}), sha256 {lora['file']['sha256']}"
    for embedding in weights["embeddings"]:
        file = embedding["file"]
        yield f"embedding: {embedding['token']} from {file['name']}, sha256 {file['sha256']}"
    if weights["vae"] is not None:
        for file in weights["vae"]["files"]:
            yield f"VAE: {weights['vae']['source']}, {file['name']}, sha256 {file['sha256']}"


def _print_package(out: Console, facts: dict[str, Any]) -> None:
    version = facts.get("specification_version")
    from sdc.console import styled

    head = styled(str(facts["package"]), "bold")
    out.print()
    out.print(head + f" ({facts['kind']}, specification {version or 'none'})")
    if "component" in facts:
        keys = ("component", "picture_size", "form", "chunk", "function", "attention_implementation")
        parts = [str(facts[key]) for key in (*keys, "compute_unit", "deployment_target") if facts[key]]
        out.print(", ".join([*parts, *_compression(facts["compression"])]))
    functions = facts.get("functions", {})
    for name, function in (functions if len(functions) > 1 else {"": facts}).items():
        if name:
            mark = " (default)" if name == facts["default_function"] else ""
            out.print(styled(name, "bold") + f"{mark}, {function['opset']}")
        _print_ports(out, function)
        if "operations" in function:
            counts = (f"{kind} {count}" for kind, count in function["operations"].items())
            out.print("operations: " + ", ".join(counts), soft_wrap=True)
    if facts["kind"] == "ML Program":
        _print_program(out, facts)
    for name, value in facts["metadata"].items():
        if value:
            out.print(f"{name}: {value}", soft_wrap=True, markup=False)
    for part in facts.get("models", ()):
        _print_package(out, part)


def _compression(compression: dict[str, Any] | None) -> Iterator[str]:
    if compression is not None:
        yield f"{' and '.join(compression['methods'])}, {compression['bits_per_weight']:.2f} bits per weight"


def _print_ports(out: Console, facts: dict[str, Any]) -> None:
    from sdc.console import table

    ports = table("port", "dtype", "shape")
    for arrow, side in (("→", "inputs"), ("←", "outputs"), ("↔", "states")):
        for port in facts[side]:
            what = port.get("color") or port.get("kind") or port["dtype"]
            sizes = " × ".join("?" if size is None else str(size) for size in port["shape"])
            ports.add_row(f"{arrow} {port['name']}", what, port.get("flexibility", sizes))
    out.print(ports)


def _print_program(out: Console, facts: dict[str, Any]) -> None:
    from sdc.console import size, styled, table

    out.print("computes in: " + ", ".join(facts["compute_precision"]))
    if facts["unsupported"]:
        out.print(styled(f"neither engine runs: {', '.join(facts['unsupported'])}", "red"))
    weights = table("weights", "tensors", "elements", "size", "bits")
    for row in facts["weights"]:
        bits = f"{row['bits_per_weight']:.2f}"
        weights.add_row(
            row["encoding"], str(row["tensors"]), f"{row['elements']:,}", size(row["bytes"]), bits
        )
    out.print(weights)

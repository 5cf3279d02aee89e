"""Compressed forms of a package, for ``bench_engine``: as large and as fast as better compressed ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from sd_mil import (
    Argument,
    Constant,
    Operation,
    Package,
    Program,
    Reference,
    TensorType,
    ValueType,
    Variable,
    read_package,
    write_package,
)


def palettize(source: Path, target: Path) -> None:
    """The package with weights of 64 equidistant values each."""
    package = read_package(source)
    operations = [_palettized(operation) for operation in package.program.main.body.operations]
    write_package(target, _program(package, operations), package.description)


def quantise(source: Path, target: Path, inputs: dict[str, Any]) -> None:
    """The package with int8 weights, one scale per output, and int8 inputs of convolutions, one scale each.

    The scales are those of the largest values that ``inputs`` lead to.
    """
    package = read_package(source)
    largest = _largest_inputs(package, inputs)
    types = _types(package)
    operations: list[Operation] = []
    rounded: set[str] = set()
    for operation in package.program.main.body.operations:
        if operation.type == "const":
            operations.append(_quantised(operation))
            continue
        name = _input_of_convolution(operation)
        if name in largest:
            if name not in rounded:
                operations.extend(_pair(name, types[name].shape, largest[name]))
                rounded.add(name)
            changed = {**operation.inputs, "x": (Reference(f"{name}_rounded"),)}
            operation = dataclasses.replace(operation, inputs=changed)
        operations.append(operation)
    write_package(target, _program(package, operations), package.description, version=8)


def _program(package: Package, operations: Iterable[Operation], outputs: tuple[str, ...] = ()) -> Program:
    main = package.program.main
    body = dataclasses.replace(main.body, operations=tuple(operations), outputs=main.outputs + outputs)
    function = dataclasses.replace(main, body=body)
    return dataclasses.replace(package.program, functions={main.name: function})


def _stored(array: Any, dtype: str) -> Constant:
    return Constant(TensorType(dtype, array.shape), array, stored=array.nbytes)


def _weight(operation: Operation) -> Any:
    """The constant's fp16 matrix or kernel; None of any other constant."""
    constant = operation.attributes.get("val")
    value = constant.value if operation.type == "const" and constant is not None else None
    is_weight = isinstance(value, np.ndarray) and value.dtype == np.float16 and value.ndim >= 2
    return value if is_weight else None


def _palettized(operation: Operation) -> Operation:
    weight = _weight(operation)
    if weight is None or weight.size % 4:
        return operation
    table = np.linspace(weight.min(), weight.max(), 64).astype(np.float16)
    nearest = (weight.astype(np.float32) - table[0]) / max(float(table[-1] - table[0]), 1e-6) * 63
    indices = np.clip(np.rint(nearest), 0, 63).astype(np.uint32).reshape(-1, 4)
    four = indices << np.arange(0, 24, 6, dtype=np.uint32)
    packed = four.sum(1, dtype=np.uint32).view(np.uint8).reshape(-1, 4)[:, :3].reshape(-1)
    attributes = {
        "name": operation.attributes["name"],
        "indices": _stored(packed, "uint8"),
        "lut": _stored(table, "fp16"),
        "shape": _stored(np.array(weight.shape, np.uint32), "uint32"),
    }
    return dataclasses.replace(operation, type="constexpr_lut_to_dense", inputs={}, attributes=attributes)


def _quantised(operation: Operation) -> Operation:
    weight = _weight(operation)
    if weight is None:
        return operation
    rows = weight.astype(np.float32).reshape(len(weight), -1)
    scale = np.maximum(np.abs(rows).max(1) / 127, 1e-6).astype(np.float16)
    data = np.clip(np.rint(rows / scale.astype(np.float32)[:, None]), -127, 127).astype(np.int8)
    attributes = {
        "name": operation.attributes["name"],
        "quantized_data": _stored(data.reshape(weight.shape), "int8"),
        "zero_point": _stored(np.zeros(len(weight), np.int8), "int8"),
        "scale": _stored(scale, "fp16"),
        "axis": Constant(TensorType("int32", ()), np.array(0, np.int32)),
    }
    return dataclasses.replace(
        operation, type="constexpr_affine_dequantize", inputs={}, attributes=attributes
    )


def _input_of_convolution(operation: Operation) -> str:
    arguments = operation.inputs.get("x", ()) if operation.type == "conv" else ()
    return arguments[0].name if arguments and isinstance(arguments[0], Reference) else ""


def _types(package: Package) -> dict[str, ValueType]:
    return {one.name: one.type for operation in package.program.operations() for one in operation.outputs}


def _largest_inputs(package: Package, inputs: dict[str, Any]) -> dict[str, float]:
    """The largest magnitude of what each convolution reads, but those of the latents themselves."""
    from sd_mil.engines.portable import compile_program

    types = _types(package)
    names = map(_input_of_convolution, package.program.main.body.operations)
    extra: dict[str, list[Operation]] = {}
    for name in dict.fromkeys(name for name in names if name in types):
        sizes = types[name].shape
        whole, one = Variable(f"{name}_magnitude", TensorType("fp32", sizes)), TensorType("fp32", ())
        axes = Constant(TensorType("int32", (len(sizes),)), np.arange(len(sizes), dtype=np.int32))
        reduced: dict[str, tuple[Argument, ...]] = {"x": (Reference(whole.name),), "axes": (axes,)}
        extra[name] = [
            Operation("abs", whole.name, {"x": (Reference(name),)}, (whole,)),
            Operation("reduce_max", f"{name}_largest", reduced, (Variable(f"{name}_largest", one),)),
        ]
    operations = [*package.program.main.body.operations, *(one for pair in extra.values() for one in pair)]
    program = _program(package, operations, tuple(f"{name}_largest" for name in extra))
    results = compile_program(program).run(inputs)
    return {name: float(results[f"{name}_largest"]) for name in extra}


def _pair(name: str, shape: tuple[int | None, ...], largest: float) -> list[Operation]:
    """``quantize`` and ``dequantize`` of a value."""
    scale = Constant(TensorType("fp16", ()), np.array(max(largest / 127, 1e-5), np.float16))
    integers = Variable(f"{name}_integers", TensorType("int8", shape))
    rounded = Variable(f"{name}_rounded", TensorType("fp16", shape))
    kind = Constant(TensorType("string", ()), "int8")
    given: dict[str, tuple[Argument, ...]] = {
        "input": (Reference(name),),
        "scale": (scale,),
        "output_dtype": (kind,),
    }
    again: dict[str, tuple[Argument, ...]] = {"input": (Reference(integers.name),), "scale": (scale,)}
    return [
        Operation("quantize", integers.name, given, (integers,)),
        Operation("dequantize", rounded.name, again, (rounded,)),
    ]

"""Inputs that fit a model's ports, drawn from a seed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from sd_mil.errors import PredictionError
from sd_mil.ir.ports import Port
from sd_mil.ir.program import Package, Pipeline
from sd_mil.predict.model import MLModel

#: Elements of one input: a shape comes from a file, and is no reason to fill the memory.
MOST_ELEMENTS: Final = 1 << 28
#: Operations between a port and the table that its integers look up.
_PASSED: Final = frozenset(
    ("add", "cast", "expand_dims", "identity", "reshape", "select", "slice_by_index", "squeeze", "transpose")
)


def seeded_inputs(
    model: str | os.PathLike[str] | Package | Pipeline | MLModel, *, seed: int = 0
) -> dict[str, Any]:
    """What ``predict`` takes, for every input that has no default; equal seeds give equal inputs.

    Floats are normal, pixels uniform, integers within the table that they look up (0 or 1 where there is
    none), masks 1. Sizes that may vary are those of the port's default shape.

    Raises:
        PackageError, UnsupportedModelError: the model cannot be read.
        PredictionError: an input takes text, of which there is no random, or is larger than 2^28 elements.
    """
    opened = model if isinstance(model, MLModel) else MLModel(model, "reference")
    generator = np.random.default_rng(seed)
    return {
        name: random_value(opened, port, tuple(size or 1 for size in port.shape), generator)
        for name, port in opened.inputs.items()
        if not port.optional
    }


def random_value(model: MLModel, port: Port, shape: tuple[int, ...], generator: np.random.Generator) -> Any:
    """One input of ``model`` in that shape, as :func:`seeded_inputs` draws it.

    Raises:
        PredictionError: the port does not take the shape, or it is too large; or the port takes text.
    """
    if port.kind in ("string", "dictionary"):
        raise PredictionError(f"expected a value for input {port}, got none: there are no random ones")
    if not port.allows(shape):
        raise PredictionError(f"expected a shape for input {port}, got {list(shape)}")
    if math.prod(shape) > MOST_ELEMENTS:
        raise PredictionError(f"expected at most {MOST_ELEMENTS} elements for {port.name!r}, got {shape}")
    if port.kind == "image":
        return generator.integers(0, 256, shape).astype(port.dtype)
    if port.kind in ("int64", "double"):
        return 0 if port.kind == "int64" else float(generator.standard_normal())
    if np.dtype(port.dtype).kind == "f":
        return generator.standard_normal(shape).astype(port.dtype)
    if "mask" in port.name.lower():
        return np.ones(shape, port.dtype)
    entries = _table_size(model.package, port.name, model.function_name)
    return generator.integers(0, entries, shape).astype(port.dtype)


def _table_size(package: Package | Pipeline, name: str, function: str | None) -> int:
    """How many entries the smallest table has in which the integers of an input are looked up; 2 if none."""
    if not isinstance(package, Package):
        return 2
    return min(_tables(package, name, function), default=2)


def _tables(package: Package, name: str, function: str | None) -> Iterable[int]:
    reached, shapes = {name}, _shapes(package, function)
    for operation in package.program.operations(function):
        used = {
            key
            for key, arguments in operation.inputs.items()
            if any(getattr(argument, "name", None) in reached for argument in arguments)
        }
        if operation.type in ("gather", "gather_along_axis") and "indices" in used:
            table = getattr(operation.inputs["x"][0], "name", "")
            size = (shapes.get(table) or (None,))[0]
            if size:
                yield size
        elif operation.type in _PASSED and used:
            reached.update(variable.name for variable in operation.outputs)


def _shapes(package: Package, function: str | None) -> Mapping[str, tuple[int | None, ...]]:
    return {
        variable.name: getattr(variable.type, "shape", ())
        for operation in package.program.operations(function)
        for variable in operation.outputs
    }

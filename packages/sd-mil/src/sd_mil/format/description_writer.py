"""``ModelDescription`` of Model.proto, written: the inverse of ``reader.description``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from sd_mil.format.encoding import double, field, integer, single, text, varint
from sd_mil.ir.ports import Description, EnumeratedShapes, Port, Shape, ShapeRange

_DTYPES = {"float16": 65552, "float32": 65568, "float64": 65600, "int8": 131080, "int32": 131104}
_SCALARS = {"int64": 1, "double": 2, "string": 3}
_COLORS = {"GRAYSCALE": 10, "RGB": 20, "BGR": 30, "GRAYSCALE_FLOAT16": 40}


def encode_description(
    description: Description, functions: Mapping[str, Description], default_function: str
) -> bytes:
    """The ports of the model, or those of each function where there are several."""
    metadata = _metadata(description)
    unknown = description.unknown.get("ModelDescription", b"")
    if not functions:
        return _described(description, (1, 10, 13, 11, 12)) + metadata + unknown
    bodies = (
        field(
            20, text(1, name) + _described(one, (2, 3, 6, 4, 5)) + one.unknown.get("FunctionDescription", b"")
        )
        for name, one in functions.items()
    )
    return b"".join(bodies) + text(21, default_function) + metadata + unknown


def _metadata(description: Description) -> bytes:
    """What is not said is not written, as protobuf has it."""
    texts = ((1, description.short_description), (2, description.version), (3, description.author))
    said = b"".join(text(number, words) for number, words in (*texts, (4, description.license)) if words)
    said += b"".join(field(100, text(1, k) + text(2, v)) for k, v in description.user_defined.items())
    said += description.unknown.get("Metadata", b"")
    return field(100, said) if said else b""


def _described(description: Description, numbers: tuple[int, int, int, int, int]) -> bytes:
    sides = (description.inputs, description.outputs, description.states)
    ports = b"".join(
        field(number, _feature(port))
        for number, side in zip(numbers[:3], sides, strict=True)
        for port in side
    )
    labels = ((numbers[3], description.label), (numbers[4], description.probabilities))
    return ports + b"".join(text(number, name) for number, name in labels if name)


def _feature(port: Port) -> bytes:
    optional = integer(1000, 1) if port.optional else b""
    return text(1, port.name) + text(2, port.description) + field(3, _kind(port) + optional) + port.unknown


def _kind(port: Port) -> bytes:
    if port.kind in _SCALARS:
        return field(_SCALARS[port.kind], b"")
    if port.kind == "dictionary":
        return field(6, field(1 if port.dtype == "int64" else 2, b""))
    if port.kind == "image":
        return field(4, _image(port))
    return field(8, field(1, _array(port))) if port.kind == "state" else field(5, _array(port))


def _array(port: Port) -> bytes:
    default = b"" if port.default is None else _default(port.default, port.dtype)
    return _shape(port.shape) + integer(2, _DTYPES[port.dtype]) + _array_flexibility(port) + default


def _default(value: float, dtype: str) -> bytes:
    """In the field for the dtype, as coremltools does, where it holds the value."""
    if dtype.startswith("int") and value.is_integer():
        return integer(41, int(value))
    with np.errstate(over="ignore"):
        is_single = dtype != "float64" and np.float32(value) == value
    return single(51, value) if is_single else double(61, value)


def _shape(shape: Shape) -> bytes:
    """Nothing where a size depends on the input, as coremltools does."""
    sizes = [size for size in shape if size is not None]
    return field(1, b"".join(map(varint, sizes))) if len(sizes) == len(shape) else b""


def _array_flexibility(port: Port) -> bytes:
    if isinstance(port.flexibility, EnumeratedShapes):
        return field(21, b"".join(field(1, _shape(shape)) for shape in port.flexibility.shapes))
    if isinstance(port.flexibility, ShapeRange):
        return field(31, b"".join(field(1, _bounds(*bounds)) for bounds in port.flexibility.bounds))
    return b""


def _bounds(low: int, high: int | None) -> bytes:
    return integer(1, low) + integer(2, -1 if high is None else high)


def _image(port: Port) -> bytes:
    height, width = (size or 0 for size in port.shape[2:])
    size = integer(1, width) + integer(2, height) + integer(3, _COLORS[port.color or "RGB"])
    return size + _image_flexibility(port)


def _image_flexibility(port: Port) -> bytes:
    if isinstance(port.flexibility, EnumeratedShapes):
        return field(21, _image_sizes(shape[2:] for shape in port.flexibility.shapes))
    if isinstance(port.flexibility, ShapeRange):
        height, width = port.flexibility.bounds[2:]
        return field(31, field(1, _bounds(*width)) + field(2, _bounds(*height)))
    return b""


def _image_sizes(sizes: Iterable[tuple[int, ...]]) -> bytes:
    return b"".join(field(1, integer(1, width) + integer(2, height)) for height, width in sizes)

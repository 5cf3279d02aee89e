"""``FeatureDescription`` of FeatureTypes.proto: one port, as the description states it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.format.wire import Message
from sd_mil.ir.ports import ColorSpace, EnumeratedShapes, Port, PortKind, ShapeRange

_ARRAY_DTYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131080: "int8", 131104: "int32"}
_COLORS: Mapping[int, ColorSpace] = MappingProxyType(
    {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}
)
_OPTIONAL = 1000
#: The fields that are read of a port, of an array, of an image, of a range of sizes.
_FEATURE = frozenset({1, 2, 3})
_ARRAY = frozenset({1, 2, 21, 31, 41, 51, 61})
_IMAGE = frozenset({1, 2, 3, 21, 31})
_RANGE = frozenset({1, 2})
_MAX_RANK = 32
_MAX_SHAPES = 1024


def read_port(feature: Message, where: str) -> Port:
    """A port as it is described; the shape is empty where the description leaves it to the program.

    Raises:
        PackageError: malformed.
        UnsupportedModelError: a sequence, or a kind of feature that is not known.
    """
    described = feature.message(3) or Message(b"")
    kinds = [number for number in described.numbers() if number != _OPTIONAL]
    if len(kinds) != 1 or kinds[0] not in _READERS:
        found = "a sequence" if kinds == [7] else f"features {kinds}" if kinds else "nothing"
        raise UnsupportedModelError(f"expected a feature that can be run for {where}, got {found}")
    body = described.message(kinds[0]) or Message(b"")
    optional = bool(described.integer(_OPTIONAL))
    port = _READERS[kinds[0]](_Feature(body, feature.text(1), feature.text(2), optional, where))
    return replace(port, unknown=unknown) if (unknown := feature.unknown(_FEATURE)) else port


@dataclass(frozen=True, slots=True)
class _Feature:
    body: Message
    name: str
    description: str
    optional: bool
    where: str


def _scalar(kind: PortKind, dtype: str) -> Callable[[_Feature], Port]:
    return lambda feature: Port(feature.name, (), dtype, feature.description, kind, optional=feature.optional)


def _dictionary(feature: _Feature) -> Port:
    dtype = "int64" if 1 in feature.body else "str"
    return Port(feature.name, (), dtype, feature.description, "dictionary", optional=feature.optional)


def _state(feature: _Feature) -> Port:
    array = _array(replace(feature, body=feature.body.message(1) or Message(b"")))
    return replace(array, kind="state")


def _array(feature: _Feature) -> Port:
    body, where = feature.body.refuse_unknown(_ARRAY, "ArrayFeatureType", feature.where), feature.where
    number = body.integer(2)
    if number not in _ARRAY_DTYPES:
        raise PackageError(f"expected an array dtype for {where}, got number {number}")
    flexibility = _array_flexibility(body, where)
    return Port(
        feature.name,
        _sizes(body, where) or _first(flexibility),
        _ARRAY_DTYPES[number],
        feature.description,
        flexibility=flexibility,
        optional=feature.optional,
        default=_default(body),
    )


def _default(body: Message) -> float | None:
    if 41 in body:
        return float(body.signed(41))
    return body.real(51) if 51 in body else body.real(61)


def _array_flexibility(body: Message, where: str) -> EnumeratedShapes | ShapeRange | None:
    if (enumerated := body.message(21)) is not None:
        return _enumerated([_sizes(shape, where) for shape in enumerated.messages(1)], where)
    if (limits := body.message(31)) is not None:
        return _range([_bounds(limit, where) for limit in limits.messages(1)], where)
    return None


def _image(feature: _Feature) -> Port:
    body, where = feature.body.refuse_unknown(_IMAGE, "ImageFeatureType", feature.where), feature.where
    color = _COLORS.get(body.integer(3))
    if color is None:
        raise PackageError(f"expected a colour space for {where}, got number {body.integer(3)}")
    channels = 1 if color.startswith("GRAYSCALE") else 3
    flexibility = _image_flexibility(body, channels, where)
    width, height = body.signed(1), body.signed(2)
    shape = (1, channels, height, width) if width and height else _first(flexibility)
    if not shape or min(shape) < 1:
        raise PackageError(f"expected a size for the image {where}, got {width}x{height}")
    return Port(
        feature.name,
        shape,
        "float32",
        feature.description,
        "image",
        color,
        flexibility,
        optional=feature.optional,
    )


def _image_flexibility(body: Message, channels: int, where: str) -> EnumeratedShapes | ShapeRange | None:
    if (enumerated := body.message(21)) is not None:
        sizes = [(size.integer(2), size.integer(1)) for size in enumerated.messages(1)]
        return _enumerated([(1, channels, *size) for size in sizes], where)
    if (limits := body.message(31)) is not None:
        pair = [_bounds(limits.message(number) or Message(b""), where) for number in (2, 1)]
        return _range([(1, 1), (channels, channels), *pair], where)
    return None


def _sizes(message: Message, where: str) -> tuple[int, ...]:
    sizes = tuple(message.integers(1).tolist())
    if any(size < 0 for size in sizes) or len(sizes) > _MAX_RANK:
        raise PackageError(f"expected at most {_MAX_RANK} sizes for {where}, got {list(sizes[:_MAX_RANK])}")
    return sizes


def _bounds(message: Message, where: str) -> tuple[int, int | None]:
    message.refuse_unknown(_RANGE, "SizeRange", where)
    low, high = message.signed(1), message.signed(2)
    if low < 0 or 0 <= high < low:
        raise PackageError(f"expected a range of sizes for {where}, got {low}..{high}")
    return low, None if high < 0 else high


def _enumerated(shapes: list[tuple[int, ...]], where: str) -> EnumeratedShapes:
    if not 0 < len(shapes) <= _MAX_SHAPES:
        raise PackageError(f"expected 1 to {_MAX_SHAPES} shapes for {where}, got {len(shapes)}")
    return EnumeratedShapes(tuple(shapes))


def _range(bounds: list[tuple[int, int | None]], where: str) -> ShapeRange:
    if len(bounds) > _MAX_RANK:
        raise PackageError(f"expected at most {_MAX_RANK} sizes for {where}, got {len(bounds)}")
    return ShapeRange(tuple(bounds))


def _first(flexibility: EnumeratedShapes | ShapeRange | None) -> tuple[int, ...]:
    """The default where none is stated, as FeatureTypes.proto has it."""
    if isinstance(flexibility, EnumeratedShapes):
        return flexibility.shapes[0]
    return () if flexibility is None else tuple(low for low, _ in flexibility.bounds)


_READERS: Mapping[int, Callable[[_Feature], Port]] = MappingProxyType(
    {
        1: _scalar("int64", "int64"),
        2: _scalar("double", "float64"),
        3: _scalar("string", "str"),
        4: _image,
        5: _array,
        6: _dictionary,
        8: _state,
    }
)

"""What goes into a model and comes out, as its description declares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sd_mil.errors import printable

Shape: TypeAlias = tuple[int | None, ...]

#: ``int64`` and ``double`` are single numbers; a ``dictionary`` holds a classifier's probabilities by label.
PortKind: TypeAlias = Literal["array", "image", "int64", "double", "string", "dictionary", "state"]
ColorSpace: TypeAlias = Literal["RGB", "BGR", "GRAYSCALE", "GRAYSCALE_FLOAT16"]

#: How many of a port's shapes a message says.
_SAID = 16


@dataclass(frozen=True, slots=True)
class EnumeratedShapes:
    """The shapes that a flexible port takes, and no other."""

    shapes: tuple[tuple[int, ...], ...]

    def allows(self, shape: Shape) -> bool:
        """Whether it is one of them."""
        return shape in self.shapes

    def __str__(self) -> str:
        """``one of [1, 3, 64, 64], [1, 3, 128, 128]``; of many, the first."""
        said = ", ".join(str(list(shape)) for shape in self.shapes[:_SAID])
        more = len(self.shapes) - _SAID
        return f"one of {said}{f' and {more} more' if more > 0 else ''}"


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """Lower and upper bound of each dimension; an upper bound of ``None`` is no bound."""

    bounds: tuple[tuple[int, int | None], ...]

    def allows(self, shape: Shape) -> bool:
        """Whether every dimension is within its bounds."""
        return len(shape) == len(self.bounds) and all(
            size is not None and low <= size and (high is None or size <= high)
            for size, (low, high) in zip(shape, self.bounds, strict=True)
        )

    def __str__(self) -> str:
        """``[1, 1..448, 64..]``."""
        return f"[{', '.join(_bounds(low, high) for low, high in self.bounds)}]"


@dataclass(frozen=True, slots=True)
class AnyShape:
    """An output of which not even the rank is known before running."""

    def allows(self, _: Shape) -> bool:
        """Every shape is one."""
        return True

    def __str__(self) -> str:
        """``[...]``."""
        return "[...]"


def _bounds(low: int, high: int | None) -> str:
    if low == high:
        return str(low)
    return f"{low}..{'' if high is None else high}"


@dataclass(frozen=True, slots=True)
class Port:
    """An input, output or state as the model description declares it.

    ``dtype`` is numpy's name (``float16``); of text ``str``; of a dictionary that of its keys. ``shape`` is
    the default shape: of inputs every size is known, of outputs that depend on the input some are ``None``.
    An image has ``color``, and the shape ``[1, C, H, W]`` of the tensor that the program sees. ``default`` is
    the number that fills an optional array which is not given. ``unknown`` is as of operations.
    """

    name: str
    shape: Shape
    dtype: str
    description: str = ""
    kind: PortKind = "array"
    color: ColorSpace | None = None
    flexibility: EnumeratedShapes | ShapeRange | AnyShape | None = None
    optional: bool = False
    default: float | None = None
    unknown: bytes = b""

    def __str__(self) -> str:
        """As error messages say it: ``sample: float16[2, 4, 64, 64]``."""
        return f"{printable(self.name)}: {self.expected}"

    @property
    def expected(self) -> str:
        """What fits the port, without its name."""
        if self.kind in ("int64", "double", "string", "dictionary"):
            return self.kind
        if self.kind == "image" and self.flexibility is None:
            return f"{self.color} image of {self.shape[-1]}x{self.shape[-2]} pixels"
        what = f"{self.color} image as " if self.kind == "image" else ""
        if isinstance(self.flexibility, EnumeratedShapes):
            return f"{what}{self.dtype}, {self.flexibility}"
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{what}{self.dtype}{self.flexibility or f'[{sizes}]'}"

    def allows(self, shape: Shape) -> bool:
        """Whether an array of this shape fits."""
        if self.flexibility is not None:
            return self.flexibility.allows(shape) or shape == self.shape
        return len(shape) == len(self.shape) and all(
            declared in (None, size) for declared, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Description:
    """What the model description says of one function: its ports, and the model's metadata.

    ``label`` and ``probabilities`` are the outputs of a classifier. ``unknown`` has fields of the file that
    the reader does not know, as they are encoded, by the name of their message in Model.proto.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    short_description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    user_defined: Mapping[str, str] = field(default_factory=dict)
    states: tuple[Port, ...] = ()
    label: str = ""
    probabilities: str = ""
    unknown: Mapping[str, bytes] = field(default_factory=dict)

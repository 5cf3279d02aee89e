"""A program without its weights, as bytes: each constant of weight.bin is the name of where it comes from.

A message with two fields: 1 is ``Model`` of Model.proto, whose constants refer to offsets in a weight file
that does not exist; 2, repeated, says what would lie at each of these offsets (field 1): the source of a
:class:`~sd_mil.ir.tensors.Tensor` (field 2), or the elements of a constant that has none (field 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from sd_mil.errors import PackageError
from sd_mil.format.encoding import field, integer, text
from sd_mil.format.specification import read_specification
from sd_mil.format.values import known_shape
from sd_mil.format.wire import Message
from sd_mil.format.writer import encode_model, layout_of
from sd_mil.ir.dtypes import stored_bytes, stored_dtype
from sd_mil.ir.ports import Description
from sd_mil.ir.program import Blob, Constant, Package, Pipeline, Program, TensorType
from sd_mil.ir.tensors import Tensor

#: Makes the tensor of a dtype and shape that comes from a source.
OpenTensor: TypeAlias = Callable[[str, str, tuple[int, ...]], Tensor]

_MODEL, _PLACE = 1, 2
_OFFSET, _SOURCE, _ELEMENTS = 1, 2, 3


def encode_unweighted(
    program: Program, description: Description, *, version: int, source_of: Callable[[Tensor], str]
) -> bytes:
    """The program and its description; of a tensor only what ``source_of`` says, which may not be empty."""
    layout = layout_of(program)
    places = (
        field(_PLACE, integer(_OFFSET, layout.offset(constant)) + _content(constant, source_of))
        for constant in layout.blobs
    )
    return field(_MODEL, encode_model(program, description, layout, version=version)) + b"".join(places)


def read_unweighted(content: bytes, path: str, tensor: OpenTensor) -> Package:
    """The inverse; ``tensor`` makes the tensors, and nothing is read from them. ``path`` names the package.

    Raises:
        PackageError: something else was encoded.
    """
    message = Message(content)
    model = message.message(_MODEL)
    if model is None:
        raise PackageError(f"{path}: expected a program without weights, got other bytes")
    package = read_specification(model, path, _Places(message.messages(_PLACE), tensor))
    if isinstance(package, Pipeline):
        raise PackageError(f"{path}: expected a program without weights, got a pipeline")
    return package


def _content(constant: Constant, source_of: Callable[[Tensor], str]) -> bytes:
    content = constant.content
    if isinstance(content, np.ndarray | np.generic):
        return field(_ELEMENTS, content.tobytes())
    if not isinstance(content, Tensor):
        raise TypeError(f"expected numbers to store, got {type(content).__name__}")
    return text(_SOURCE, source_of(content))


class _Places:
    """Stands for the weight file."""

    def __init__(self, places: list[Message], tensor: OpenTensor) -> None:
        self._places = {place.integer(_OFFSET): place for place in places}
        self._tensor = tensor
        self._constants: dict[int, Constant] = {}

    @property
    def total_bytes(self) -> int:
        """Of all constants so far."""
        return sum(constant.stored for constant in self._constants.values())

    def constant(self, kind: TensorType, blob: Blob, where: str) -> Constant:
        """What would lie at the offset; the same constant each time."""
        if blob.offset not in self._constants:
            if blob.offset not in self._places:
                raise PackageError(f"expected a source for {where}, got none")
            constant = self._opened(self._places[blob.offset], kind, where)
            self._constants[blob.offset] = replace(constant, blob=blob)
        return self._constants[blob.offset]

    def _opened(self, place: Message, kind: TensorType, where: str) -> Constant:
        shape = known_shape(kind, where)
        stored, source = stored_bytes(kind.dtype, shape), place.text(_SOURCE)
        if source:
            return Constant(kind, self._tensor(source, kind.dtype, shape), stored)
        payload = place.payload(_ELEMENTS)
        if len(payload) != stored:
            raise PackageError(f"expected {stored} bytes for {where}, got {len(payload)}")
        elements = np.frombuffer(payload, stored_dtype(kind.dtype)).copy()
        return Constant(
            kind, elements if elements.size != math.prod(shape) else elements.reshape(shape), stored
        )

"""A program without its weights, as bytes: each constant of weight.bin is the name of where it comes from.

A message with two fields: 1 is ``Model`` of Model.proto, whose constants refer to offsets in a weight file
that does not exist; 2, repeated, says what would lie at each of these offsets (field 1): the source of a
:class:`~sd_mil.ir.tensors.Tensor` (field 2), or the elements of a constant that has none (field 3), of a
dtype (field 4) and shape (field 5). So a package can be written without decoding the program.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from sd_mil.errors import PackageError
from sd_mil.format.blob_writer import BlobLayout, Check
from sd_mil.format.description import read_model_description
from sd_mil.format.encoding import field, integer, text
from sd_mil.format.specification import read_specification
from sd_mil.format.values import known_shape
from sd_mil.format.wire import Message
from sd_mil.format.writer import WrittenPackage, encode_model, layout_of, write_encoded
from sd_mil.ir.dtypes import BLOB_DTYPES, stored_bytes, stored_dtype
from sd_mil.ir.ports import Description
from sd_mil.ir.program import Blob, Constant, Package, Pipeline, Program, TensorType
from sd_mil.ir.tensors import Tensor

#: Makes the tensor of a dtype and shape that comes from a source.
OpenTensor: TypeAlias = Callable[[str, str, tuple[int, ...]], Tensor]

_MODEL, _PLACE = 1, 2
_OFFSET, _SOURCE, _ELEMENTS, _DTYPE, _SIZE = 1, 2, 3, 4, 5
_DESCRIPTION = 2  # of Model


def encode_unweighted(
    program: Program, description: Description, *, version: int, source_of: Callable[[Tensor], str]
) -> bytes:
    """The program and its description; of a tensor only what ``source_of`` says, which may not be empty."""
    layout = layout_of(program)
    places = (field(_PLACE, _place(constant, layout, source_of)) for constant in layout.blobs)
    return field(_MODEL, encode_model(program, description, layout, version=version)) + b"".join(places)


class Unweighted:
    """What was encoded, with ``tensor`` to make the tensors; the program is decoded when it is asked for.

    Raises:
        PackageError: something else was encoded. ``path`` names the package.
    """

    def __init__(self, content: bytes, path: str, tensor: OpenTensor) -> None:
        """Nothing is read from the tensors."""
        message = Message(content)
        model = message.encoded(_MODEL)
        if len(model) != 1:
            raise PackageError(f"{path}: expected a program without weights, got other bytes")
        self._path, self._model = path, model[0]
        places = (_constant(place, tensor) for place in message.messages(_PLACE))
        self._layout = BlobLayout.of(places)
        description = Message(self._model).message(_DESCRIPTION)
        self.description = read_model_description(description or Message(b""))

    @property
    def weight_bytes(self) -> int:
        """The size of weight.bin."""
        return self._layout.size

    def write(
        self, path: str | os.PathLike[str], *, identity: str = "", check: Check = lambda: None
    ) -> WrittenPackage:
        """The package as :func:`~sd_mil.write_package` writes it."""
        return write_encoded(path, self._model, self._layout, identity=identity, check=check)

    def package(self) -> Package:
        """The program and its description, decoded.

        Raises:
            PackageError: it is malformed.
        """
        package = read_specification(Message(self._model), self._path, _Places(self._layout))
        if isinstance(package, Pipeline):
            raise PackageError(f"{self._path}: expected a program without weights, got a pipeline")
        return package


def _place(constant: Constant, layout: BlobLayout, source_of: Callable[[Tensor], str]) -> bytes:
    kind = constant.type
    if not isinstance(kind, TensorType):
        raise TypeError(f"expected numbers to store, got {kind}")
    sizes = b"".join(integer(_SIZE, size) for size in known_shape(kind, "a constant"))
    place = integer(_OFFSET, layout.offset(constant)) + text(_DTYPE, kind.dtype) + sizes
    return place + _content(constant, source_of)


def _content(constant: Constant, source_of: Callable[[Tensor], str]) -> bytes:
    content = constant.content
    if isinstance(content, np.ndarray | np.generic):
        return field(_ELEMENTS, content.tobytes())
    if not isinstance(content, Tensor):
        raise TypeError(f"expected numbers to store, got {type(content).__name__}")
    return text(_SOURCE, source_of(content))


def _constant(place: Message, tensor: OpenTensor) -> Constant:
    """What would lie at the place's offset."""
    dtype, shape = place.text(_DTYPE), tuple(place.integers(_SIZE).tolist())
    if dtype not in BLOB_DTYPES.values():
        raise PackageError(f"expected the dtype of a constant, got {dtype!r}")
    kind, stored, source = TensorType(dtype, shape), stored_bytes(dtype, shape), place.text(_SOURCE)
    blob = Blob("", place.integer(_OFFSET))
    if source:
        return Constant(kind, tensor(source, dtype, shape), stored, blob)
    payload = place.payload(_ELEMENTS)
    if len(payload) != stored:
        raise PackageError(f"expected {stored} bytes for a constant, got {len(payload)}")
    elements = np.frombuffer(payload, stored_dtype(dtype)).copy()
    whole = elements if elements.size != math.prod(shape) else elements.reshape(shape)
    return Constant(kind, whole, stored, blob)


class _Places:
    """Stands for the weight file."""

    def __init__(self, layout: BlobLayout) -> None:
        self._constants = {layout.offset(constant): constant for constant in layout.blobs}

    @property
    def total_bytes(self) -> int:
        """Of all constants."""
        return sum(constant.stored for constant in self._constants.values())

    def constant(self, kind: TensorType, blob: Blob, where: str) -> Constant:
        """What would lie at the offset; the same constant each time."""
        constant = self._constants.get(blob.offset)
        if constant is None or constant.type != kind:
            raise PackageError(f"expected a source for {where}, got none")
        return replace(constant, blob=blob)

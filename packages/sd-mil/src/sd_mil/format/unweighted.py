"""A program without its weights, as bytes: each constant is the name of where it comes from.

A message. Field 1 is ``Program`` of MIL.proto, whose constants refer to offsets in a weight file that does
not exist; 2, repeated, says what would lie at each of these offsets (field 1): the source of a
:class:`~sd_mil.ir.tensors.Tensor` (field 2), or the elements of a constant that has none (field 3), of a
dtype (field 4) and shape (field 5); 3, repeated, is the same for tensors that are too small for the weight
file: their elements lie in the program itself, from that byte on. 4 is the version of the file format, 5 the
name of the default function. So a package can be written, of any weights, without decoding the program.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from sd_mil.errors import PackageError
from sd_mil.format.blob_writer import BlobLayout, Check
from sd_mil.format.encoding import field, integer, text
from sd_mil.format.graph_writer import encode_program
from sd_mil.format.specification import read_specification
from sd_mil.format.values import known_shape
from sd_mil.format.wire import Message
from sd_mil.format.writer import WrittenPackage, layout_of, model_of, write_encoded
from sd_mil.ir.dtypes import BLOB_DTYPES, stored_bytes, stored_dtype
from sd_mil.ir.ports import Description
from sd_mil.ir.program import Blob, Block, Constant, Function, Package, Pipeline, Program, TensorType
from sd_mil.ir.tensors import Tensor
from sd_mil.ir.uses import constant_of

#: Makes the tensor of a dtype and shape that comes from a source.
OpenTensor: TypeAlias = Callable[[str, str, tuple[int, ...]], Tensor]

_PROGRAM, _PLACE, _INLINE, _VERSION, _DEFAULT = 1, 2, 3, 4, 5
_OFFSET, _SOURCE, _ELEMENTS, _DTYPE, _SIZE = 1, 2, 3, 4, 5
#: Whose elements take the same bytes in a message whatever they are.
_PATCHED = ("fp16", "fp32")


def encode_unweighted(program: Program, *, version: int, source_of: Callable[[Tensor], str]) -> bytes:
    """The program; of a tensor only what ``source_of`` says, which may not be empty.

    Raises:
        TypeError: a tensor that is not in the weight file, and not the value of a ``const`` of fp16 or fp32.
    """
    layout = layout_of(program)
    small = list(_small_tensors(program))
    empty = encode_program(_filled(program, 0x00), layout)
    places = [field(_PLACE, _place(layout.offset(one), one, source_of)) for one in layout.blobs]
    if small:
        starts = _starts(empty, encode_program(_filled(program, 0xFF), layout), small)
        pairs = zip(starts, small, strict=True)
        places += [field(_INLINE, _place(start, constant, source_of)) for start, constant in pairs]
    ends = integer(_VERSION, version) + text(_DEFAULT, program.default_function)
    return field(_PROGRAM, empty) + b"".join(places) + ends


class Unweighted:
    """What was encoded, with ``tensor`` to make the tensors; the program is decoded when it is asked for.

    Raises:
        PackageError: something else was encoded. ``path`` names the package.
    """

    def __init__(self, content: bytes, path: str, tensor: OpenTensor) -> None:
        """Nothing is read from the tensors."""
        message = Message(content)
        programs = message.encoded(_PROGRAM)
        if len(programs) != 1:
            raise PackageError(f"{path}: expected a program without weights, got other bytes")
        self._path, self._program = path, programs[0]
        self.version, self._default = message.integer(_VERSION), message.text(_DEFAULT)
        self._layout = BlobLayout.of(_constant(place, tensor) for place in message.messages(_PLACE))
        self._inline = [_Inline.of(place, tensor, self._program) for place in message.messages(_INLINE)]

    @property
    def weight_bytes(self) -> int:
        """The size of weight.bin."""
        return self._layout.size

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What is read to write the package, in order."""
        stored = (constant.content for constant in self._layout.blobs)
        small = (one.constant.content for one in self._inline)
        return tuple(one for one in (*stored, *small) if isinstance(one, Tensor))

    def write(
        self,
        path: str | os.PathLike[str],
        description: Description,
        *,
        identity: str = "",
        check: Check = lambda: None,
    ) -> WrittenPackage:
        """The package as :func:`~sd_mil.write_package` writes it."""
        return write_encoded(path, self._model(description), self._layout, identity=identity, check=check)

    def package(self, description: Description) -> Package:
        """The program and its description, decoded; what is too small for the weight file is read.

        Raises:
            PackageError: it is malformed.
        """
        model = Message(self._model(description))
        package = read_specification(model, self._path, _Places(self._layout))
        if isinstance(package, Pipeline):
            raise PackageError(f"{self._path}: expected a program without weights, got a pipeline")
        return package

    def _model(self, description: Description) -> bytes:
        program = bytearray(self._program)
        for one in self._inline:
            elements = np.ascontiguousarray(one.constant.value).tobytes()
            if len(elements) != one.size:
                raise PackageError(f"{self._path}: expected {one.size} bytes, got {len(elements)}")
            program[one.start : one.start + one.size] = elements
        return model_of(program, description, default=self._default, version=self.version)


@dataclass(frozen=True, slots=True)
class _Inline:
    """A constant whose elements lie in the program, at ``start``."""

    constant: Constant
    start: int
    size: int

    @staticmethod
    def of(place: Message, tensor: OpenTensor, program: bytes | memoryview) -> _Inline:
        constant = _constant(place, tensor)
        start, size = place.integer(_OFFSET), constant.stored
        if constant.type.dtype not in _PATCHED or start + size > len(program):
            raise PackageError(f"expected a place in a program of {len(program)} bytes, got {start}")
        return _Inline(replace(constant, stored=0), start, size)


def _small_tensors(program: Program) -> Iterator[Constant]:
    for function in program.functions.values():
        for body in (function.body, *function.specializations.values()):
            for operation in body.operations:
                constant = constant_of(operation)
                if constant is not None and _is_small(constant):
                    yield constant


def _is_small(constant: Constant) -> bool:
    value = constant.content
    if constant.stored or isinstance(value, np.ndarray | np.generic | str | tuple | dict):
        return False  # nearly always; asking whether something is a Tensor takes microseconds
    if isinstance(value, Tensor) and constant.type.dtype not in _PATCHED:
        raise TypeError(f"expected a small tensor of {' or '.join(_PATCHED)}, got {constant.type}")
    return isinstance(value, Tensor)


def _filled(program: Program, byte: int) -> Program:
    """The program with small tensors whose every byte is this one."""

    def body(block: Block) -> Block:
        operations = []
        for operation in block.operations:
            constant = constant_of(operation)
            if constant is not None and _is_small(constant):
                filled = replace(constant, content=_bytes(constant, byte))
                operation = replace(operation, attributes={**operation.attributes, "val": filled})
            operations.append(operation)
        return replace(block, operations=tuple(operations))

    def function(one: Function) -> Function:
        others = {opset: body(block) for opset, block in one.specializations.items()}
        return replace(one, body=body(one.body), specializations=others)

    return replace(program, functions={name: function(one) for name, one in program.functions.items()})


def _bytes(constant: Constant, byte: int) -> np.ndarray:
    kind = constant.type
    size = stored_bytes(kind.dtype, _shape(constant))
    return np.full(size, byte, np.uint8).view(stored_dtype(kind.dtype)).reshape(_shape(constant))


def _starts(empty: bytes, full: bytes, small: list[Constant]) -> list[int]:
    """Where each small tensor lies: at the first byte that differs after the end of the one before."""
    if len(empty) != len(full):
        raise TypeError("expected small tensors in attributes of const operations only")
    differing = np.flatnonzero(np.frombuffer(empty, np.uint8) != np.frombuffer(full, np.uint8))
    sizes = [stored_bytes(constant.type.dtype, _shape(constant)) for constant in small]
    if sum(sizes) != len(differing):
        raise TypeError("expected small tensors in attributes of const operations only")
    ends = np.cumsum([0, *sizes])[:-1]
    return [int(differing[end]) for end in ends]


def _place(where: int, constant: Constant, source_of: Callable[[Tensor], str]) -> bytes:
    sizes = b"".join(integer(_SIZE, size) for size in _shape(constant))
    place = integer(_OFFSET, where) + text(_DTYPE, constant.type.dtype) + sizes
    return place + _content(constant, source_of)


def _shape(constant: Constant) -> tuple[int, ...]:
    kind = constant.type
    if not isinstance(kind, TensorType):
        raise TypeError(f"expected numbers to store, got {kind}")
    return known_shape(kind, "a constant")


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

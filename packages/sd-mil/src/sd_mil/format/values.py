"""``ValueType`` and ``Value`` of MIL.proto: declared types and constants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.format.weights import WeightStore
from sd_mil.format.wire import Message
from sd_mil.ir.dtypes import NUMPY_DTYPES, PROTO_DTYPES, stored_bytes, stored_dtype
from sd_mil.ir.program import (
    Blob,
    Constant,
    DictionaryType,
    ListType,
    Payload,
    StateType,
    TensorType,
    UnrankedType,
    ValueType,
)

_TENSOR, _LIST, _TUPLE, _DICTIONARY, _STATE = range(1, 6)
_LIST_VALUE = 3
_TYPES = {
    _TENSOR: "a tensor",
    _LIST: "a list",
    _TUPLE: "a tuple",
    _DICTIONARY: "a dictionary",
    _STATE: "a state",
}

#: The fields that are read of a value, of a place in a weight file, of a tensor's type, of a dimension.
_VALUE, _PLACE = frozenset({2, 3, 5}), frozenset({1, 2})
_TENSOR_TYPE, _DIMENSION, _SIZE = frozenset({1, 2, 3}), frozenset({1, 2}), frozenset({1})
_TEXT = TensorType("string", ())

_FLOATS, _INTS, _BOOLS, _STRINGS, _LONGS, _DOUBLES, _BYTES = range(1, 8)
#: Which fields of ``TensorValue`` may carry a dtype, besides raw bytes.
_FIXED_WIDTH = {_FLOATS: "fp32", _DOUBLES: "fp64"}
_INTEGER_FIELDS = {_INTS, _LONGS, _BOOLS}
#: Bytes of a type that is worth remembering.
_SHORT = 256


def read_type(message: Message, number: int, where: str) -> ValueType:
    """The ``ValueType`` in a field: a tensor, a list or dictionary of tensors, or a state.

    Raises:
        UnsupportedModelError: it is a tuple or a list of lists.
        PackageError: the type is missing or contradicts itself.
    """
    encoded = message.encoded(number)
    if len(encoded) == 1 and len(encoded[0]) <= _SHORT:
        with suppress(PackageError, UnsupportedModelError):  # said below, with the place
            return _short_type(encoded[0])
    return _type(message.message(number), where)


@lru_cache(maxsize=4096)
def _short_type(encoded: bytes) -> ValueType:
    """Programs have thousands of values of a hundred types; parsing these is half of reading one."""
    return _type(Message(encoded), "")


def _type(message: Message | None, where: str) -> ValueType:
    kind, body = _only_type(message, where)
    if kind == _LIST:
        return ListType(_tensor(body.message(1), where), _dimension(body.message(2) or Message(b""), where))
    if kind == _STATE:
        return StateType(_tensor(body.message(1), where))
    if kind == _DICTIONARY:
        return DictionaryType(_tensor(body.message(1), where), _tensor(body.message(2), where))
    return _tensor(message, where)


def _tensor(message: Message | None, where: str) -> TensorType:
    kind, body = _only_type(message, where)
    if kind != _TENSOR:
        raise UnsupportedModelError(f"expected a tensor for {where}, got {_TYPES.get(kind, f'type {kind}')}")
    return _tensor_type(body, where)


def _only_type(message: Message | None, where: str) -> tuple[int, Message]:
    kinds = () if message is None else message.numbers()
    if message is None or len(kinds) != 1:
        raise PackageError(f"expected one type for {where}, got {len(kinds)}")
    return kinds[0], message.message(kinds[0]) or Message(b"")


def _tensor_type(tensor: Message, where: str) -> TensorType:
    number = tensor.refuse_unknown(_TENSOR_TYPE, "TensorType", where).integer(1)
    if number not in PROTO_DTYPES:
        raise PackageError(f"expected a MIL dtype for {where}, got number {number}")
    rank = tensor.signed(2)
    if rank < 0 or any(_is_variadic(dimension) for dimension in tensor.messages(3)):
        return UnrankedType(PROTO_DTYPES[number])
    shape = tuple(_dimension(dimension, where) for dimension in tensor.messages(3))
    if len(shape) != rank:
        raise PackageError(f"expected {rank} dimensions for {where}, got {len(shape)}")
    return TensorType(PROTO_DTYPES[number], shape)


def _is_variadic(dimension: Message) -> bool:
    """Whether it stands for any number of dimensions."""
    unknown = dimension.message(2)
    return unknown is not None and bool(unknown.integer(1))


def _dimension(dimension: Message, where: str) -> int | None:
    constant, unknown = dimension.message(1), dimension.message(2)
    for one in (constant, unknown):
        if one is not None:
            one.refuse_unknown(_SIZE, "Dimension", where)
    dimension.refuse_unknown(_DIMENSION, "Dimension", where)
    if (constant is None) == (unknown is None):
        raise PackageError(f"expected a dimension of {where} to be known or unknown, got neither or both")
    if constant is not None:
        return constant.integer(1)
    return None


def read_value(message: Message, where: str, weights: WeightStore) -> Constant:
    """A ``Value``: a tensor inline or in weight.bin, strings, a list of these, or a dictionary of strings.

    Raises:
        PackageError: the payload does not have the declared dtype and shape, or lies outside its file.
        UnsupportedModelError: a nested value that is neither tensor, string nor dictionary of strings, or a
            field that is not known.
    """
    message.refuse_unknown(_VALUE, "Value", where)
    immediate, blob = message.message(3), message.message(5)
    if (immediate is None) == (blob is None):
        raise PackageError(f"expected one value for {where}, got none or two")
    if immediate is not None and _DICTIONARY in immediate:
        return _dictionary(immediate, read_type(message, 2, where), where, weights)
    kind = read_type(message, 2, where)
    if isinstance(kind, ListType) and immediate is not None:
        return _list(immediate, kind, where, weights)
    if not isinstance(kind, TensorType):
        raise UnsupportedModelError(f"expected a tensor as the value of {where}, got {kind}")
    if blob is not None:
        blob.refuse_unknown(_PLACE, "BlobFileValue", where)
        return weights.constant(kind, Blob(blob.text(1), blob.integer(2)), where)
    tensor = None if immediate is None else immediate.message(_TENSOR)
    if tensor is None:
        raise UnsupportedModelError(f"expected a tensor as the value of {where}, got a tuple or a list")
    return Constant(kind, _tensor_value(tensor, kind.dtype, known_shape(kind, where), where))


def _list(immediate: Message, kind: ListType, where: str, weights: WeightStore) -> Constant:
    values = (immediate.message(_LIST_VALUE) or Message(b"")).messages(1)
    if kind.length not in (None, len(values)):
        raise PackageError(f"expected {kind.length} elements for {where}, got {len(values)}")
    elements = [read_value(value, where, weights) for value in values]
    if any(element.type != kind.element for element in elements):
        raise PackageError(f"expected elements of type {kind.element} for {where}, got others")
    payloads = [element.value for element in elements]
    if kind.dtype == "string":
        return Constant(kind, tuple(text for text in payloads if isinstance(text, str)))
    arrays = [np.asarray(payload) for payload in payloads]
    return Constant(kind, np.stack(arrays) if arrays else np.empty(0, stored_dtype(kind.dtype)))


def _dictionary(immediate: Message, kind: ValueType, where: str, weights: WeightStore) -> Constant:
    if kind != DictionaryType(_TEXT, _TEXT):
        raise UnsupportedModelError(f"expected a dictionary of texts as the value of {where}, got {kind}")
    pairs: dict[str, str] = {}
    for entry in (immediate.message(_DICTIONARY) or Message(b"")).messages(1):
        key, value = (_text(entry.message(number), where, weights) for number in (1, 2))
        pairs[key] = value
    return Constant(TensorType("string", (len(pairs),)), pairs)


def _text(message: Message | None, where: str, weights: WeightStore) -> str:
    value = read_value(message or Message(b""), where, weights).value
    if not isinstance(value, str):
        raise UnsupportedModelError(f"expected text in the dictionary of {where}, got another type")
    return value


def known_shape(kind: TensorType, where: str) -> tuple[int, ...]:
    """The shape of a constant.

    Raises:
        PackageError: a size is not known.
    """
    if None in kind.shape:
        raise PackageError(f"expected a fixed shape for the constant {where}, got {kind}")
    return tuple(size for size in kind.shape if size is not None)


def _tensor_value(tensor: Message, dtype: str, shape: tuple[int, ...], where: str) -> Payload:
    kinds = tensor.numbers()
    if len(kinds) != 1:
        raise PackageError(f"expected one kind of values for {where}, got fields {kinds}")
    values = tensor.message(kinds[0]) or Message(b"")
    if dtype == "string":
        return _strings(values, kinds[0], shape, where)
    return _array(values, kinds[0], dtype, shape, where)


def _strings(values: Message, kind: int, shape: tuple[int, ...], where: str) -> Payload:
    texts = values.texts(1) if kind == _STRINGS else ()
    if kind != _STRINGS or len(texts) != math.prod(shape):
        raise PackageError(f"expected {math.prod(shape)} strings for {where}, got {len(texts)}")
    return texts[0] if shape == () else texts


def _array(
    values: Message, kind: int, dtype: str, shape: tuple[int, ...], where: str
) -> npt.NDArray[np.generic]:
    if kind in _INTEGER_FIELDS and dtype in NUMPY_DTYPES and NUMPY_DTYPES[dtype].kind in "iub":
        return _shaped(narrowed(values.integers(1), dtype, where), dtype, shape, where)
    if kind == _BYTES or _FIXED_WIDTH.get(kind) == dtype:
        payload = values.payload(1)
        expected = stored_bytes(dtype, shape)
        if len(payload) != expected:
            raise PackageError(
                f"expected {expected} bytes for {where}: {dtype}{list(shape)}, got {len(payload)}"
            )
        flat = np.frombuffer(payload, stored_dtype(dtype)).copy()
        return flat if flat.size != math.prod(shape) else flat.reshape(shape)
    raise PackageError(f"expected values of dtype {dtype} for {where}, got field {kind} of TensorValue")


def narrowed(values: npt.NDArray[np.int64], dtype: str, where: str) -> npt.NDArray[np.generic]:
    """Integers in the dtype, where they all fit.

    Raises:
        PackageError: one does not.
    """
    if dtype == "uint64":
        return values.view(np.uint64)
    cast = values.astype(NUMPY_DTYPES[dtype])
    if not np.array_equal(cast.astype(np.int64), values):
        raise PackageError(f"expected values that fit {dtype} for {where}, got larger ones")
    return cast


def _shaped(
    flat: npt.NDArray[np.generic], dtype: str, shape: tuple[int, ...], where: str
) -> npt.NDArray[np.generic]:
    if flat.size != math.prod(shape):
        raise PackageError(
            f"expected {math.prod(shape)} values for {where}: {dtype}{list(shape)}, got {flat.size}"
        )
    return flat.reshape(shape)


def read_attributes(
    entries: list[tuple[str, Message]], where: str, weights: WeightStore
) -> Mapping[str, Constant]:
    """A map of named constants."""
    return {key: read_value(message, f"{where}.{key}", weights) for key, message in entries}

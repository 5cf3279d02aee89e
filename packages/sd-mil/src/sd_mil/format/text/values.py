"""Constants in MIL's text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.format.text.tokens import Tokens, unquoted
from sd_mil.format.text.types import parse_type
from sd_mil.format.values import narrowed
from sd_mil.format.weights import WeightStore
from sd_mil.ir.dtypes import NUMPY_DTYPES, SUB_BYTE_BITS
from sd_mil.ir.narrow import NARROW_FLOATS, narrowed_bits
from sd_mil.ir.program import Blob, Constant, DictionaryType, ListType, Payload, TensorType, ValueType

_BOOLS = {"true": True, "false": False}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def parse_value(tokens: Tokens, where: str, weights: WeightStore) -> Constant:
    """``type(literal)``.

    Raises:
        PackageError: malformed, not of the declared type, or outside of its weight file.
        UnsupportedModelError: a state or a tuple.
    """
    kind = parse_type(tokens)
    tokens.expect("(")
    constant = _literal(tokens, kind, where, weights)
    tokens.expect(")")
    return constant


def _literal(tokens: Tokens, kind: ValueType, where: str, weights: WeightStore) -> Constant:
    if isinstance(kind, DictionaryType):
        return _dictionary(tokens, kind)
    if isinstance(kind, ListType):
        return _list(tokens, kind, where)
    if not isinstance(kind, TensorType):
        raise UnsupportedModelError(f"expected a tensor as the value of {where}, got {kind}")
    if tokens.peek() == "BLOBFILE":
        return weights.constant(kind, _blob(tokens, where), where)
    return Constant(kind, _tensor(tokens, kind, where))


def _blob(tokens: Tokens, where: str) -> Blob:
    tokens.expect("BLOBFILE", "(")
    fields: dict[str, Payload] = {}
    while not tokens.accept(")"):
        if fields:
            tokens.expect(",")
        name = tokens.name()
        if name in fields or name not in ("path", "offset"):
            raise tokens.error("path and offset once each before")
        tokens.expect("=")
        fields[name] = _inline(tokens, where)
    path, offset = fields.get("path"), fields.get("offset")
    if not isinstance(path, str) or not isinstance(offset, np.ndarray) or offset.shape != ():
        raise tokens.error("a path and an offset before")
    return Blob(path, int(offset))


def _inline(tokens: Tokens, where: str) -> Payload:
    """A tensor that is no blob itself: what a blob's path and offset are."""
    kind = parse_type(tokens)
    if not isinstance(kind, TensorType):
        raise tokens.error("a tensor before")
    tokens.expect("(")
    value = _tensor(tokens, kind, where)
    tokens.expect(")")
    return value


def _tensor(tokens: Tokens, kind: TensorType, where: str) -> Payload:
    if None in kind.shape:
        raise PackageError(f"expected a fixed shape for the constant {where}, got {kind}")
    shape = tuple(size for size in kind.shape if size is not None)
    words = [_element(tokens)] if shape == () else _elements(tokens, shape)
    if kind.dtype == "string":
        texts = _texts(words, where)
        return texts[0] if shape == () else texts
    flat = _numbers(words, kind.dtype, where)
    return flat if kind.dtype in SUB_BYTE_BITS else flat.reshape(shape)


def _elements(tokens: Tokens, shape: tuple[int, ...]) -> list[str]:
    """The words of nested lists, which must have the sizes of the shape."""
    words: list[str] = []
    counts: list[int] = []
    tokens.expect("[")
    counts.append(0)
    while counts:
        word = tokens.peek()
        if word == "[" and len(counts) < len(shape):
            counts.append(0)
        elif word == "]":
            if counts.pop() != shape[len(counts)] and 0 not in shape:
                raise tokens.error(f"{shape[len(counts)]} elements before")
            if counts:
                counts[-1] += 1
        elif word != ",":
            words.append(_element(tokens))
            counts[-1] += 1
            continue
        tokens.next()
    if len(words) != math.prod(shape):
        raise tokens.error(f"{math.prod(shape)} values before")
    return words


def _element(tokens: Tokens) -> str:
    """A number, truth value or string; ``fp16(0x1p+1)`` is one, too."""
    word = tokens.next()
    if tokens.accept("("):
        word = tokens.next()
        tokens.expect(")")
    return word


def _texts(words: list[str], where: str) -> tuple[str, ...]:
    for word in words:
        if len(word) < 2 or word[0] != '"' or word[-1] != '"':
            raise PackageError(f"expected strings for {where}, got {word[:40]!r}")
    return tuple(unquoted(word) for word in words)


def _numbers(words: Sequence[str], dtype: str, where: str) -> npt.NDArray[np.generic]:
    try:
        if dtype in ("fp16", "fp32", "fp64"):
            with np.errstate(over="ignore"):
                return np.array([_real(word) for word in words], np.float64).astype(NUMPY_DTYPES[dtype])
        if dtype in NARROW_FLOATS:
            return narrowed_bits([_real(word) for word in words], dtype)
        if dtype == "bool":
            return np.array([_BOOLS[word] for word in words], np.bool_)
        values = [int(word, 16 if "x" in word else 10) for word in words]
        return _packed(values, dtype, where) if dtype in SUB_BYTE_BITS else _integers(values, dtype, where)
    except (KeyError, ValueError, OverflowError) as error:
        if isinstance(error, PackageError | UnsupportedModelError):
            raise
        raise PackageError(f"expected values of dtype {dtype} for {where}, got {error}") from None


def _real(word: str) -> float:
    return float.fromhex(word) if "x" in word else float(word)


def _integers(values: list[int], dtype: str, where: str) -> npt.NDArray[np.generic]:
    if dtype not in NUMPY_DTYPES:
        raise UnsupportedModelError(f"expected {where} in a weight file, got {dtype} as text")
    if dtype == "uint64":
        return np.array(values, np.uint64)
    return narrowed(np.array(values, np.int64), dtype, where)


def _packed(values: list[int], dtype: str, where: str) -> npt.NDArray[np.generic]:
    bits = SUB_BYTE_BITS[dtype]
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if dtype == "int4" else (0, (1 << bits) - 1)
    if any(not low <= value <= high for value in values):
        raise PackageError(f"expected values that fit {dtype} for {where}, got larger ones")
    whole = np.array([value & 0xFF for value in values], np.uint8).reshape(-1, 1)
    return np.packbits(np.unpackbits(whole, axis=1, bitorder="little")[:, :bits], bitorder="little")


def _list(tokens: Tokens, kind: ListType, where: str) -> Constant:
    closing = _CLOSING.get(tokens.peek())
    if closing is None:
        raise tokens.error("a list")
    tokens.next()
    elements: list[Payload] = []
    while not tokens.accept(closing):
        if elements:
            tokens.expect(",")
        typed = tokens.peek(1) in ("(", "<")
        elements.append(_inline(tokens, where) if typed else _tensor(tokens, kind.element, where))
    if kind.length not in (None, len(elements)):
        raise tokens.error(f"{kind.length} elements before")
    return list_constant(kind, elements, where)


def list_constant(kind: ListType, elements: list[Payload], where: str) -> Constant:
    """A constant of the elements, which are all of the list's type."""
    if kind.dtype == "string":
        return Constant(kind, tuple(text for text in elements if isinstance(text, str)))
    arrays = [np.asarray(element) for element in elements]
    if any(array.shape != kind.shape for array in arrays):
        raise PackageError(f"expected elements of type {kind.element} for {where}, got others")
    return Constant(kind, np.stack(arrays) if arrays else np.empty(0, NUMPY_DTYPES[kind.dtype]))


def _dictionary(tokens: Tokens, kind: DictionaryType) -> Constant:
    text = TensorType("string", ())
    if kind.key != text or kind.value != text:
        raise UnsupportedModelError(f"expected a dictionary of strings, got {kind}")
    pairs: dict[str, str] = {}
    tokens.expect("{")
    while not tokens.accept("}"):
        if pairs:
            tokens.expect(",")
        tokens.expect("{")
        key = tokens.string()
        tokens.expect(",")
        pairs[key] = tokens.string()
        tokens.expect("}")
    return Constant(TensorType("string", (len(pairs),)), pairs)

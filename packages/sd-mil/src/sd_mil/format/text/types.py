"""Types in MIL's text."""

from __future__ import annotations

from sd_mil.errors import UnsupportedModelError
from sd_mil.format.text.tokens import Tokens
from sd_mil.ir.dtypes import PROTO_DTYPES
from sd_mil.ir.program import DictionaryType, ListType, StateType, TensorType, UnrankedType, ValueType

_DTYPES = frozenset(PROTO_DTYPES.values())
_SCALARS = {dtype: TensorType(dtype, ()) for dtype in _DTYPES}
_MAX_RANK = 64


def parse_type(tokens: Tokens) -> ValueType:
    """A type: ``tensor<fp16, [1, ?]>``, ``fp16``, ``list<...>``, ``dict<...>`` or ``state<...>``.

    Raises:
        PackageError: something else.
        UnsupportedModelError: a tuple, or a list or dictionary of something else than tensors.
    """
    word = tokens.peek()
    if word in ("tensor", "list", "dict", "state", "tuple") and tokens.peek(1) == "<":
        tokens.expect(word, "<")
        kind = _composed(word, tokens)
        tokens.expect(">")
        return kind
    if word not in _SCALARS:
        raise tokens.error("a type")
    return _SCALARS[tokens.next()]


def _composed(word: str, tokens: Tokens) -> ValueType:
    if word == "tensor":
        return _tensor(tokens)
    if word == "tuple":
        raise UnsupportedModelError("expected a tensor, a list, a dictionary or a state, got a tuple")
    element = _element(tokens)
    if word == "state":
        return StateType(element)
    tokens.expect(",")
    if word == "dict":
        return DictionaryType(element, _element(tokens))
    return ListType(element, _dimension(tokens))


def _element(tokens: Tokens) -> TensorType:
    if tokens.peek() != "tensor" and tokens.peek() not in _SCALARS:
        raise UnsupportedModelError(f"expected a list, dictionary or state of tensors, got {tokens.peek()!r}")
    kind = parse_type(tokens)
    if not isinstance(kind, TensorType):
        raise tokens.error("a tensor")
    return kind


def _tensor(tokens: Tokens) -> TensorType:
    dtype = tokens.next()
    if dtype not in _DTYPES:
        raise tokens.error(f"a MIL dtype instead of {dtype[:40]!r} before")
    tokens.expect(",")
    if tokens.accept("?"):
        return UnrankedType(dtype)
    tokens.expect("[")
    shape: list[int | None] = []
    while not tokens.accept("]"):
        if shape:
            tokens.expect(",")
        shape.append(_dimension(tokens))
        if len(shape) > _MAX_RANK:
            raise tokens.error(f"at most {_MAX_RANK} dimensions before")
    return TensorType(dtype, tuple(shape))


def _dimension(tokens: Tokens) -> int | None:
    word = tokens.peek()
    if word == "?":
        tokens.next()
        return None
    if not (word.isascii() and word.isdigit() and len(word) < 20):
        raise tokens.error("a dimension")
    return int(tokens.next())

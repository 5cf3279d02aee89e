"""From a program to MIL's text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from sd_mil.errors import UnsupportedModelError
from sd_mil.format.text.tokens import escaped_name, quoted
from sd_mil.ir.dtypes import SUB_BYTE_BITS
from sd_mil.ir.narrow import NARROW_FLOATS, widened
from sd_mil.ir.program import (
    Argument,
    Blob,
    Block,
    Constant,
    DictionaryType,
    Function,
    ListType,
    Operation,
    Program,
    StateType,
    TensorType,
    UnrankedType,
    ValueType,
    Variable,
)
from sd_mil.ir.targets import OPSETS

Dialect: TypeAlias = Literal["1.0", "1.3"]

_T = TypeVar("_T")

_TEXT = TensorType("string", ())
_OFFSET = TensorType("uint64", ())
_INDENT = "    "
_IOS = {opset: target.number for opset, target in OPSETS.items()}


def print_program(program: Program, *, dialect: Dialect = "1.3") -> str:
    """The text of the program. Stored constants are printed as the blobs that they were read from.

    Raises:
        UnsupportedModelError: a stored constant that was read from no file, or a value without a text form.
    """
    return "".join(f"{line}\n" for line in Printer(dialect).program(program))


class Printer:
    """The functions of the grammar, for one dialect."""

    #: Before the brace that ends a function; operations have one level more.
    body_indent = _INDENT

    def __init__(self, dialect: Dialect) -> None:
        """``1.0`` writes scalars as tensors without sizes, ``1.3`` by their bare types."""
        self._dialect = dialect

    def program(self, program: Program) -> Iterator[str]:
        """The lines of a program."""
        yield f"program({self._dialect})"
        build_info = Constant(_TEXT, self.build_info(program))
        yield f"[buildInfo = {self.value(build_info)}]"
        yield "{"
        for function in program.functions.values():
            yield from self._function(function)
        yield "}"

    def build_info(self, _: Program) -> Mapping[str, str]:
        """What made the program."""
        return {"sd-mil": "text"}

    def function_inputs(self, function: Function) -> tuple[Variable, ...]:
        """In the order in which they are printed."""
        return function.inputs

    def function_attributes(self, _: Function) -> str:
        """What stands between a function's inputs and its body."""
        return ""

    def place(self, blob: Blob) -> Blob:
        """Where a stored constant is said to lie."""
        return blob

    def named(self, arguments: Mapping[str, _T]) -> Iterable[tuple[str, _T]]:
        """Parameters or attributes in the order in which they are printed."""
        return arguments.items()

    def _function(self, function: Function) -> Iterator[str]:
        inputs = self._variables(self.function_inputs(function))
        head = f"{_INDENT}func {escaped_name(function.name)}<ios{_ios(function.opset)}>({inputs})"
        yield f"{head}{self.function_attributes(function)} {{"
        yield from self._body(function.body, self.body_indent)

    def _body(self, block: Block, indent: str) -> Iterator[str]:
        for operation in block.operations:
            yield from self._operation(operation, indent + _INDENT)
        yield f"{indent}}} -> ({', '.join(map(escaped_name, block.outputs))});"

    def _operation(self, operation: Operation, indent: str) -> Iterator[str]:
        outputs = f"{self._variables(operation.outputs)} = " if operation.outputs else ""
        given = self.named(operation.inputs)
        inputs = ", ".join(
            f"{escaped_name(name)} = {self._arguments(arguments)}" for name, arguments in given
        )
        attributes = self._attributes(operation.attributes)
        head = f"{indent}{outputs}{escaped_name(operation.type)}({inputs}){attributes}"
        if not operation.blocks:
            yield f"{head};"
            return
        yield head
        for index, block in enumerate(operation.blocks):
            yield f"{indent}block{index}({self._variables(block.inputs)}) {{"
            yield from self._body(block, indent)

    def _attributes(self, attributes: Mapping[str, Constant]) -> str:
        named = ", ".join(
            f"{escaped_name(name)} = {self.value(value)}" for name, value in self.named(attributes)
        )
        return f"[{named}]" if named else ""

    def _variables(self, variables: tuple[Variable, ...]) -> str:
        return ", ".join(
            f"{self.type(variable.type)} {escaped_name(variable.name)}" for variable in variables
        )

    def _arguments(self, arguments: tuple[Argument, ...]) -> str:
        texts = [self._argument(argument) for argument in arguments]
        return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"

    def _argument(self, argument: Argument) -> str:
        return self.value(argument) if isinstance(argument, Constant) else escaped_name(argument.name)

    def type(self, kind: ValueType) -> str:
        """A type."""
        if isinstance(kind, ListType):
            return f"list<{self.type(kind.element)}, {'?' if kind.length is None else kind.length}>"
        if isinstance(kind, StateType):
            return f"state<{self.type(kind.tensor)}>"
        if isinstance(kind, DictionaryType):
            return f"dict<{self.type(kind.key)}, {self.type(kind.value)}>"
        if kind.shape == () and self._dialect == "1.3":
            return kind.dtype
        if isinstance(kind, UnrankedType):
            return f"tensor<{kind.dtype}, ?>"
        sizes = ", ".join("?" if size is None else str(size) for size in kind.shape)
        return f"tensor<{kind.dtype}, [{sizes}]>"

    def value(self, constant: Constant) -> str:
        """A typed value."""
        if isinstance(constant.value, Mapping):
            pairs = ", ".join(f"{{{quoted(k)}, {quoted(v)}}}" for k, v in constant.value.items())
            return f"{self.type(DictionaryType(_TEXT, _TEXT))}({{{pairs}}})"
        return f"{self.type(constant.type)}({self._literal(constant)})"

    def _literal(self, constant: Constant) -> str:
        if constant.stored:
            return self._blob(constant.blob)
        value, dtype = constant.value, constant.type.dtype
        if isinstance(value, str):
            return quoted(value)
        shape = tuple(size or 0 for size in constant.type.shape)
        if isinstance(constant.type, ListType):
            shape = (len(value), *shape)
        words = [quoted(text) for text in value] if isinstance(value, tuple) else _words(value, dtype, shape)
        return _nested(words, shape)

    def _blob(self, blob: Blob | None) -> str:
        if blob is None:
            raise UnsupportedModelError(
                "expected constants that were read from a file, got a stored one of none"
            )
        placed = self.place(blob)
        path = self.value(Constant(_TEXT, placed.file))
        offset = self.value(Constant(_OFFSET, np.array(placed.offset, np.uint64)))
        return f"BLOBFILE(path = {path}, offset = {offset})"


def _ios(opset: str) -> int:
    if opset not in _IOS:
        raise UnsupportedModelError(f"expected one of the opsets {', '.join(_IOS)}, got {opset!r}")
    return _IOS[opset]


def _words(value: object, dtype: str, shape: tuple[int, ...]) -> list[str]:
    array = np.asarray(value)
    if dtype in SUB_BYTE_BITS:
        return [str(one) for one in _unpacked(array, dtype, int(np.prod(shape)))]
    if dtype in NARROW_FLOATS:
        array = widened(array, dtype)
    flat = array.ravel().tolist()
    if dtype == "bool":
        return ["true" if one else "false" for one in flat]
    return [_hexadecimal(one) if isinstance(one, float) else str(one) for one in flat]


def _unpacked(packed: np.ndarray[tuple[int, ...], np.dtype[np.generic]], dtype: str, count: int) -> list[int]:
    bits = SUB_BYTE_BITS[dtype]
    stream = np.unpackbits(packed.view(np.uint8), bitorder="little")[: count * bits].reshape(count, bits)
    values = stream.astype(np.int64) @ (1 << np.arange(bits))
    return [int(one) - (1 << bits) if dtype == "int4" and one >> 3 else int(one) for one in values]


def _hexadecimal(number: float) -> str:
    """C's ``%a``: ``0x1.8p+1``."""
    if number != number or number in (float("inf"), float("-inf")):
        return str(number)
    mantissa, exponent = number.hex().split("p")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}{'.' if fraction else ''}{fraction}p{exponent}"


def _nested(words: list[str], shape: tuple[int, ...]) -> str:
    """The words in lists of the shape's sizes; a scalar stands alone."""
    if shape == ():
        return words[0]
    if not words:
        return "[]"
    parts = words
    for size in reversed(shape):
        rows = zip(*[iter(parts)] * size, strict=True)
        parts = [f"[{', '.join(row)}]" for row in rows]
    return parts[0]

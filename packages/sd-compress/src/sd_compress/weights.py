"""The weights of a program: which constants are one, and the matrix that a layer makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_mil import Block, Constant, Function, Operation, Program, Reference, TensorType
from sd_mil.ir import NUMPY_DTYPES, Tensor, constants_of

from .errors import CompressionError

Array: TypeAlias = npt.NDArray[Any]

#: The dtypes that can be compressed.
FLOATS = ("fp16", "fp32")


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant of floating point numbers that an operation of the network takes.

    ``name`` is that of the ``const`` in the program; ``kind`` the type of the operation that takes it first
    (``conv``, ``linear``, ``matmul``, ``gather``, ...), ``operation`` that operation's name and ``parameter``
    the name under which it takes it. ``transposed`` is what ``matmul`` says of that parameter.
    """

    name: str
    function: str
    kind: str
    operation: str
    parameter: str
    constant: Constant = field(repr=False)
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions, as the program has them."""
        return tuple(size or 0 for size in self.constant.type.shape)

    @property
    def dtype(self) -> str:
        """``fp16`` or ``fp32``."""
        return self.constant.type.dtype

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def output_axis(self) -> int:
        """The axis that runs over the output channels of the layer."""
        if self.kind == "conv_transpose":
            return 1
        if self.kind == "matmul" and len(self.shape) > 1:
            first, second = len(self.shape) - 2, len(self.shape) - 1
            return first if (self.parameter == "y") == self.transposed else second
        return 0

    @property
    def input_axis(self) -> int:
        """The axis that runs over the input channels of the layer; that of a vector is its only one."""
        if self.kind == "matmul" and len(self.shape) > 1:
            return 2 * len(self.shape) - 3 - self.output_axis
        return 0 if self.kind == "conv_transpose" or len(self.shape) == 1 else 1

    def read(self) -> Array:
        """The elements, in the weight's own dtype and shape; a weight in a file is read now.

        Raises:
            CompressionError: a tensor has another number of elements than it declares.
        """
        content = self.constant.content
        if not isinstance(content, Tensor):
            return np.asarray(self.constant.value).reshape(self.shape)
        values = np.empty(self.elements, NUMPY_DTYPES[self.dtype])
        end = 0
        for piece in content.pieces():  # a tensor of a checkpoint gives its file's pages back piece by piece
            end += piece.size
            if end > values.size:
                break
            values[end - piece.size : end] = piece
        if end != values.size:
            raise CompressionError(f"{self.name}: expected {values.size} elements, got {end}")
        return values.reshape(self.shape)

    def matrix(self, values: Array | None = None) -> Array:
        """``values`` of the weight's shape (its own if None) as the matrix that the layer computes with.

        Shapes:
            [output channels, inputs]: ``conv`` [out, in / groups * kh * kw], ``linear`` [out, in], ``matmul``
            [out, in] whether it is the left or the right factor and transposed or not (leading dimensions
            count as outputs), ``conv_transpose`` [out / groups * kh * kw, in]; others [first axis, rest].
        """
        values = self.read() if values is None else values
        if self.kind in ("matmul", "conv_transpose") and values.ndim > 1:
            moved = np.moveaxis(values, self.input_axis, -1)
            return moved.reshape(-1, moved.shape[-1])
        return values.reshape(values.shape[0] if values.ndim else 1, -1)

    def tensor(self, matrix: Array) -> Array:
        """The inverse of :meth:`matrix`: a matrix of the same size, in the weight's shape."""
        if self.kind in ("matmul", "conv_transpose") and len(self.shape) > 1:
            shape = [size for axis, size in enumerate(self.shape) if axis != self.input_axis]
            moved = matrix.reshape(*shape, self.shape[self.input_axis])
            return np.moveaxis(moved, -1, self.input_axis)
        return matrix.reshape(self.shape)


def weights_of(program: Program) -> tuple[Weight, ...]:
    """All weights of all functions, in the order in which the operations take them.

    A weight that several operations of a function take is listed once, for the first of them; one that
    several functions have is listed for each, with the same constant. Weights that are compressed already are
    no constants any more, and are not listed.
    """
    functions = program.functions.values()
    return tuple(weight for function in functions for weight in _weights_of(function))


def _weights_of(function: Function) -> Iterator[Weight]:
    operations = tuple(_operations(function.body))
    constants = constants_of(operations)
    seen: set[str] = set()
    for operation in operations:
        for parameter, arguments in operation.inputs.items():
            for argument in arguments:
                name = argument.name if isinstance(argument, Reference) else ""
                if name in constants and name not in seen and _is_weight(constants[name]):
                    seen.add(name)
                    yield _weight(constants, function, operation, parameter, name)


def _is_weight(constant: Constant) -> bool:
    kind = constant.type
    return isinstance(kind, TensorType) and kind.dtype in FLOATS and len(kind.shape) > 0


def _operations(block: Block) -> Iterator[Operation]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _operations(inner)


def _weight(
    constants: dict[str, Constant], function: Function, operation: Operation, parameter: str, name: str
) -> Weight:
    return Weight(
        name=name,
        function=function.name,
        kind=operation.type,
        operation=operation.name,
        parameter=parameter,
        constant=constants[name],
        transposed=_is_set(operation, f"transpose_{parameter}", constants),
    )


def _is_set(operation: Operation, parameter: str, constants: dict[str, Constant]) -> bool:
    """Whether a flag of the operation is true; one that is not given is false."""
    given = next(iter(operation.inputs.get(parameter, ())), None)
    constant = constants.get(given.name) if isinstance(given, Reference) else given
    return constant is not None and bool(np.asarray(constant.value))

"""What the weights of a program multiply: where their inputs are among its values, as rows of a matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_mil import Block, Constant, Operation, Program, Reference, ValueType
from sd_mil.ir import constants_of, operand

from sd_compress.weights import Weight, weights_of

Array: TypeAlias = npt.NDArray[Any]
_Constants: TypeAlias = Mapping[str, Constant]


@dataclass(frozen=True, slots=True)
class Patches:
    """The rows that a layer multiplies with its weight: ``output = rows @ weight.matrix().T``.

    ``value`` is the layer's input among the values of the program, ``axis`` its channels. A convolution cuts
    patches out of the axes behind them; other layers have an empty ``kernel``.
    """

    value: str
    inputs: int
    axis: int = -1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pad_type: str = "valid"
    pad: tuple[int, ...] = ()

    @property
    def taps(self) -> int:
        """Neighbouring inputs that belong to one channel."""
        return math.prod(self.kernel)

    def rows(self, value: Array, limit: int, seed: int) -> Array:
        """At most ``limit`` of the rows, drawn without replacement where there are more.

        Shapes:
            value: as the program has it; result [rows, inputs], float32.
        """
        view = self._patches(value)  # [N, *outputs, channels, *kernel]
        positions = view.shape[: view.ndim - 1 - len(self.kernel)]
        chosen: Array = np.arange(math.prod(positions))
        if len(chosen) > limit:
            chosen = np.sort(np.random.default_rng(seed).choice(len(chosen), limit, replace=False))
        rows = view[np.unravel_index(chosen, positions)]
        return rows.reshape(len(chosen), self.inputs).astype(np.float32)

    def _patches(self, value: Array) -> Array:
        if not self.kernel:
            return np.moveaxis(value, self.axis, -1).reshape(-1, self.inputs)
        rank = len(self.kernel)
        extents = [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]
        padded = np.pad(value, [(0, 0), (0, 0), *self._padding(value.shape[2:], extents)])
        view = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=tuple(range(2, 2 + rank)))  # type: ignore[call-overload]
        view = view[(..., *(slice(None, None, step) for step in (*self.strides, *self.dilations)))]
        return np.moveaxis(view, 1, 1 + rank)

    def _padding(self, sizes: Sequence[int], extents: Sequence[int]) -> list[tuple[int, int]]:
        """Zeros before and after each spatial axis, as the documentation of MIL's ``conv`` has them."""
        if self.pad_type == "valid":
            return [(0, 0)] * len(sizes)
        if self.pad_type == "custom":
            return list(zip(self.pad[::2], self.pad[1::2], strict=True))
        totals = [
            max(0, (-(-size // stride) - 1) * stride + extent - size)
            for size, extent, stride in zip(sizes, extents, self.strides, strict=True)
        ]
        halves = [(total // 2, total - total // 2) for total in totals]
        return halves if self.pad_type == "same" else [(after, before) for before, after in halves]


def inputs_of(program: Program) -> dict[str, tuple[Patches, ...]]:
    """For each weight of the default function that layers multiply with rows, those rows.

    Layers are ``linear``, ``matmul`` with a matrix, ``conv`` and ``conv_transpose`` of one group. A weight
    that several layers take has the rows of all of them; other weights (of embeddings, say) are left out.
    """
    operations = tuple(_operations(program.main.body))
    constants = constants_of(operations)
    found: dict[str, tuple[Patches, ...]] = {}
    takers = _takers(operations)
    for weight in weights_of(program):
        if weight.function == program.default_function:
            rows = [_patches(weight, operation, constants) for operation in takers.get(weight.name, ())]
            complete = tuple(one for one in rows if one is not None)
            if complete and len(complete) == len(rows):
                found[weight.name] = tuple(dict.fromkeys(complete))
    return found


def types_of(program: Program) -> dict[str, ValueType]:
    """The declared type of each value at the top of the default function, by name."""
    variables = [*program.main.inputs]
    for operation in program.main.body.operations:
        variables += operation.outputs
    return {one.name: one.type for one in variables}


def _operations(block: Block) -> Iterator[Operation]:
    """Those at the top: what nested blocks compute cannot be asked for."""
    return iter(block.operations)


def _takers(operations: Sequence[Operation]) -> dict[str, list[Operation]]:
    takers: dict[str, list[Operation]] = {}
    for operation in operations:
        for arguments in operation.inputs.values():
            for argument in arguments:
                if isinstance(argument, Reference):
                    takers.setdefault(argument.name, []).append(operation)
    return takers


def _patches(weight: Weight, operation: Operation, constants: _Constants) -> Patches | None:
    """None where the operation is no layer, or does something else with the weight."""
    if operation.type != weight.kind or operand(operation, weight.parameter) != weight.name:
        return None
    if operation.type == "linear" and weight.parameter == "weight":
        return Patches(operand(operation, "x"), weight.shape[1])
    if operation.type == "matmul" and len(weight.shape) == 2:
        return _of_matmul(weight, operation, constants)
    if operation.type in ("conv", "conv_transpose") and weight.parameter == "weight":
        return _of_conv(weight, operation, constants)
    return None


def _of_matmul(weight: Weight, operation: Operation, constants: _Constants) -> Patches | None:
    other = "x" if weight.parameter == "y" else "y"
    is_transposed = bool(_given(operation, f"transpose_{other}", constants, False))
    value = operand(operation, other)
    last = (other == "x") != is_transposed
    return Patches(value, weight.shape[weight.input_axis], axis=-1 if last else -2) if value else None


def _of_conv(weight: Weight, operation: Operation, constants: _Constants) -> Patches | None:
    if int(_given(operation, "groups", constants, 1)) != 1:
        return None
    value, kernel = operand(operation, "x"), weight.shape[2:]
    if operation.type == "conv_transpose":  # every input position is multiplied with the whole weight
        return Patches(value, weight.shape[0], axis=1)
    ones = (1,) * len(kernel)
    return Patches(
        value,
        math.prod(weight.shape[1:]),
        axis=1,
        kernel=kernel,
        strides=_ints(_given(operation, "strides", constants, ones)),
        dilations=_ints(_given(operation, "dilations", constants, ones)),
        pad_type=str(_given(operation, "pad_type", constants, "valid")),
        pad=_ints(_given(operation, "pad", constants, (0, 0) * len(kernel))),
    )


def _given(operation: Operation, parameter: str, constants: _Constants, default: Any) -> Any:
    given = operation.inputs.get(parameter, ())
    if not given:
        return default
    constant = constants.get(given[0].name) if isinstance(given[0], Reference) else given[0]
    return default if constant is None else constant.value


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)

"""How much of the noise at the output of each layer arrives at the output of the network.

Closed forms say what an error of a weight does to the output of its own layer. What becomes of that, behind
attention, normalisation and residual connections, differs by orders of magnitude from layer to layer, but not
with the error's size. So it is measured once for each weight: the program gets an input for each of them that
adds to its layer's output a share of the same output with its channels in another order and with other signs,
which is what an error of the weight looks like, and is zero but for the weight that is measured. Where the
network computes the rows of a batch apart, each row measures another weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_mil import Argument, Constant, Operation, Program, Reference, TensorType, Variable
from sd_mil.engines import CompiledProgram, OpenVINO, ProgramEngine
from sd_mil.ir import NUMPY_DTYPES, constants_of, operand

from sd_compress.calibration.inputs import inputs_of, types_of
from sd_compress.weights import Weight, weights_of

Array: TypeAlias = npt.NDArray[Any]

#: What is added, over what is there: small enough that its effect is in proportion, large enough for fp16.
_SHARE: Final = 0.25
_PREFIX: Final = "noise_of_"


def measure_gains(
    program: Program,
    inputs: Sequence[Mapping[str, Array]],
    *,
    engine: ProgramEngine | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """For each weight that layers of the default function multiply with rows, its layer's gain.

    The gain is noise over signal at the program's outputs over noise over signal at the layer's, in squares.

    Raises:
        EngineError: the engine does not run the program.
    """
    noisy = _with_noise(program)
    if not noisy.inputs or not inputs:
        return {}
    compiled = (engine or OpenVINO()).compile(noisy.program)
    return _Measure(compiled, noisy, inputs).gains(progress)


@dataclass(frozen=True, slots=True)
class _Noisy:
    """A program, and its inputs of noise by the name of the weight; ``rows`` of a batch, 1 without one."""

    program: Program
    inputs: Mapping[str, Variable]
    rows: int

    def noise(self, places: Mapping[str, slice]) -> dict[str, Array]:
        """All inputs of noise, for some in these weights and rows."""
        arrays = {
            name: np.zeros(_sizes(one), NUMPY_DTYPES[one.type.dtype]) for name, one in self.inputs.items()
        }
        for name, rows in places.items():
            arrays[name][rows] = _SHARE
        return {self.inputs[name].name: array for name, array in arrays.items()}


def _sizes(variable: Variable) -> tuple[int, ...]:
    return tuple(size or 1 for size in variable.type.shape)


def _with_noise(program: Program) -> _Noisy:
    body, known = program.main.body, inputs_of(program)
    weights = {one.name: one for one in weights_of(program) if one.name in known}
    rows, constants = _rows(program), constants_of(body.operations)
    operations: list[Operation] = []
    inputs: dict[str, Variable] = {}
    for operation in body.operations:
        weight = _weight_taken(operation, weights)
        if weight is None:
            operations.append(operation)
            continue
        if weight.name not in inputs:
            inputs[weight.name] = _input(weight, operation.outputs[0], rows)
        operations += _noisy(operation, weight, inputs[weight.name], constants)
    changed = replace(body, inputs=(*body.inputs, *inputs.values()), operations=tuple(operations))
    functions = {program.default_function: replace(program.main, body=changed)}
    return _Noisy(replace(program, functions=functions), inputs, rows)


def _rows(program: Program) -> int:
    """The size of the first dimension of every output, if they agree."""
    types = types_of(program)
    sizes = {types[name].shape[0] if types[name].shape else 1 for name in program.main.outputs}
    return (sizes.pop() or 1) if len(sizes) == 1 else 1


def _weight_taken(operation: Operation, weights: Mapping[str, Weight]) -> Weight | None:
    found = (weights.get(operand(operation, one)) for one in ("weight", "x", "y"))
    return next((one for one in found if one is not None and one.kind == operation.type), None)


def _input(weight: Weight, output: Variable, rows: int) -> Variable:
    shape = output.type.shape
    sizes = (rows if shape[0] == rows else 1, *[1] * (len(shape) - 1))
    return Variable(_PREFIX + weight.name, TensorType(output.type.dtype, sizes))


def _noisy(
    operation: Operation, weight: Weight, noise: Variable, constants: Mapping[str, Constant]
) -> Iterator[Operation]:
    """The layer; its output in another order and with other signs, times the noise; their sum; the bias.

    Given::   y = conv(x, w, bias)
    Result::  p = conv(x, w); s = gather(p, order); t = mul(s, signs); n = mul(t, noise); q = add(p, n);
              y = add(q, bias)
    """
    (output,) = operation.outputs
    axis, shape = _channel_axis(operation, weight), output.type.shape
    channels, along = shape[axis] or 1, [1] * len(shape)
    along[axis] = channels
    rng = np.random.default_rng(channels)
    signs = rng.choice(np.array([-1, 1]), along)
    bias = operation.inputs.get("bias", ())
    plain, shuffled, signed, scaled, noisy = (
        Variable(f"{output.name}_{part}", output.type) for part in ("p", "s", "t", "n", "q")
    )
    final = noisy if bias else output
    kept = {name: given for name, given in operation.inputs.items() if name != "bias"}
    yield replace(operation, outputs=(plain,), inputs=kept)
    order = {"indices": _ints(rng.permutation(channels)), "axis": _ints(axis)}
    yield _operation("gather", shuffled, x=Reference(plain.name), **order)
    yield _operation("mul", signed, x=Reference(shuffled.name), y=_floats(signs, output))
    yield _operation("mul", scaled, x=Reference(signed.name), y=Reference(noise.name))
    yield _operation("add", final, x=Reference(plain.name), y=Reference(scaled.name))
    if bias:
        given = constants[bias[0].name] if isinstance(bias[0], Reference) else bias[0]
        value = np.asarray(given.value).reshape(along)
        yield _operation("add", output, x=Reference(noisy.name), y=_floats(value, output))


def _channel_axis(operation: Operation, weight: Weight) -> int:
    rank = len(operation.outputs[0].type.shape)
    if operation.type in ("conv", "conv_transpose"):
        return 1
    return rank - 2 if operation.type == "matmul" and weight.parameter == "x" else rank - 1


def _operation(kind: str, output: Variable, **inputs: Argument) -> Operation:
    return Operation(kind, output.name, {name: (given,) for name, given in inputs.items()}, (output,))


def _ints(values: npt.ArrayLike) -> Constant:
    array = np.asarray(values, np.int32)
    return Constant(TensorType("int32", array.shape), array)


def _floats(values: Array, like: Variable) -> Constant:
    return Constant(TensorType(like.type.dtype, values.shape), values.astype(NUMPY_DTYPES[like.type.dtype]))


@dataclass(frozen=True, slots=True)
class _Measure:
    """Runs of the noisy program."""

    compiled: CompiledProgram
    noisy: _Noisy
    inputs: Sequence[Mapping[str, Array]]

    def gains(self, progress: Callable[[int, int], None] | None) -> dict[str, float]:
        expected = [self.compiled.run({**one, **self.noisy.noise({})}) for one in self.inputs]
        runs = list(self._runs(self._are_apart(expected[0])))
        found: dict[str, float] = {}
        for done, places in enumerate(runs, start=1):
            energies = sum(self._energies(*pair, places) for pair in zip(self.inputs, expected, strict=True))
            for name, rows in places.items():
                noise, signal = np.sum(energies, axis=1, where=_within(rows, self.noisy.rows))
                found[name] = float(noise / signal) / _SHARE**2 if signal > 0 else 0.0
            if progress is not None:
                progress(done, len(runs))
        return found

    def _are_apart(self, expected: Mapping[str, Array]) -> bool:
        """Whether noise in the first row, from everywhere, leaves the others as they are."""
        first = {name: slice(0, 1) for name in self._with_rows()}
        noise, _ = self._energies(self.inputs[0], expected, first)
        return bool(noise[1:].sum() <= 1e-9 * noise[0])

    def _with_rows(self) -> list[str]:
        return [name for name, one in self.noisy.inputs.items() if _sizes(one)[0] == self.noisy.rows]

    def _runs(self, are_apart: bool) -> Iterator[dict[str, slice]]:
        """The weights that are measured together, each in rows of its own."""
        several = self._with_rows() if are_apart else []
        for start in range(0, len(several), self.noisy.rows):
            names = several[start : start + self.noisy.rows]
            yield {name: slice(row, row + 1) for row, name in enumerate(names)}
        yield from ({name: slice(None)} for name in self.noisy.inputs if name not in several)

    def _energies(
        self, arrays: Mapping[str, Array], expected: Mapping[str, Array], places: Mapping[str, slice]
    ) -> Array:
        """Noise and signal of each row, [2, rows], over all outputs."""
        got = self.compiled.run({**arrays, **self.noisy.noise(places)})
        totals = np.zeros((2, self.noisy.rows))
        for name, value in expected.items():
            if value.dtype.kind == "f":
                exact = value.astype(np.float64).reshape(self.noisy.rows, -1)
                noise = got[name].astype(np.float64).reshape(self.noisy.rows, -1) - exact
                totals += np.square([noise, exact]).sum(axis=2)
        return totals


def _within(rows: slice, count: int) -> Array:
    inside = np.zeros(count, np.bool_)
    inside[rows] = True
    return inside

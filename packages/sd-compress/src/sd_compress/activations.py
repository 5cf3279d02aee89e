"""Layers whose inputs are int8, too: a pair of ``quantize`` and ``dequantize`` before each, since iOS 17.

So coremltools writes them (``linear_quantize_activations``): what runs the program computes the layer in
integers where its weight is int8 as well, and what cannot computes the same numbers in floats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_mil import Constant, Function, Operation, Program, Reference, TensorType, Variable
from sd_mil.ir import NUMPY_DTYPES, operand

from .clustering import Histogram
from .errors import CalibrationError
from .ranges import Affine, affine_of
from .schemes import Activations, Linear, Scheme

Array: TypeAlias = npt.NDArray[Any]

#: Layers whose products can be those of integers.
LAYERS: Final = ("conv", "linear")


@dataclass(frozen=True, slots=True)
class LayerInput:
    """What calibration saw of an input of a layer: the value's name in the program, how often which numbers.

    ``rows`` [any, inputs] are some of those that the layer multiplies with its weight, float32.
    """

    value: str
    histogram: Histogram
    rows: Array = field(repr=False)


#: By the name of the weight, the inputs of the layers that take it.
LayerInputs: TypeAlias = Mapping[str, Sequence[LayerInput]]


def activations_of(scheme: Scheme | None) -> Activations | None:
    """How a scheme quantizes the inputs of its layer; None if it does not."""
    return scheme.activations if isinstance(scheme, Linear) else None


def check_calibrated(program: Program, schemes: Mapping[str, Scheme], inputs: LayerInputs) -> None:
    """Refuse activations that nothing is known of, or of operations that have no integer form.

    Raises:
        CalibrationError: naming the weight, and what to do.
    """
    for name, function in program.functions.items():
        outer = {id(operation) for operation in function.body.operations}
        for operation in program.operations(name):
            for parameter in operation.inputs:
                weight = operand(operation, parameter)
                if activations_of(schemes.get(weight)) is None:
                    continue
                if operation.type not in LAYERS or parameter != "weight" or id(operation) not in outer:
                    place = "" if id(operation) in outer else " in a block"
                    raise CalibrationError(
                        f"{weight}: expected activations of conv or linear to quantize, got those of "
                        f"{operation.type} {operation.name!r}{place}; leave activations out of its scheme"
                    )
                _known(operation, weight, inputs)


def quantize_inputs(function: Function, schemes: Mapping[str, Scheme], inputs: LayerInputs) -> Function:
    """The function with a pair before each layer whose weight's scheme has activations.

    Layers that take the same value in the same integers share a pair::

        x_quantized = quantize(x, scale, output_dtype="int8")
        x_dequantized = dequantize(x_quantized, scale)
        y = conv(x_dequantized, w)

    Raises:
        CalibrationError: see :func:`check_calibrated`.
    """
    types = {variable.name: variable.type for variable in function.inputs}
    taken = set(types)
    for operation in function.body.operations:
        types |= {output.name: output.type for output in operation.outputs}
        taken |= {output.name for output in operation.outputs}
    pairs = _Pairs(taken)
    operations: list[Operation] = []
    for operation in function.body.operations:
        weight = operand(operation, "weight")
        scheme = activations_of(schemes.get(weight)) if operation.type in LAYERS else None
        if scheme is not None:
            known, kind = _known(operation, weight, inputs), types[operand(operation, "x")]
            if not isinstance(kind, TensorType) or kind.dtype not in ("fp16", "fp32"):
                raise CalibrationError(f"{weight}: expected a floating point input of its layer, got {kind}")
            affine = affine_of(known.histogram, scheme, NUMPY_DTYPES[kind.dtype])
            name, made = pairs.of(Variable(known.value, kind), affine)
            operations += made
            operation = replace(operation, inputs={**operation.inputs, "x": (Reference(name),)})
        operations.append(operation)
    return replace(function, body=replace(function.body, operations=tuple(operations)))


def _known(operation: Operation, weight: str, inputs: LayerInputs) -> LayerInput:
    value = operand(operation, "x")
    for known in inputs.get(weight, ()):
        if known.value == value:
            return known
    raise CalibrationError(
        f"{weight}: expected calibrated inputs of {operation.name}, whose activations are to be quantized, "
        "got none: calibrate (collect_activations, or --calibrate), or leave activations out of its scheme"
    )


class _Pairs:
    """The pairs of a function, each made once."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._made: dict[tuple[str, Affine], str] = {}

    def of(self, value: Variable, affine: Affine) -> tuple[str, list[Operation]]:
        """The name of what ``dequantize`` gives, and the operations if they are not there yet."""
        if (value.name, affine) in self._made:
            return self._made[value.name, affine], []
        kind = value.type
        assert isinstance(kind, TensorType)  # noqa: S101 - quantize_inputs looked
        stem = self._free(value.name)
        scale, *rest = self._constants(stem, affine, kind.dtype)
        quantized = Variable(f"{stem}_quantized", TensorType("int8", kind.shape))
        dequantized = Variable(f"{stem}_dequantized", kind)
        zero = {"zero_point": (Reference(rest[0].name),)} if affine.zero_point else {}
        common = {"scale": (Reference(scale.name),), **zero}
        dtype = rest[-1]
        operations = [
            scale,
            *rest,
            _operation(
                "quantize",
                quantized,
                {"input": (Reference(value.name),), "output_dtype": (Reference(dtype.name),), **common},
            ),
            _operation("dequantize", dequantized, {"input": (Reference(quantized.name),), **common}),
        ]
        self._taken |= {operation.outputs[0].name for operation in operations}
        self._made[value.name, affine] = dequantized.name
        return dequantized.name, operations

    def _free(self, stem: str) -> str:
        suffixes = ("scale", "zero_point", "dtype", "quantized", "dequantized")
        while any(f"{stem}_{suffix}" in self._taken for suffix in suffixes):
            stem += "_"
        return stem

    def _constants(self, stem: str, affine: Affine, dtype: str) -> Iterator[Operation]:
        yield _const(f"{stem}_scale", dtype, np.array(affine.scale, NUMPY_DTYPES[dtype]))
        if affine.zero_point:
            yield _const(f"{stem}_zero_point", "int8", np.array(affine.zero_point, np.int8))
        yield _const(f"{stem}_dtype", "string", "int8")


def _operation(kind: str, output: Variable, inputs: Mapping[str, tuple[Reference, ...]]) -> Operation:
    return Operation(kind, output.name, dict(inputs), (output,), {"name": _text(output.name)})


def _const(name: str, dtype: str, value: Array | str) -> Operation:
    kind = TensorType(dtype, ())
    attributes = {"name": _text(name), "val": Constant(kind, value)}
    return Operation("const", name, {}, (Variable(name, kind),), attributes)


def _text(value: str) -> Constant:
    return Constant(TensorType("string", ()), value)

"""Layers that a package quantised, weights and activations both, computed in integers."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import numpy as np
import numpy.typing as npt

from sd_mil.ir.program import Argument, Constant, Operation, Program, Reference, TensorType, Variable
from sd_mil.ir.uses import with_operations
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import IN_ORDER
from sd_mil.rewriting.views import Definitions

_LAYERS = ("conv", "linear")
#: Products of the largest 8-bit integers that a sum of 32 bits holds.
_TERMS = np.iinfo(np.int32).max // (255 * 128)


@rewrites(requires=(IN_ORDER,), ensures=(IN_ORDER,))
def compute_in_integers(program: Program) -> Program:
    """Write quantised layers in the form that OpenVINO runs as products of 8-bit integers.

    Given, with one scale for all of x and one per output for the weights, whose zero point is 0::

        q = quantize(x, scale, output_dtype="int8")
        a = dequantize(q, scale)
        w = constexpr_affine_dequantize(data, zero_point, scale, axis=0)
        y = conv(a, w)

    Result, where ``dequantize`` with an ``output_dtype`` stands for both of a pair::

        a      = dequantize(x, scale, output_dtype="int8")
        w_data = const(val=data)
        w      = dequantize(w_data, scale, axis=0)
        y      = conv(a, w)

    So does ``constexpr_blockwise_shift_scale`` with blocks of whole outputs. The sums are exact; what is
    rounded is what the package rounds. Layers with only weights quantised are computed in floats, as they are
    meant, and so are those whose sums may need more than 32 bits.
    """
    definitions = Definitions.of(program.main.body)
    pairs = _pairs(program, definitions)
    kept = {
        weight
        for operation in program.main.body.operations
        if operation.type in _LAYERS and definitions.operand(operation, "x") in pairs
        for weight in [definitions.operand(operation, "weight")]
        if _integers(weight, definitions) is not None
    }
    return with_operations(program, _rewritten(program, pairs, kept, definitions)) if kept else program


def _rewritten(
    program: Program, pairs: dict[str, Operation], kept: set[str], definitions: Definitions
) -> Iterator[Operation]:
    for operation in program.main.body.operations:
        name = operation.outputs[0].name if len(operation.outputs) == 1 else ""
        integers = _integers(name, definitions) if name in kept else None
        if integers is not None:
            yield from _dequantized(operation.outputs[0], *integers)
        else:
            yield pairs.get(name, operation)


def _pairs(program: Program, definitions: Definitions) -> dict[str, Operation]:
    """``dequantize`` of ``quantize`` with the same scalars, as one operation, by the name of its result."""
    found = {}
    for operation in program.main.body.operations:
        quantize = definitions.producer(definitions.operand(operation, "input"), "quantize")
        if operation.type != "dequantize" or quantize is None:
            continue
        parameters = [
            (_scalar(one, "scale", definitions), _zero_point(one, definitions))
            for one in (operation, quantize)
        ]
        if parameters[0] == parameters[1] and None not in parameters[0] and 0 < (parameters[0][0] or 0) < inf:
            inputs = {**quantize.inputs, **quantize.attributes}
            given: dict[str, tuple[Argument, ...]] = {
                key: value if isinstance(value, tuple) else (value,)
                for key, value in inputs.items()
                if key != "name"
            }
            found[operation.outputs[0].name] = Operation(
                "dequantize", operation.name, given, operation.outputs
            )
    return found


def _scalar(operation: Operation, parameter: str, definitions: Definitions) -> float | None:
    value = definitions.constant(operation, parameter)
    return float(value.item()) if isinstance(value, np.ndarray | np.generic) and value.size == 1 else None


def _zero_point(operation: Operation, definitions: Definitions) -> float | None:
    return _scalar(operation, "zero_point", definitions) if "zero_point" in operation.inputs else 0.0


def _integers(
    name: str, definitions: Definitions
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]] | None:
    """Data and scales, one per output, of an 8-bit weight around zero; None of any other weight."""
    operation = definitions.producers.get(name)
    if operation is None or operation.type not in _DATA:
        return None
    data = _array(operation, _DATA[operation.type], definitions)
    scale = _array(operation, "scale", definitions)
    if data is None or scale is None or data.dtype != np.int8 or not data.ndim:
        return None
    if operation.type == "constexpr_affine_dequantize":
        zero, axis = _array(operation, "zero_point", definitions), _array(operation, "axis", definitions)
        fits = zero is not None and not zero.any() and axis is not None and int(axis) % data.ndim == 0
    else:
        fits = "offset" not in operation.inputs and scale.shape == (scale.size, *[1] * (data.ndim - 1))
    if not fits or scale.size not in (1, len(data)) or data.size > _TERMS * len(data):
        return None
    return data, np.broadcast_to(scale.reshape(-1), len(data))


#: Where a decoder has its integers.
_DATA = {"constexpr_affine_dequantize": "quantized_data", "constexpr_blockwise_shift_scale": "data"}


def _array(operation: Operation, parameter: str, definitions: Definitions) -> npt.NDArray[np.generic] | None:
    """A constant, given as a parameter or, in iOS16's forms, as an attribute."""
    attribute = operation.attributes.get(parameter)
    value = attribute.value if attribute is not None else definitions.constant(operation, parameter)
    return value if isinstance(value, np.ndarray) else None


def _dequantized(
    output: Variable, data: npt.NDArray[np.generic], scale: npt.NDArray[np.generic]
) -> Iterator[Operation]:
    stored = Variable(f"{output.name}_data", TensorType("int8", data.shape))
    value = Constant(TensorType("int8", data.shape), data, stored=data.nbytes)
    yield Operation("const", stored.name, {}, (stored,), {"val": value})
    scales = np.ascontiguousarray(scale, dtype=np.float32)
    inputs: dict[str, tuple[Argument, ...]] = {
        "input": (Reference(stored.name),),
        "scale": (Constant(TensorType("fp32", scales.shape), scales),),
        "axis": (Constant(TensorType("int32", ()), np.array(0, np.int32)),),
    }
    yield Operation("dequantize", output.name, inputs, (output,))

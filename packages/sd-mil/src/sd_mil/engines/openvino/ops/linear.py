"""Matrix products. Source: coremltools ``defs/iOS15/linear.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Node, Output, Type

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.dtypes import computed_dtype
from sd_mil.engines.openvino.ops.contraction import Contraction
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list


@translate("linear")
def linear(call: Call) -> Output:
    """``x · weightᵀ + bias``; ``weight`` is [out, in], ``bias`` [out] or absent."""
    x, weight, *bias = _of_one_type(call, "x", "weight", *(["bias"] if "bias" in call else []))
    if bias:
        weight = _as_many_rows(weight, bias[0])
    product = ov.matmul(x, weight, False, True)
    return _as_declared(call, ov.add(product, bias[0]) if bias else product)


@translate("matmul")
def matmul(call: Call) -> Output:
    """Batched ``x · y``, either one transposed in its last two axes first."""
    transposes = call.flag("transpose_x"), call.flag("transpose_y")
    return _as_declared(call, ov.matmul(*_of_one_type(call, "x", "y"), *transposes))


def _as_many_rows(weight: Output, bias: Output) -> Output:
    """``weight`` with as many rows as ``bias`` has elements: OpenVINO fuses unknown rows as none."""
    rows, sizes = weight.get_partial_shape()[0], bias.get_partial_shape()
    if rows.is_static or sizes.is_dynamic or sizes[0].get_length() == 1:
        return weight
    return ov.reshape(weight, int_list([sizes[0].get_length(), -1]), False).output(0)


def _of_one_type(call: Call, *parameters: str) -> list[Output]:
    """The operands; integers beside floats, which iOS 17 allows, as floats."""
    outputs = [call.output(name) for name in parameters]
    types = {one.get_element_type() for one in outputs}
    return outputs if len(types) == 1 else [ov.convert(one, np.float32).output(0) for one in outputs]


def _as_declared(call: Call, result: Node) -> Output:
    """The product in the type that the program declares, which mixed operands do not settle."""
    variable = call.operation.outputs[0]
    declared = Type(computed_dtype(variable.type.dtype, where=repr(variable.name)))
    output = result.output(0)
    return output if output.get_element_type() == declared else ov.convert(output, declared).output(0)


@translate("einsum")
def einsum(call: Call) -> Output:
    """Two operands contracted as one matrix product between transposes.

    OpenVINO's own Einsum gathers through generic index arithmetic: one attention head of SD 1.5 takes 4 to 10
    times as long that way.
    """
    equation, values = call.text("equation"), call.outputs("values")
    contraction = Contraction.parse(equation)
    if contraction is None or len(values) != 2:
        return ov.einsum(values, equation.replace(" ", "")).output(0)
    x = _arrange(values[0], contraction.x_order)
    y = _arrange(values[1], contraction.y_order)
    product = ov.matmul(x, y, False, False).output(0)
    return _arrange(product, contraction.result_order)


def _arrange(output: Output, order: tuple[int, ...]) -> Output:
    if order == tuple(sorted(order)):
        return output
    return ov.transpose(output, int_list(order)).output(0)

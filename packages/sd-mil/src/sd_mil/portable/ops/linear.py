"""Matrix products. Source: coremltools ``defs/iOS15/linear.py``."""

from __future__ import annotations

import openvino.opset14 as ov
from openvino import Output

from sd_mil.portable.call import Call
from sd_mil.portable.ops.contraction import Contraction
from sd_mil.portable.registry import translate
from sd_mil.portable.scope import int_list


@translate("linear")
def linear(call: Call) -> Output:
    """``x · weightᵀ + bias``; ``weight`` is [out, in], ``bias`` [out] or absent."""
    product = ov.matmul(call.output("x"), call.output("weight"), False, True)
    return ov.add(product, call.output("bias")).output(0) if "bias" in call else product.output(0)


@translate("matmul")
def matmul(call: Call) -> Output:
    """Batched ``x · y``, either one transposed in its last two axes first."""
    transposes = call.flag("transpose_x"), call.flag("transpose_y")
    return ov.matmul(call.output("x"), call.output("y"), *transposes).output(0)


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

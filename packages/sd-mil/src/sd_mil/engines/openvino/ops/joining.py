"""Tensors put together. Source: coremltools ``defs/iOS15/tensor_operation.py``."""

from __future__ import annotations

import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list


@translate("concat")
def concat(call: Call) -> Output:
    """``values`` one after the other along ``axis``, or element by element in turn with ``interleave``."""
    values = [_at_least_1d(value) for value in call.outputs("values")]
    rank = len(values[0].get_partial_shape())
    axis = call.axis("axis", rank=rank)
    if not call.flag("interleave"):
        return ov.concat(values, axis).output(0)
    size = values[0].get_partial_shape()[axis].get_length()
    side_by_side = _stack(values, axis + 1)
    before_axis = int_list([0] * axis + [size * len(values)])
    after_axis = ov.gather(ov.shape_of(values[0], "i32"), int_list(list(range(axis + 1, rank))), 0)
    return ov.reshape(side_by_side, ov.concat([before_axis, after_axis], 0), True).output(0)


@translate("stack")
def stack(call: Call) -> Output:
    """``values`` of one shape along a new dimension at ``axis``."""
    values = call.outputs("values")
    return _stack(values, call.axis("axis", rank=len(values[0].get_partial_shape()) + 1))


def _stack(values: list[Output], axis: int) -> Output:
    return ov.concat([ov.unsqueeze(value, int_list([axis])).output(0) for value in values], axis).output(0)


def _at_least_1d(value: Output) -> Output:
    """MIL joins scalars to a vector; OpenVINO wants vectors for that."""
    return value if len(value.get_partial_shape()) else ov.unsqueeze(value, int_list([0])).output(0)

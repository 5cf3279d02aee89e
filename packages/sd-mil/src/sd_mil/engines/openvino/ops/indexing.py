"""Values picked by index. Source: coremltools ``defs/iOS15/scatter_gather.py``.

Indices may be negative and then count from the end.
"""

from __future__ import annotations

import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.bounds import checked, inside, positions_inside, same_batch
from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list


@translate("gather")
def gather(call: Call) -> Output:
    """``x`` at ``indices`` along ``axis``, after ``batch_dims`` leading dimensions that both share.

    OpenVINO's Gather (opset 8) counts negative indices from the end, as MIL does.
    """
    x = call.output("x")
    axis = call.axis("axis", 0, rank=len(x.get_partial_shape()))
    indices, batch = call.output("indices"), call.count("batch_dims", 0)
    if batch > axis:
        raise call.unsupported(f"batch_dims={batch} and axis={axis}")
    same_batch(call, x, indices, batch)
    return ov.gather(x, checked(call, indices, x, axis), axis, batch).output(0)


@translate("gather_along_axis")
def gather_along_axis(call: Call) -> Output:
    """``x[..., indices[i, j, k], ...]``: one index per element of the result."""
    x = call.output("x")
    axis = call.axis("axis", 0, rank=len(x.get_partial_shape()))
    indices = call.output("indices")
    sizes, wanted = call.shape(x), call.shape(indices)
    if any(size != one for place, (size, one) in enumerate(zip(sizes, wanted, strict=True)) if place != axis):
        raise call.unsupported(f"indices of shape {wanted} into {sizes}")
    return ov.gather_elements(x, inside(call, indices, x, axis), axis).output(0)


@translate("gather_nd")
def gather_nd(call: Call) -> Output:
    """``x[indices[..., :]]``: the last dimension of ``indices`` is a position in ``x``."""
    x, indices, batch = call.output("x"), call.output("indices"), call.count("batch_dims", 0)
    same_batch(call, x, indices, batch)
    return ov.gather_nd(x, positions_inside(call, indices, x, batch), batch).output(0)


@translate("non_zero")
def non_zero(call: Call) -> Output:
    """The positions of non-zero values, [count, rank]; OpenVINO lists them as [rank, count]."""
    if not len(call.output("x").get_partial_shape()):
        raise call.unsupported("no dimension")
    return ov.transpose(ov.non_zero(call.output("x"), "i32"), int_list([1, 0])).output(0)

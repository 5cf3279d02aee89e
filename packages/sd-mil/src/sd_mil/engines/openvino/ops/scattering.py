"""Values written by index. Source: coremltools ``defs/iOS15/scatter_gather.py``."""

from __future__ import annotations

import openvino.opset15 as ov
from openvino import Output

from sd_mil.engines.openvino.bounds import inside, positions_inside
from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list

#: MIL's modes, as OpenVINO's reductions name them.
_MODES = {"add": "sum", "sub": "sub", "mul": "prod", "min": "min", "max": "max", "update": "none"}


@translate("scatter_nd")
def scatter_nd(call: Call) -> Output:
    """``data`` with ``updates`` combined into the positions ``indices[..., :]``."""
    data = call.output("data")
    mode = _MODES[call.choice("mode", "add", among=tuple(_MODES))]
    positions = positions_inside(call, call.output("indices"), data)
    return ov.scatter_nd_update(data, positions, call.output("updates"), mode).output(0)


@translate("scatter_along_axis")
def scatter_along_axis(call: Call) -> Output:
    """``data`` with ``updates`` combined into one index along ``axis`` per element."""
    data = call.output("data")
    axis = call.axis("axis", 0, rank=len(data.get_partial_shape()))
    indices = inside(call, call.output("indices"), data, axis)
    return _scatter_elements(call, data, indices, call.output("updates"), axis)


@translate("scatter")
def scatter(call: Call) -> Output:
    """``data`` with slices of ``updates`` combined into ``indices`` along ``axis``.

    ``updates`` has as many slices as there are indices: the indices are spread over the other dimensions, and
    the elements scattered one by one.
    """
    data, updates, indices = call.output("data"), call.output("updates"), call.output("indices")
    rank = len(data.get_partial_shape())
    axis = call.axis("axis", 0, rank=rank)
    if len(indices.get_partial_shape()) != 1:
        sizes = [-1 if position == axis else int(size) for position, size in enumerate(data.get_shape())]
        updates = ov.reshape(updates, int_list(sizes), False).output(0)
        indices = ov.reshape(indices, int_list([-1]), False).output(0)
    column = ov.reshape(indices, int_list([-1 if position == axis else 1 for position in range(rank)]), False)
    spread = ov.broadcast(column, ov.shape_of(updates, "i32")).output(0)
    return _scatter_elements(call, data, inside(call, spread, data, axis), updates, axis)


def _scatter_elements(call: Call, data: Output, indices: Output, updates: Output, axis: int) -> Output:
    mode = call.choice("mode", "add", among=("add", "sub", "mul", "min", "max", "update"))
    if mode == "sub":
        mode, updates = "add", ov.negative(updates).output(0)
    return ov.scatter_elements_update(data, indices, updates, axis, _MODES[mode], True).output(0)

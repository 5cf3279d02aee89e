"""Values written by index. Source: coremltools ``defs/iOS15/scatter_gather.py``."""

from __future__ import annotations

from math import prod

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
    indices, updates = call.output("indices"), call.output("updates")
    *count, width = call.shape(indices)
    _check_updates(call, updates, [*count, *call.shape(data)[width:]])
    return ov.scatter_nd_update(data, positions_inside(call, indices, data), updates, mode).output(0)


@translate("scatter_along_axis")
def scatter_along_axis(call: Call) -> Output:
    """``data`` with ``updates`` combined into one index along ``axis`` per element."""
    data = call.output("data")
    axis = call.axis("axis", 0, rank=len(data.get_partial_shape()))
    indices, updates = call.output("indices"), call.output("updates")
    sizes, counts = call.shape(data), call.shape(indices)
    _check_updates(call, updates, counts)
    pairs = enumerate(zip(counts, sizes, strict=True))
    if any(count > size for place, (count, size) in pairs if place != axis):
        raise call.unsupported(f"indices of shape {counts} into {sizes}")
    return _scatter_elements(call, data, inside(call, indices, data, axis), updates, axis)


@translate("scatter")
def scatter(call: Call) -> Output:
    """``data`` with slices of ``updates`` combined into ``indices`` along ``axis``.

    ``updates`` has as many slices as there are indices: the indices are spread over the other dimensions, and
    the elements scattered one by one.
    """
    data, updates, indices = call.output("data"), call.output("updates"), call.output("indices")
    rank = len(data.get_partial_shape())
    axis = call.axis("axis", 0, rank=rank)
    sizes, counts = call.shape(data), call.shape(indices)
    _check_updates(call, updates, [*sizes[:axis], *counts, *sizes[axis + 1 :]])
    if len(counts) != 1:
        updates = ov.reshape(
            updates, int_list([*sizes[:axis], prod(counts), *sizes[axis + 1 :]]), False
        ).output(0)
        indices = ov.reshape(indices, int_list([-1]), False).output(0)
    column = ov.reshape(indices, int_list([-1 if position == axis else 1 for position in range(rank)]), False)
    spread = ov.broadcast(column, ov.shape_of(updates, "i32")).output(0)
    return _scatter_elements(call, data, inside(call, spread, data, axis), updates, axis)


def _check_updates(call: Call, updates: Output, shape: list[int]) -> None:
    """OpenVINO writes one update per index wherever it then is; numpy repeats updates, or refuses them."""
    if call.shape(updates) != shape:
        raise call.unsupported(f"updates of shape {call.shape(updates)} for {shape}")


def _scatter_elements(call: Call, data: Output, indices: Output, updates: Output, axis: int) -> Output:
    mode = call.choice("mode", "add", among=("add", "sub", "mul", "min", "max", "update"))
    if mode == "sub":
        mode, updates = "add", ov.negative(updates).output(0)
    return ov.scatter_elements_update(data, indices, updates, axis, _MODES[mode], True).output(0)

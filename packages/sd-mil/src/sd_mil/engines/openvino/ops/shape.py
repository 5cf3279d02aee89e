"""Shapes changed, values kept. Source: coremltools ``defs/iOS15/tensor_transformation.py``."""

from __future__ import annotations

from math import prod

import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list
from sd_mil.engines.openvino.sizes import sizing_inputs
from sd_mil.errors import PackageError


@translate("reshape")
def reshape(call: Call) -> Output:
    """``x`` in another shape: -1 is what remains; 0 keeps the dimension, counted from the last one.

    Until iOS 17, 0 is for shapes of the same rank only, where counting from either end is the same.
    """
    x = call.output("x")
    if call.is_constant("shape") and x.get_partial_shape().is_static:
        return ov.reshape(x, int_list(_sizes(call, x)), False).output(0)
    if 0 in call.operation.outputs[0].type.shape:  # where a 0 means itself
        raise call.unsupported("a result without elements")
    shape = call.output("shape")
    inputs = sizing_inputs(shape)
    if inputs is None:
        raise call.unsupported("a shape that follows from values")
    call.scope.sizing.update(node.get_friendly_name() for node in inputs)
    if _is_of_rank(shape, len(x.get_partial_shape())):
        return ov.reshape(x, shape, True).output(0)
    return ov.reshape(x, _zeros_filled(x, shape), False).output(0)


def _sizes(call: Call, x: Output) -> list[int]:
    """The sizes that the constant shape means, of as many elements as ``x`` has.

    OpenVINO does not count them, and reads beyond ``x`` for more.
    """
    wanted, before = call.ints("shape"), call.shape(x)
    kept = [*[1] * (len(wanted) - len(before)), *before[max(0, len(before) - len(wanted)) :]]
    sizes = [same if size == 0 else size for size, same in zip(wanted, kept, strict=True)]
    known = prod(size for size in sizes if size != -1)
    fits = sizes.count(-1) <= 1 and min(sizes, default=1) >= -1 and known > 0
    if not fits or (prod(before) % known if -1 in sizes else prod(before) != known):
        raise PackageError(f"expected {call.operation.name!r} to reshape {before}, got the shape {wanted}")
    return [prod(before) // known if size == -1 else size for size in sizes]


def _is_of_rank(shape: Output, rank: int) -> bool:
    target = shape.get_partial_shape()
    return target.is_static and int(target.to_shape()[0]) == rank


def _zeros_filled(x: Output, shape: Output) -> Output:
    """The sizes, each 0 as that of ``x`` at the same place from the end, or 1 before its first."""
    known = list(ov.reshape(x, shape, False).output(0).get_partial_shape())
    spare = len(known) - len(x.get_partial_shape())
    sizes = ov.shape_of(x, "i32")
    filled = []
    for place, size in enumerate(known):
        if size.is_static and size.get_length():
            filled.append(int_list([size.get_length()]))
            continue
        kept = int_list([1]) if place < spare else ov.gather(sizes, int_list([place - spare]), 0)
        wanted = ov.gather(shape, int_list([place]), 0)
        filled.append(ov.select(ov.equal(wanted, int_list([0])), kept, wanted).output(0))
    return ov.concat(filled, 0).output(0)


@translate("expand_dims")
def expand_dims(call: Call) -> Output:
    """``x`` with dimensions of size 1 at ``axes`` of the result."""
    x = call.output("x")
    rank = len(x.get_partial_shape()) + len(call.ints("axes"))
    return ov.unsqueeze(x, int_list(call.axes("axes", rank=rank))).output(0)


@translate("squeeze")
def squeeze(call: Call) -> Output:
    """``x`` without its dimensions of size 1, or without those of ``axes``."""
    x = call.output("x")
    if "axes" not in call:
        call.shape(x)  # which are of size 1 has to be known
    ones = [axis for axis, size in enumerate(x.get_partial_shape()) if size == 1]
    axes = call.axes("axes", ones, rank=len(x.get_partial_shape()))
    if any(x.get_partial_shape()[axis] not in (1, -1) for axis in axes):
        raise call.unsupported(f"axes={axes} of {x.get_partial_shape()}; expected dimensions of size 1")
    if not axes:  # which OpenVINO takes for all of size 1
        return x
    return ov.squeeze(x, int_list(axes)).output(0)


@translate("transpose")
def transpose(call: Call) -> Output:
    """``x`` with its dimensions in the order ``perm``; negative entries count from the end."""
    x = call.output("x")
    rank = len(x.get_partial_shape())
    perm = call.axes("perm", rank=rank)
    if len(perm) != rank:  # none at all, OpenVINO takes for the reverse of all
        raise call.unsupported(f"perm={perm} of {rank} dimensions; expected each of them")
    return ov.transpose(x, int_list(perm)).output(0)


@translate("flatten2d")
def flatten2d(call: Call) -> Output:
    """``x`` as a matrix: the dimensions before ``axis`` times those from it on."""
    x = call.output("x")
    rank = len(x.get_partial_shape())
    axis = call.integer("axis", 1)
    if not -rank <= axis <= rank:
        raise call.unsupported(f"axis={axis} of {rank} dimensions")
    before = list(range(rank))[:axis]
    sizes = ov.gather(ov.shape_of(x, "i32"), int_list(before), 0)
    rows = ov.reduce_prod(sizes, int_list([0]), True)
    return ov.reshape(x, ov.concat([rows, int_list([-1])], 0), False).output(0)


@translate("shape")
def shape(call: Call) -> Output:
    """The shape of ``x``, int32."""
    return ov.shape_of(call.output("x"), "i32").output(0)


def _image(call: Call) -> Output:
    """``x``, [N, C, H, W]; OpenVINO itself takes other ranks."""
    x = call.output("x")
    if len(x.get_partial_shape()) != 4:
        raise call.unsupported(f"a tensor of rank {len(x.get_partial_shape())}; it takes [N, C, H, W]")
    return x


@translate("depth_to_space")
def depth_to_space(call: Call) -> Output:
    """[N, C, H, W] -> [N, C/b², bH, bW]; the block's position is the slower half of the channel."""
    return ov.depth_to_space(_image(call), "blocks_first", call.count("block_size", least=1)).output(0)


@translate("pixel_shuffle")
def pixel_shuffle(call: Call) -> Output:
    """[N, C, H, W] -> [N, C/r², rH, rW]; the block's position is the faster half of the channel."""
    return ov.depth_to_space(_image(call), "depth_first", call.count("upscale_factor", least=1)).output(0)


@translate("space_to_depth")
def space_to_depth(call: Call) -> Output:
    """[N, C, H, W] -> [N, C·b², H/b, W/b], the inverse of ``depth_to_space``."""
    return ov.space_to_depth(_image(call), "blocks_first", call.count("block_size", least=1)).output(0)


@translate("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Output:
    """[N, C, H, W] -> [N, C·r², H/r, W/r], the inverse of ``pixel_shuffle``."""
    return ov.space_to_depth(_image(call), "depth_first", call.count("downscale_factor", least=1)).output(0)

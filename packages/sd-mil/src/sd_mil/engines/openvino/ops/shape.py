"""Shapes changed, values kept. Source: coremltools ``defs/iOS15/tensor_transformation.py``."""

from __future__ import annotations

import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list


@translate("reshape")
def reshape(call: Call) -> Output:
    """``x`` in another shape: -1 is what remains; 0 keeps the dimension, counted from the last one.

    Until iOS 17, 0 is for shapes of the same rank only, where counting from either end is the same.
    """
    x, shape = call.output("x"), call.output("shape")
    if _is_of_rank(shape, len(x.get_partial_shape())):
        return ov.reshape(x, shape, True).output(0)
    if call.is_constant("shape") and 0 in (wanted := call.ints("shape")) and not _is_empty(x):
        shape = _zeros_filled(x, wanted)
    return ov.reshape(x, shape, False).output(0)


def _is_of_rank(shape: Output, rank: int) -> bool:
    target = shape.get_partial_shape()
    return target.is_static and int(target.to_shape()[0]) == rank


def _is_empty(x: Output) -> bool:
    return any(size == 0 for size in x.get_partial_shape())


def _zeros_filled(x: Output, wanted: list[int]) -> Output:
    """The sizes, each 0 as that of ``x`` at the same place from the end, or 1 before its first."""
    spare = len(wanted) - len(x.get_partial_shape())
    sizes = ov.shape_of(x, "i32")
    filled = [
        int_list([size or 1])
        if size or place < spare
        else ov.gather(sizes, int_list([place - spare]), 0).output(0)
        for place, size in enumerate(wanted)
    ]
    return ov.concat(filled, 0).output(0)


@translate("expand_dims")
def expand_dims(call: Call) -> Output:
    """``x`` with dimensions of size 1 at ``axes`` of the result."""
    return ov.unsqueeze(call.output("x"), int_list(call.ints("axes"))).output(0)


@translate("squeeze")
def squeeze(call: Call) -> Output:
    """``x`` without its dimensions of size 1, or without those of ``axes``."""
    x = call.output("x")
    ones = [axis for axis, size in enumerate(x.get_partial_shape()) if size == 1]
    return ov.squeeze(x, int_list(call.ints("axes", ones))).output(0)


@translate("transpose")
def transpose(call: Call) -> Output:
    """``x`` with its dimensions in the order ``perm``; negative entries count from the end."""
    x = call.output("x")
    rank = len(x.get_partial_shape())
    return ov.transpose(x, int_list([axis % rank for axis in call.ints("perm")])).output(0)


@translate("flatten2d")
def flatten2d(call: Call) -> Output:
    """``x`` as a matrix: the dimensions before ``axis`` times those from it on."""
    x = call.output("x")
    axis = call.integer("axis", 1)
    before = list(range(len(x.get_partial_shape())))[:axis]
    sizes = ov.gather(ov.shape_of(x, "i32"), int_list(before), 0)
    rows = ov.reduce_prod(sizes, int_list([0]), True)
    return ov.reshape(x, ov.concat([rows, int_list([-1])], 0), False).output(0)


@translate("shape")
def shape(call: Call) -> Output:
    """The shape of ``x``, int32."""
    return ov.shape_of(call.output("x"), "i32").output(0)


@translate("depth_to_space")
def depth_to_space(call: Call) -> Output:
    """[N, C, H, W] -> [N, C/b², bH, bW]; the block's position is the slower half of the channel."""
    return ov.depth_to_space(call.output("x"), "blocks_first", call.integer("block_size")).output(0)


@translate("pixel_shuffle")
def pixel_shuffle(call: Call) -> Output:
    """[N, C, H, W] -> [N, C/r², rH, rW]; the block's position is the faster half of the channel."""
    return ov.depth_to_space(call.output("x"), "depth_first", call.integer("upscale_factor")).output(0)


@translate("space_to_depth")
def space_to_depth(call: Call) -> Output:
    """[N, C, H, W] -> [N, C·b², H/b, W/b], the inverse of ``depth_to_space``."""
    return ov.space_to_depth(call.output("x"), "blocks_first", call.integer("block_size")).output(0)


@translate("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Output:
    """[N, C, H, W] -> [N, C·r², H/r, W/r], the inverse of ``pixel_shuffle``."""
    return ov.space_to_depth(call.output("x"), "depth_first", call.integer("downscale_factor")).output(0)

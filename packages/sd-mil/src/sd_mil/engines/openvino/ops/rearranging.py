"""Elements put elsewhere: blocks, windows, sequences. Source: ``defs/iOS15/tensor_transformation.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.bounds import lengths_inside
from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list
from sd_mil.ir.limits import check_computed


@translate("space_to_batch")
def space_to_batch(call: Call) -> Output:
    """[N, C, H, W] -> [b·c·N, C, H', W']: the pixels of each position within a block as images."""
    (top, bottom), (left, right) = np.reshape(call.counts("paddings"), (2, 2)).tolist()
    begins, ends = _wide_list([0, 0, top, left]), _wide_list([0, 0, bottom, right])
    return ov.space_to_batch(call.output("x"), _block(call), begins, ends).output(0)


@translate("batch_to_space")
def batch_to_space(call: Call) -> Output:
    """The inverse of ``space_to_batch``."""
    (top, bottom), (left, right) = np.reshape(call.counts("crops"), (2, 2)).tolist()
    begins, ends = _wide_list([0, 0, top, left]), _wide_list([0, 0, bottom, right])
    return ov.batch_to_space(call.output("x"), _block(call), begins, ends).output(0)


def _block(call: Call) -> Output:
    return _wide_list([1, 1, *call.counts("block_shape", length=2, least=1)])


def _wide_list(values: list[int]) -> Output:
    """Where ``x`` is constant, OpenVINO reads these as 64 bits, whatever they are."""
    return ov.constant(np.array(values, np.int64)).output(0)


@translate("sliding_windows")
def sliding_windows(call: Call) -> Output:
    """Every window of ``size`` along ``axis``, as a new dimension behind it."""
    x = call.output("x")
    axis = call.axis("axis", rank=len(x.get_partial_shape()))
    size, stride = call.count("size", least=1), call.count("stride", 1, least=1)
    length = call.shape(x)[axis]
    if size > length:
        raise call.unsupported(f"windows of {size} in {length}")
    count = (length - size) // stride + 1
    check_computed(count, size)
    indices = (np.arange(count)[:, None] * stride + np.arange(size)).astype(np.int32)
    return ov.gather(x, ov.constant(indices), axis).output(0)


@translate("reverse_sequence")
def reverse_sequence(call: Call) -> Output:
    """The first ``lengths[i]`` elements of each sequence backwards, the others as they are."""
    x = call.output("x")
    rank = len(x.get_partial_shape())
    batch, sequence = (call.axis(name, 0, rank=rank) for name in ("batch_axis", "seq_axis"))
    if batch == sequence:
        raise call.unsupported(f"batch_axis={batch} and seq_axis={sequence}")
    lengths = lengths_inside(call, call.output("lengths"), x, sequence)
    return ov.reverse_sequence(x, lengths, batch, sequence).output(0)


@translate("reshape_like")
def reshape_like(call: Call) -> Output:
    """``x`` in the shape that slices of other tensors' shapes make together."""
    bounds = zip(*(call.arrays(name) for name in ("begins", "ends", "end_masks")), strict=True)
    parts = []
    for tensor, (begin, end, open_end) in zip(call.outputs("ref_tensors"), bounds, strict=True):
        rank = len(tensor.get_partial_shape())
        axes = list(range(rank))[int(begin) : None if open_end else int(end)]
        parts.append(ov.gather(ov.shape_of(tensor, "i32"), int_list(axes), 0).output(0))
    return ov.reshape(call.output("x"), ov.concat(parts, 0), False).output(0)

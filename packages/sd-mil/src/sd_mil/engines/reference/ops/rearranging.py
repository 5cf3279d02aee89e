"""Operations that put elements in other places: blocks, windows, sequences."""

from __future__ import annotations

import numpy as np

from sd_mil.engines.reference.ops.windows import padded
from sd_mil.engines.reference.registry import Array, axis_of, check_counts, op
from sd_mil.ir.limits import check_computed


@op("space_to_batch")
def space_to_batch(x: Array, block_shape: Array, paddings: Array) -> Array:
    """Pixels of each position within a block as images of their own: [N, C, H, W] to [b c N, C, H', W']."""
    n, c = x.shape[:2]
    down, across = block_shape.tolist()
    check_counts("paddings", *paddings.ravel())
    check_counts("block_shape", down, across, least=1)
    wider = padded(x, [(int(before), int(after)) for before, after in paddings.reshape(2, 2)])
    h, w = wider.shape[2:]
    blocks = wider.reshape(n, c, h // down, down, w // across, across)
    return blocks.transpose(3, 5, 0, 1, 2, 4).reshape(n * down * across, c, h // down, w // across)


@op("batch_to_space")
def batch_to_space(x: Array, block_shape: Array, crops: Array) -> Array:
    """The inverse of ``space_to_batch``."""
    n, c, h, w = x.shape
    down, across = block_shape.tolist()
    check_counts("block_shape", down, across, least=1)
    blocks = x.reshape(down, across, n // (down * across), c, h, w)
    image = blocks.transpose(2, 3, 4, 0, 5, 1).reshape(n // (down * across), c, h * down, w * across)
    check_counts("crops", *crops.ravel())
    (top, bottom), (left, right) = crops.reshape(2, 2).tolist()
    check_counts("sizes", h * down - top - bottom, w * across - left - right, least=1)
    return np.asarray(image[:, :, top : h * down - bottom, left : w * across - right])


@op("sliding_windows")
def sliding_windows(x: Array, axis: Array, size: Array, stride: Array | int = 1) -> Array:
    """Every window along the axis, as a new axis behind it."""
    position = axis_of(axis, x.ndim)
    check_counts("size and stride", size, stride, least=1)
    check_counts("what is left", x.shape[position] - int(size))
    count = (x.shape[position] - int(size)) // int(stride) + 1
    check_computed(x.size // max(1, x.shape[position]), count, int(size))
    starts = np.arange(count)[:, None] * int(stride)
    return np.asarray(np.take(x, starts + np.arange(int(size)), axis=position))


@op("reverse_sequence")
def reverse_sequence(
    x: Array, lengths: Array, seq_axis: Array | int = 0, batch_axis: Array | int = 0
) -> Array:
    """The first ``lengths[i]`` elements of each sequence backwards, the others as they are."""
    check_counts("lengths", *lengths)
    check_counts("what is left", *(x.shape[int(seq_axis)] - lengths))
    moved = np.moveaxis(x, (int(batch_axis), int(seq_axis)), (0, 1)).copy()
    for row, length in zip(moved, lengths, strict=True):
        row[: int(length)] = row[: int(length)][::-1].copy()
    return np.asarray(np.moveaxis(moved, (0, 1), (int(batch_axis), int(seq_axis))))

"""Operations that put elements in other places: blocks, windows, sequences."""

from __future__ import annotations

import numpy as np

from sd_mil.engines.reference.registry import Array, op


@op("space_to_batch")
def space_to_batch(x: Array, block_shape: Array, paddings: Array) -> Array:
    """Pixels of each position within a block as images of their own: [N, C, H, W] to [b c N, C, H', W']."""
    n, c = x.shape[:2]
    down, across = block_shape.tolist()
    padded = np.pad(x, [(0, 0), (0, 0), *paddings.reshape(2, 2).tolist()])
    h, w = padded.shape[2:]
    blocks = padded.reshape(n, c, h // down, down, w // across, across)
    return blocks.transpose(3, 5, 0, 1, 2, 4).reshape(n * down * across, c, h // down, w // across)


@op("batch_to_space")
def batch_to_space(x: Array, block_shape: Array, crops: Array) -> Array:
    """The inverse of ``space_to_batch``."""
    n, c, h, w = x.shape
    down, across = block_shape.tolist()
    blocks = x.reshape(down, across, n // (down * across), c, h, w)
    image = blocks.transpose(2, 3, 4, 0, 5, 1).reshape(n // (down * across), c, h * down, w * across)
    (top, bottom), (left, right) = crops.reshape(2, 2).tolist()
    return np.asarray(image[:, :, top : h * down - bottom, left : w * across - right])


@op("sliding_windows")
def sliding_windows(x: Array, axis: Array, size: Array, stride: Array | int = 1) -> Array:
    """Every window along the axis, as a new axis behind it."""
    position = int(axis) % x.ndim
    count = (x.shape[position] - int(size)) // int(stride) + 1
    starts = np.arange(count)[:, None] * int(stride)
    return np.asarray(np.take(x, starts + np.arange(int(size)), axis=position))


@op("reverse_sequence")
def reverse_sequence(
    x: Array, lengths: Array, seq_axis: Array | int = 0, batch_axis: Array | int = 0
) -> Array:
    """The first ``lengths[i]`` elements of each sequence backwards, the others as they are."""
    moved = np.moveaxis(x, (int(batch_axis), int(seq_axis)), (0, 1)).copy()
    for row, length in zip(moved, lengths, strict=True):
        row[: int(length)] = row[: int(length)][::-1].copy()
    return np.asarray(np.moveaxis(moved, (0, 1), (int(batch_axis), int(seq_axis))))

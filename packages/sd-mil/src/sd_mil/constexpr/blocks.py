"""Tensors in blocks of equal size, each with a scale or a table of its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def blocks(
    counts: tuple[int, ...], shape: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """The position of every block, and the slices of the tensor that it covers."""
    sizes = block_sizes(counts, shape)
    for position in np.ndindex(*counts):
        pairs = zip(position, sizes, strict=True)
        yield position, tuple(slice(index * size, (index + 1) * size) for index, size in pairs)


def block_sizes(counts: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    """The size of a block along each axis, from how many there are.

    Raises:
        ValueError: they do not divide the shape.
    """
    if len(counts) != len(shape) or any(not n or size % n for n, size in zip(counts, shape, strict=True)):
        raise ValueError(f"expected blocks that divide {list(shape)}, got {list(counts)} of them")
    return [size // count for size, count in zip(shape, counts, strict=True)]

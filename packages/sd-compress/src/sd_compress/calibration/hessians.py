"""Second moments of the inputs of weights: what makes an error of a weight large or small in the output.

A layer computes ``x @ W.T``. An error E of W moves its output by ``x @ E.T``, whose mean square, summed over
the outputs, is trace(E H E.T) with H the mean of ``x.T @ x``: half the second derivative of that error, hence
the name. Where H does not fit it is kept block-diagonal: inputs of different blocks count as uncorrelated.

Legend: O outputs of the layer, n inputs, b inputs of a block.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Hessian:
    """The blocks [b, b] on the diagonal, in the order of the inputs; ``rows`` is how many were averaged."""

    blocks: tuple[Array, ...]
    rows: int

    @classmethod
    def identity(cls, inputs: int) -> Hessian:
        """That of inputs which are alike and uncorrelated: the error is that of the weight itself."""
        return cls((np.eye(inputs, dtype=np.float32),), 0)

    @property
    def inputs(self) -> int:
        """n, over all blocks."""
        return sum(map(len, self.blocks))

    def parts(self) -> Iterator[tuple[slice, Array]]:
        """The inputs of each block, and the block."""
        start = 0
        for block in self.blocks:
            yield slice(start, start + len(block)), block
            start += len(block)

    def diagonal(self) -> Array:
        """The mean square of each input, [n]."""
        return np.concatenate([np.diagonal(block) for block in self.blocks])

    def times(self, errors: Array) -> Array:
        """``errors @ H`` for errors [O, n]."""
        product = np.empty_like(errors)
        for part, block in self.parts():
            product[:, part] = errors[:, part] @ block
        return product

    def noise(self, errors: Array) -> float:
        """trace(E H E.T): the mean square of what ``errors`` [O, n] do to the output, summed over outputs."""
        return max(0.0, float(np.vdot(self.times(errors), errors)))


class Accumulator:
    """Sums ``x.T @ x`` over rows that come a call at a time."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """``sizes`` are those of the blocks."""
        self.sums = [np.zeros((size, size), np.float32) for size in sizes]
        self.rows = 0

    def add(self, rows: Array) -> None:
        """Rows [any, n], float32."""
        start = 0
        for total in self.sums:
            part = np.ascontiguousarray(rows[:, start : start + len(total)])
            total += part.T @ part  # one operand: half the work, and exactly symmetric
            start += len(total)
        self.rows += len(rows)

    def hessian(self) -> Hessian:
        """The mean over all rows."""
        for total in self.sums:
            total /= max(self.rows, 1)
        return Hessian(tuple(self.sums), self.rows)


def block_sizes(inputs: int, taps: int, largest: int) -> tuple[int, ...]:
    """Nearly equal blocks of at most ``largest`` inputs, each of whole channels (of ``taps`` inputs)."""
    channels = inputs // taps
    count = -(-channels // max(1, largest // taps))
    ends = [channels * place // count * taps for place in range(count + 1)]
    return tuple(end - start for start, end in itertools.pairwise(ends))


def largest_block(shapes: Sequence[tuple[int, int]], memory: int) -> int:
    """The largest block for which all Hessians of (inputs, taps) take at most ``memory`` bytes in float32.

    At least the taps of one channel, whatever that takes.
    """
    smallest = max((taps for _, taps in shapes), default=1)
    low, high = smallest, max((inputs for inputs, _ in shapes), default=1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if total_bytes(shapes, middle) <= memory else (low, middle - 1)
    return low


def total_bytes(shapes: Sequence[tuple[int, int]], largest: int) -> int:
    """What Hessians of these (inputs, taps) take, in float32."""
    return sum(4 * size * size for inputs, taps in shapes for size in block_sizes(inputs, taps, largest))

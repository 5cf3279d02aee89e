"""The loops that numpy has no words for, compiled when this module is first imported, and kept by numba.

All run outside Python's lock, so that tensors are compressed in as many threads as there are cores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(signature: str) -> Callable[[_F], _F]:
    """Compile for these types; keep the result on the disk where there is a place for it."""

    def decorate(function: _F) -> _F:
        try:
            kept = numba.njit(signature, cache=True, nogil=True, error_model="numpy")
            return cast(_F, kept(function))
        except RuntimeError:  # neither this package nor the user's cache can be written
            return cast(_F, numba.njit(signature, nogil=True, error_model="numpy")(function))

    return decorate


@compiled("i8[::1](u2[::1])")
def count_words(words: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """How often each of 65,536 words occurs. Two tables, since neighbours are often equal."""
    even, odd = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64)
    for index in range(0, len(words) - 1, 2):
        even[words[index]] += 1
        odd[words[index + 1]] += 1
    if len(words) % 2:
        even[words[-1]] += 1
    return even + odd


@compiled("void(u2[::1], u1[::1], u1[::1])")
def translate(
    words: npt.NDArray[np.uint16], table: npt.NDArray[np.uint8], result: npt.NDArray[np.uint8]
) -> None:
    """``result[i] = table[words[i]]``."""
    for index in range(len(words)):
        result[index] = table[words[index]]


@compiled("Tuple((f8[::1], i4[:, ::1]))(f8[::1], f8[::1], f8[::1], i8, f8)")
def best_prefixes(
    weight: Floats,
    first: Floats,
    second: Floats,
    intervals: int,
    limit: float,
) -> tuple[Floats, npt.NDArray[np.int32]]:
    """The cost of the best ``intervals`` intervals of every prefix, infinite where it exceeds ``limit``.

    ``weight``, ``first``, ``second`` [n + 1] are sums over prefixes. Also, [intervals, n + 1], where the last
    of so many intervals of a prefix starts.
    """
    size = len(weight) - 1
    starts = np.zeros((intervals, size + 1), np.int32)
    costs = np.full(size + 1, np.inf)
    for end in range(1, size + 1):
        costs[end] = second[end] - first[end] * first[end] / weight[end]
        if costs[end] > limit:
            costs[end] = np.inf
            break
    pending = np.empty((64, 4), np.int64)
    for layer in range(1, intervals):
        reached = size
        while costs[reached] == np.inf:
            reached -= 1
        longer = np.full(size + 1, np.inf)
        pending[0] = layer + 1, size, layer, min(reached, size - 1)
        count = 1
        while count:
            count -= 1
            low, high, earliest, latest = pending[count]
            end = (low + high) // 2
            best, chosen = np.inf, earliest
            for start in range(earliest, min(latest, end - 1) + 1):
                difference = first[end] - first[start]
                square = difference * difference / (weight[end] - weight[start])
                cost = costs[start] - second[start] - square
                if cost < best:
                    best, chosen = cost, start
            best += second[end]
            starts[layer, end] = chosen
            if best <= limit:
                longer[end] = best
                if end < high:
                    pending[count] = end + 1, high, chosen, latest
                    count += 1
                if low < end:
                    pending[count] = low, end - 1, earliest, chosen
                    count += 1
            elif low < end:
                pending[count] = low, end - 1, earliest, latest
                count += 1
        costs = longer
    return costs, starts

"""The dynamic programme with a layer for each number of intervals, for where a penalty does not lead to it.

Compiled when this module is first imported, and kept by numba.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._loops import Floats, compiled


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

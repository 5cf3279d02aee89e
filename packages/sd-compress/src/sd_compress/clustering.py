"""Weighted k-means of numbers on a line: its optimum, which dynamic programming finds.

A weight of fp16 has at most 65,536 distinct values, however many elements it has: what is clustered is its
histogram. On a line clusters are intervals, the sum of squares of an interval follows from prefix sums, and
the best last interval of a prefix moves to the right with its end.

The best cost is convex in the number of intervals. So the best partition into so many is one that is best if
each interval costs a penalty, too, and all prefixes of that are found in n log n, whatever the number. The
penalty is found in a few attempts. Where many numbers of intervals belong to one penalty (values that are
evenly spaced, and alike), the programme has a layer for each of them instead: the best ``j`` intervals for
every prefix. Prefixes that cost more than a clustering that is known already are left out, and layers are
counted from both ends, which meet in the middle.

Sources: Wu, "Optimal quantization by matrix searching" (1991); Grønlund et al., arXiv:1701.07204, also for
penalties; Panter and Dite (1951), for how dense the boundaries of good intervals are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

#: Values that are told apart at most. Of fp32 there may be more: neighbours are then clustered as one.
_MOST_VALUES: Final = 1 << 16
_LLOYD_ROUNDS: Final = 8
#: Penalties that are tried before the number of intervals is given up on.
_PENALTIES: Final = 30


@dataclass(frozen=True, slots=True)
class Histogram:
    """Distinct finite values in rising order, and how much each of them counts."""

    values: Floats
    counts: Floats

    @staticmethod
    def of(elements: npt.NDArray[Any]) -> Histogram:
        """That of finite fp16 or fp32; more than 65,536 values of fp32 are merged with their neighbours."""
        flat = np.ascontiguousarray(elements).reshape(-1)
        if flat.dtype != np.float16:
            values, found = np.unique(flat.astype(np.float64), return_counts=True)
            return _merged(values, found.astype(np.float64), _cells(values, found, _MOST_VALUES))
        from ._loops import count_words

        return Histogram.counted(count_words(flat.view(np.uint16)))

    @staticmethod
    def counted(words: npt.NDArray[np.int64]) -> Histogram:
        """That of ``words[i]`` finite numbers of fp16 with the bits ``i``; both zeros are one value."""
        bits = np.flatnonzero(words).astype(np.uint16)
        values, counts = bits.view(np.float16).astype(np.float64), words[bits].astype(np.float64)
        order = np.argsort(values, kind="stable")
        values, counts = values[order], counts[order]
        return _merged(values, counts, np.flatnonzero(np.diff(values, prepend=-np.inf)))

    def coarser(self, most: int) -> Histogram:
        """At most ``most`` values, each the mean of neighbours; those that are rare and far apart stay."""
        return _merged(self.values, self.counts, _cells(self.values, self.counts, most))


def _merged(values: Floats, counts: Floats, starts: npt.NDArray[Any]) -> Histogram:
    if len(starts) == len(values):
        return Histogram(values, counts)
    sums = np.add.reduceat(counts, starts)
    return Histogram(np.add.reduceat(values * counts, starts) / sums, sums)


def _cells(values: Floats, counts: npt.NDArray[Any], most: int) -> Integers:
    """Where at most ``most`` cells begin, dense where boundaries of clusters will be.

    In the limit of many clusters their density is that of the values to the power of 1/3.
    """
    if len(values) <= most:
        return np.arange(len(values))
    gaps = np.gradient(values)
    measure = np.cumsum(np.cbrt(counts * gaps * gaps))
    inner = np.searchsorted(measure, np.linspace(0, measure[-1], most + 1)[1:-1])
    return np.unique(np.append(0, np.minimum(inner, len(values) - 1)))


def kmeans(histogram: Histogram, clusters: int) -> Floats:
    """The centres, in rising order, of the ``clusters`` clusters of least sum of squared distances.

    Where there are fewer values than that, the values are the centres.
    """
    if len(histogram.values) <= clusters:
        return histogram.values
    sums = _Sums.of(histogram)
    known = _good_cost(histogram, sums, clusters)
    edges = _by_penalty(sums, clusters, known)
    return sums.means(_by_layers(sums, clusters, known) if edges is None else edges)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of weights, values and squares over the first i values, for all i: three arrays of n + 1."""

    weight: Floats
    first: Floats
    second: Floats
    origin: float

    @staticmethod
    def of(histogram: Histogram) -> _Sums:
        """Values are taken from their mean, so that differences of sums keep their digits."""
        counts = histogram.counts
        origin = float(np.average(histogram.values, weights=counts))
        values = histogram.values - origin
        weight, first, second = (
            np.concatenate([[0.0], np.cumsum(counts * values**power)]) for power in (0, 1, 2)
        )
        return _Sums(weight, first, second, origin)

    def reversed(self) -> _Sums:
        """Over the last i values."""
        weight, first, second = (
            np.ascontiguousarray((one[-1] - one)[::-1]) for one in (self.weight, self.first, self.second)
        )
        return _Sums(weight, first, second, self.origin)

    def cost(self, edges: Integers) -> float:
        """The sum of squared distances to the means of the intervals between neighbouring edges."""
        weight, first = np.diff(self.weight[edges]), np.diff(self.first[edges])
        return float(self.second[-1] - np.sum(first * first / weight))

    def means(self, edges: Integers) -> Floats:
        """Of the intervals."""
        return self.origin + np.diff(self.first[edges]) / np.diff(self.weight[edges])


def _good_cost(histogram: Histogram, sums: _Sums, clusters: int) -> float:
    """What some good clustering costs: that which is best in the limit, and a few rounds of Lloyd's."""
    values = histogram.values
    edges = np.append(_cells(values, histogram.counts, clusters), len(values))
    cost = sums.cost(edges)
    for _ in range(_LLOYD_ROUNDS):
        centres = sums.means(edges)
        inner = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        edges = np.unique(np.concatenate([[0], inner, [len(values)]]))
        cost = min(cost, sums.cost(edges))
    return cost


def _by_penalty(sums: _Sums, clusters: int, known: float) -> Integers | None:
    """0, the boundaries of the best intervals, and n; None if no penalty leads to so many intervals.

    Of k intervals the cost falls about as 1 / k ** 2, which ``known`` is about at ``clusters``; a penalty is
    what one more interval takes away from it.
    """
    from ._loops import best_partition

    least, most = 0.0, np.inf
    penalty = 2 * known / clusters
    for _ in range(_PENALTIES):
        if not least < penalty < most:
            return None
        edges = _edges(best_partition(sums.weight, sums.first, penalty))
        count = len(edges) - 1
        if count == clusters:
            return edges
        least, most = (penalty, most) if count > clusters else (least, penalty)
        guess = penalty * (count / clusters) ** 3
        penalty = guess if least < guess < most else (least + min(most, 4 * penalty)) / 2
    return None


def _edges(origins: npt.NDArray[np.int32]) -> Integers:
    """0, the boundaries of the intervals of all values, and n, by where the last interval of each starts."""
    edges = [len(origins) - 1]
    while edges[-1]:
        edges.append(int(origins[edges[-1]]))
    return np.array(edges[::-1])


def _by_layers(sums: _Sums, clusters: int, known: float) -> Integers:
    """As :func:`_by_penalty`, for any number; some clustering costs no more than ``known``."""
    from ._layers import best_prefixes

    limit = known * (1 + 1e-9) + 1e-12 * sums.second[-1]
    left, right = clusters - clusters // 2, clusters // 2
    size = len(sums.weight) - 1
    ahead, ahead_from = best_prefixes(sums.weight, sums.first, sums.second, left, limit)
    if not right:
        return np.array([0, size])
    back = sums.reversed()
    behind, behind_from = best_prefixes(back.weight, back.first, back.second, right, limit)
    middle = int(np.argmin(ahead + behind[::-1]))
    before = _followed(ahead_from, middle)
    after = size - _followed(behind_from, size - middle)[::-1]
    return np.concatenate([before, after[1:]])


def _followed(origins: npt.NDArray[np.int32], end: int) -> Integers:
    """The edges that lead to ``end``, from 0, by the start of the last interval in every layer."""
    edges = [end]
    for layer in origins[::-1]:
        edges.append(int(layer[edges[-1]]))
    return np.array(edges[::-1])

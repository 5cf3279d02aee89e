"""k-means of vectors: k-means++ to begin with, Lloyd's iterations, the best of several starts.

Source: Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding" (2007).
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]

_RESTARTS: Final = 3
_ROUNDS: Final = 40
#: Vectors that the starts are tried on; the best is then improved on all of them.
_SAMPLE: Final = 1 << 14
#: Vectors whose distances to all centres are computed at a time.
_CHUNK: Final = 1 << 13


def kmeans_vectors(vectors: npt.NDArray[Any], clusters: int) -> Floats:
    """At most ``clusters`` centres [.., size] with a small sum of squares to ``vectors`` [count, size].

    Equal vectors give equal centres: what is random follows from a fixed seed.
    """
    points = np.ascontiguousarray(vectors, dtype=np.float32)
    random = np.random.default_rng(0)
    sample = points
    if len(points) > _SAMPLE:
        sample = points[random.choice(len(points), _SAMPLE, replace=False)]
    starts = (_lloyd(sample, _seeds(sample, clusters, random)) for _ in range(_RESTARTS))
    _, best = min(starts, key=lambda found: found[0])
    return best if sample is points else _lloyd(points, best)[1]


def nearest(points: Floats, centres: Floats) -> tuple[npt.NDArray[np.intp], float]:
    """The index of the centre next to each point [count], and the sum of squared distances."""
    squares = (centres * centres).sum(axis=1)
    labels = np.empty(len(points), np.intp)
    total = 0.0
    for start in range(0, len(points), _CHUNK):
        chunk = points[start : start + _CHUNK]
        distances = squares - 2 * (chunk @ centres.T)
        chosen = distances.argmin(axis=1)
        labels[start : start + len(chunk)] = chosen
        total += float(((chunk - centres[chosen]) ** 2).sum(dtype=np.float64))
    return labels, total


def _seeds(points: Floats, clusters: int, random: np.random.Generator) -> Floats:
    """Points drawn one after another, each in proportion to its squared distance from those before."""
    seeds = [points[random.integers(len(points))]]
    distances = np.full(len(points), np.inf)
    while len(seeds) < clusters:
        distances = np.minimum(distances, ((points - seeds[-1]) ** 2).sum(axis=1))
        if not (total := distances.sum()):
            break
        seeds.append(points[np.searchsorted(np.cumsum(distances), random.random() * total)])
    return np.array(seeds)


def _lloyd(points: Floats, centres: Floats) -> tuple[float, Floats]:
    """Centres moved to the means of their points until that gains little; empty ones stay where they are."""
    previous = np.inf
    for _ in range(_ROUNDS):
        labels, cost = nearest(points, centres)
        if cost >= previous * (1 - 1e-4):
            return cost, centres
        counts = np.bincount(labels, minlength=len(centres))
        sums = [np.bincount(labels, column, minlength=len(centres)) for column in points.T]
        means = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
        centres = np.where(counts[:, None] > 0, means, centres).astype(np.float32)
        previous = cost
    return nearest(points, centres)[1], centres

"""Random numbers, from numpy's generator: Core ML's own are others.

A seed of -1, which lets Core ML choose, is 0 here: equal inputs give equal outputs.
"""

from __future__ import annotations

import numpy as np

from sd_mil.engines.reference.registry import Array, check_counts, op
from sd_mil.ir.limits import check_computed


@op("random_uniform")
def random_uniform(
    shape: Array, low: Array | float = 0.0, high: Array | float = 1.0, seed: Array | int = -1
) -> Array:
    """Uniform in [low, high). Core ML's own numbers differ."""
    drawn = _generator(seed).random(_sizes(shape), np.float32)
    return np.asarray(np.float32(low) + drawn * np.float32(np.float32(high) - np.float32(low)))


@op("random_normal")
def random_normal(
    shape: Array, mean: Array | float = 0.0, stddev: Array | float = 1.0, seed: Array | int = -1
) -> Array:
    """Normal. Core ML's own numbers differ."""
    drawn = _generator(seed).standard_normal(_sizes(shape), np.float32)
    return np.asarray(np.float32(mean) + drawn * np.float32(stddev))


@op("random_bernoulli")
def random_bernoulli(shape: Array, prob: Array | float = 0.5, seed: Array | int = -1) -> Array:
    """1 with the given probability, else 0. Core ML's own numbers differ."""
    return (_generator(seed).random(_sizes(shape), np.float32) < prob).astype(np.float32)


@op("random_categorical", choices={"mode": ("logits", "probs")})
def random_categorical(
    x: Array, mode: str = "logits", size: Array | int = 1, seed: Array | int = -1
) -> Array:
    """Indices along the last axis, drawn with replacement. Core ML's own numbers differ."""
    check_counts("size", size, least=1)
    check_computed(x.size, int(size))  # each number is compared to each edge
    logits = np.log(x) if mode == "probs" else x
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True)).astype(np.float64)
    edges = np.cumsum(weights, axis=-1)
    drawn = _generator(seed).random((*x.shape[:-1], int(size))) * edges[..., -1:]
    return np.asarray((drawn[..., None] >= edges[..., None, :-1]).sum(axis=-1), np.float32)


def _generator(seed: Array | int) -> np.random.Generator:
    return np.random.default_rng(max(0, int(seed)))


def _sizes(shape: Array) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape)
    check_counts("sizes", *sizes)
    check_computed(*sizes)
    return sizes

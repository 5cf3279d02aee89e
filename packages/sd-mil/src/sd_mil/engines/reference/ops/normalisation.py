"""Normalisations."""

from __future__ import annotations

import numpy as np

from sd_mil.engines.reference.registry import Array, axis_of, check_counts, mean_of, op
from sd_mil.ir.limits import check_broadcast, check_computed


@op("batch_norm")
def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | float = 1e-5,
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, with stored statistics per channel (axis 1)."""
    shape = (-1, *[1] * (x.ndim - 2))
    check_broadcast(x.shape, mean.reshape(shape).shape, variance.reshape(shape).shape)
    scaled = (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + np.float32(epsilon))
    return _affine(scaled, gamma, beta, shape)


@op("instance_norm")
def instance_norm(
    x: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: Array | float = 1e-5
) -> Array:
    """Each channel of each image to zero mean and unit variance, then gamma and beta per channel."""
    return _affine(_standardised(x, tuple(range(2, x.ndim)), epsilon), gamma, beta, (-1, *[1] * (x.ndim - 2)))


@op("layer_norm")
def layer_norm(
    x: Array,
    axes: Array | None = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | float = 1e-5,
) -> Array:
    """Zero mean and unit variance over the axes, then gamma and beta, which have the axes' sizes.

    Source: arXiv:1607.06450, equation 4; epsilon is inside the root.
    """
    chosen = sorted(range(x.ndim) if axes is None else (axis_of(axis, x.ndim) for axis in axes))
    shape = tuple(size if axis in chosen else 1 for axis, size in enumerate(x.shape))
    return _affine(_standardised(x, tuple(chosen), epsilon), gamma, beta, shape)


@op("l2_norm")
def l2_norm(x: Array, epsilon: Array | float = 1e-6) -> Array:
    """x / sqrt(sum of squares over the last three axes + epsilon)."""
    return np.asarray(x / np.sqrt(np.square(x).sum(axis=(-3, -2, -1), keepdims=True) + np.float32(epsilon)))


@op("local_response_norm")
def local_response_norm(
    x: Array,
    size: Array,
    alpha: Array | float = 1e-4,
    beta: Array | float = 0.75,
    k: Array | float = 1.0,
) -> Array:
    """x / (k + alpha / size * sum of squares over neighbouring channels) ** beta.

    Source: Krizhevsky, Sutskever and Hinton, 2012, section 3.3, with the mean in the place of the sum.
    """
    width = int(size)
    check_counts("size", width, least=1)
    check_computed(x.size, 1 + width / max(1, x.shape[1]), 2)
    around = [(0, 0), (width // 2, (width - 1) // 2), *[(0, 0)] * (x.ndim - 2)]
    squares = np.cumsum(np.pad(np.square(x, dtype=np.float64), around), axis=1)
    sums = squares[:, width - 1 :].copy()
    sums[:, 1:] -= squares[:, :-width]
    return np.asarray(x / (k + np.float32(alpha) / width * sums.astype(np.float32)) ** np.float32(beta))


def _standardised(x: Array, axes: tuple[int, ...], epsilon: Array | float) -> Array:
    centred = x - mean_of(x, axes, keepdims=True)
    variance = mean_of(np.square(centred), axes, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + np.float32(epsilon)))


def _affine(x: Array, gamma: Array | None, beta: Array | None, shape: tuple[int, ...]) -> Array:
    given = [one.reshape(shape) for one in (gamma, beta) if one is not None]
    check_broadcast(x.shape, *(one.shape for one in given))
    scaled = x if gamma is None else x * gamma.reshape(shape)
    return scaled if beta is None else scaled + beta.reshape(shape)

"""Reductions over axes; all axes when none are given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sd_mil.engines.reference.registry import Array, mean_of, op


def _log_sum_exp(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    largest = np.nan_to_num(x.max(axis=axis, keepdims=True))  # an infinite one cannot be subtracted
    total = np.log(np.exp(x - largest).sum(axis=axis, keepdims=True)) + largest
    return np.asarray(total if keepdims else total.squeeze(axis))


_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "reduce_l1_norm": lambda x, axis, keepdims: np.abs(x).sum(axis=axis, keepdims=keepdims),
    "reduce_l2_norm": lambda x, axis, keepdims: np.sqrt(np.square(x).sum(axis=axis, keepdims=keepdims)),
    "reduce_log_sum": lambda x, axis, keepdims: np.log(x.sum(axis=axis, keepdims=keepdims)),
    "reduce_log_sum_exp": _log_sum_exp,
    "reduce_max": lambda x, axis, keepdims: x.max(axis=axis, keepdims=keepdims),
    "reduce_mean": lambda x, axis, keepdims: mean_of(x, axis, keepdims=keepdims),
    "reduce_min": lambda x, axis, keepdims: x.min(axis=axis, keepdims=keepdims),
    "reduce_prod": lambda x, axis, keepdims: x.prod(axis=axis, keepdims=keepdims),
    "reduce_sum": lambda x, axis, keepdims: x.sum(axis=axis, keepdims=keepdims),
    "reduce_sum_square": lambda x, axis, keepdims: np.square(x).sum(axis=axis, keepdims=keepdims),
}


def _reduction(compute: Callable[..., Array]) -> Callable[..., Array]:
    def reduce(x: Array, axes: Array | None = None, keep_dims: Array | bool = False) -> Array:
        axis = None if axes is None else tuple(int(one) for one in axes)
        return np.asarray(compute(x, axis=axis, keepdims=bool(keep_dims)))

    return reduce


for _name, _compute in _REDUCTIONS.items():
    op(_name)(_reduction(_compute))


@op("reduce_argmax", ignored=("output_dtype",))
def reduce_argmax(x: Array, axis: Array | int = -1, keep_dims: Array | bool = False) -> Array:
    """Where the maximum is: the first, where there are several."""
    return np.asarray(np.argmax(x, axis=int(axis), keepdims=bool(keep_dims)))


@op("reduce_argmin", ignored=("output_dtype",))
def reduce_argmin(x: Array, axis: Array | int = -1, keep_dims: Array | bool = False) -> Array:
    """Where the minimum is: the first, where there are several."""
    return np.asarray(np.argmin(x, axis=int(axis), keepdims=bool(keep_dims)))


@op("cumsum")
def cumsum(
    x: Array, axis: Array | int = 0, exclusive: Array | bool = False, reverse: Array | bool = False
) -> Array:
    """The running sum; exclusive leaves the element itself out, reverse runs from the end."""
    forward = np.flip(x, int(axis)) if reverse else x
    total = np.cumsum(forward, axis=int(axis)) - (forward if exclusive else 0)
    return np.flip(total, int(axis)) if reverse else total

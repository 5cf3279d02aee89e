"""Magnitude pruning: which elements stay."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .errors import UnsuitableError
from .palettes import check_finite
from .schemes import Prune
from .weights import Array, Weight


def kept_elements(weight: Weight, values: Array, scheme: Prune) -> npt.NDArray[np.bool_]:
    """True, in the weight's shape, for the elements that pruning leaves; zeros are never among them.

    Of equal magnitudes the first stay. At least one element stays.

    Raises:
        UnsuitableError: elements that are not finite, or inputs that are not divisible by m.
    """
    check_finite(values)
    magnitudes = np.abs(values)
    if scheme.n_m is None:
        kept = _largest(magnitudes, round((1 - (scheme.sparsity or 0)) * values.size))
    else:
        kept = _largest_of_each(weight, magnitudes, scheme.n_m)
    kept = np.logical_and(kept, magnitudes > 0)
    if not kept.any():
        kept.reshape(-1)[0] = True
    return kept


def _largest(magnitudes: Array, count: int) -> npt.NDArray[np.bool_]:
    flat = magnitudes.reshape(-1)
    if count >= flat.size:
        return np.ones(magnitudes.shape, np.bool_)
    least = np.partition(flat, flat.size - count - 1)[flat.size - count - 1]  # the largest that goes
    kept: npt.NDArray[np.bool_] = flat > least
    equal = np.flatnonzero(flat == least)
    kept[equal[: count - int(kept.sum())]] = True
    return kept.reshape(magnitudes.shape)


def _largest_of_each(weight: Weight, magnitudes: Array, n_m: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """All but the n smallest of every m neighbouring inputs."""
    n, m = n_m
    axis = weight.input_axis
    if weight.shape[axis] % m:
        raise UnsuitableError(f"{weight.shape[axis]} inputs are not divisible by {m}")
    moved = np.moveaxis(magnitudes, axis, -1)
    blocks = moved.reshape(*moved.shape[:-1], -1, m)
    order = np.argsort(-blocks, axis=-1, kind="stable")
    kept: npt.NDArray[np.bool_] = np.zeros(blocks.shape, np.bool_)
    np.put_along_axis(kept, order[..., : m - n], True, axis=-1)
    whole: npt.NDArray[np.bool_] = np.moveaxis(kept.reshape(moved.shape), -1, axis)
    return np.ascontiguousarray(whole)

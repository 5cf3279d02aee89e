"""The best palette of a weight: which numbers are in the table, and which of them stands for an element."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .clustering import Histogram, kmeans
from .errors import UnsuitableError
from .granularity import PerGroupedChannel
from .schemes import Palette, Palettize
from .vectors import kmeans_vectors, nearest
from .weights import Array, Weight

#: Elements from which on a table of all fp16 numbers is quicker than a search for each of them.
_MANY: Final = 1 << 16


def optimal_palette(weight: Weight, scheme: Palettize) -> Palette:
    """The palette with the least sum of squared errors; of vectors, a good one.

    Shapes:
        ``tables`` [groups, 2 ** nbits], ascending; the last number is repeated where there are fewer.

    Raises:
        UnsuitableError: elements that are not finite, or groups or vectors that do not divide the channels.
    """
    return palette_of(weight, weight.read(), scheme)


def palette_of(
    weight: Weight, values: Array, scheme: Palettize, mask: npt.NDArray[np.bool_] | None = None
) -> Palette:
    """As :func:`optimal_palette`, of ``values`` of the weight's shape; only those in ``mask`` count."""
    check_finite(values)
    axis = group_axis(weight, scheme)
    groups = count_groups(weight, scheme)
    scales, scaled = _scaled(weight, values, scheme)
    if scheme.vector_size > 1:
        return _of_vectors(weight, scaled, scheme, scales)
    indices = np.empty(weight.shape, np.uint8)
    tables = np.empty((groups, 1 << scheme.nbits), values.dtype)
    for table, part in zip(tables, _parts(groups, axis, weight.shape), strict=True):
        elements = scaled[part]
        counted = elements if mask is None else elements[mask[part]]
        centres = kmeans(Histogram.of(counted), len(table)) if counted.size else np.zeros(1)
        centres = np.unique(centres.astype(values.dtype))
        table[:] = centres[-1]
        table[: len(centres)] = centres
        indices[part] = nearest_entries(elements, centres)
    return Palette(tables, indices, axis, None, scales, weight.output_axis)


def nearest_entries(elements: Array, table: Array) -> npt.NDArray[np.uint8]:
    """The index of the entry of an ascending ``table`` next to each element, in the elements' shape."""
    middles = (table[1:].astype(np.float64) + table[:-1]) / 2
    if elements.dtype != np.float16 or elements.size < _MANY:
        return np.searchsorted(middles, elements.reshape(-1)).astype(np.uint8).reshape(elements.shape)
    from ._loops import translate

    result = np.empty(elements.size, np.uint8)
    words = np.ascontiguousarray(elements).reshape(-1).view(np.uint16)
    translate(words, np.searchsorted(middles, _all_halves()).astype(np.uint8), result)
    return result.reshape(elements.shape)


@cache
def _all_halves() -> Array:
    """Every fp16 number, by its bits."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)


def check_finite(values: Array) -> None:
    """Refuse weights that no table and no scale can hold.

    Raises:
        UnsuitableError: an infinity, or what is not a number.
    """
    if values.dtype == np.float16:
        from ._loops import are_finite

        is_finite = are_finite(np.ascontiguousarray(values).reshape(-1).view(np.uint16))
    else:
        is_finite = bool(np.isfinite(values).all())
    if not is_finite:
        raise UnsuitableError("not all elements are finite")


def group_axis(weight: Weight, scheme: Palettize) -> int:
    """The axis along which groups of channels have a table each."""
    chosen = scheme.granularity.axis if isinstance(scheme.granularity, PerGroupedChannel) else None
    if chosen is not None and chosen >= len(weight.shape):
        raise UnsuitableError(f"axis {chosen} of {len(weight.shape)}")
    return weight.output_axis if chosen is None else chosen


def count_groups(weight: Weight, scheme: Palettize) -> int:
    """How many tables there are.

    Raises:
        UnsuitableError: the groups do not divide the channels, or the vectors not the groups.
    """
    axis = group_axis(weight, scheme)
    channels, vector = weight.shape[axis], scheme.vector_size
    size = channels
    if isinstance(scheme.granularity, PerGroupedChannel):
        size = min(scheme.granularity.group_size, channels)
    if channels % size:
        raise UnsuitableError(f"{channels} channels are not divisible by groups of {size}")
    if (size if axis == weight.output_axis else weight.shape[weight.output_axis]) % vector:
        raise UnsuitableError(f"groups of {size} channels are not divisible by vectors of {vector}")
    return channels // size


def _parts(groups: int, axis: int, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """The slices of the weight that each group covers."""
    size = shape[axis] // groups
    for group in range(groups):
        part = slice(group * size, (group + 1) * size)
        yield tuple(part if number == axis else slice(None) for number in range(len(shape)))


def _scaled(weight: Weight, values: Array, scheme: Palettize) -> tuple[Array | None, Array]:
    """The largest magnitude of each output channel, where there are scales; the values divided by it."""
    if not scheme.per_channel_scale:
        return None, values
    others = tuple(axis for axis in range(values.ndim) if axis != weight.output_axis)
    scales = np.abs(values).max(axis=others, keepdims=True)
    scales[scales == 0] = 1
    return scales.reshape(-1), (values.astype(np.float32) / scales).astype(values.dtype)


def _of_vectors(weight: Weight, values: Array, scheme: Palettize, scales: Array | None) -> Palette:
    """Neighbouring output channels share an index."""
    axis, size, vector_axis = group_axis(weight, scheme), scheme.vector_size, weight.output_axis
    groups = count_groups(weight, scheme)
    shape = list(weight.shape)
    shape[vector_axis] //= size
    split = [*shape[: vector_axis + 1], size, *shape[vector_axis + 1 :]]
    vectors = np.moveaxis(values.reshape(split), vector_axis + 1, -1)  # [*indices, vector]
    indices = np.empty(shape, np.uint8)
    tables: npt.NDArray[Any] = np.empty((groups, 1 << scheme.nbits, size), values.dtype)
    for table, part in zip(tables, _parts(groups, axis, tuple(shape)), strict=True):
        points = np.ascontiguousarray(vectors[part]).reshape(-1, size).astype(np.float32)
        centres = kmeans_vectors(points, len(table)).astype(values.dtype)
        table[:] = centres[-1]
        table[: len(centres)] = centres
        labels, _ = nearest(points, centres.astype(np.float32))
        indices[part] = labels.reshape(indices[part].shape)
    return Palette(tables, indices, axis, vector_axis, scales, weight.output_axis)

"""The loops of calibrated palettes, compiled; outside Python's lock, as those of :mod:`sd_compress._loops`.

Legend: O outputs, n inputs; G tables of k entries of v outputs; groups and scales are those of ``Tables``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from sd_compress._loops import compiled

Array: TypeAlias = npt.NDArray[Any]

_TABLES = "f4[:, :, ::1], i8[::1], i8[::1], f4[::1], f4[::1]"


@numba.njit(nogil=True)
def _nearest(entries: Array, wanted: Array) -> int:
    """Of entries [k, v], which ascend if v is 1."""
    count, width = entries.shape
    if width == 1:
        low, high = 0, count - 1
        while low < high:
            middle = (low + high) // 2
            if wanted[0] > (np.float64(entries[middle, 0]) + entries[middle + 1, 0]) / 2:
                low = middle + 1
            else:
                high = middle
        return low
    best, least = 0, np.inf
    for place in range(count):
        distance = 0.0
        for lane in range(width):
            distance += (wanted[lane] - entries[place, lane]) ** 2
        if distance < least:
            best, least = place, distance
    return best


@compiled(f"void(f4[:, ::1], f4[:, ::1], f4[:, ::1], {_TABLES}, u1[:, ::1], f4[:, ::1])")
def round_inputs(
    weights: Array,
    made_up: Array,
    upper: Array,
    entries: Array,
    row_groups: Array,
    column_groups: Array,
    row_scales: Array,
    column_scales: Array,
    indices: Array,
    errors: Array,
) -> None:
    """Round neighbouring inputs one after the other, each making up for the errors of those before it.

    ``weights`` [O, s]; ``made_up`` [O, s]: what makes up for inputs before these, changed on the way;
    ``upper`` [s, s]. Fills ``indices`` [O / v, s] and ``errors`` [O, s].
    """
    width, count = entries.shape[2], weights.shape[1]
    wanted = np.empty(width)
    for row in range(len(row_groups)):
        for column in range(count):
            group = row_groups[row] + column_groups[column]
            for lane in range(width):
                output = row * width + lane
                scale = np.float64(row_scales[output]) * column_scales[column]
                target = weights[output, column] + made_up[output, column]
                wanted[lane] = target / scale if scale != 0 else target
            place = _nearest(entries[group], wanted)
            indices[row, column] = place
            for lane in range(width):
                output = row * width + lane
                scale = row_scales[output] * column_scales[column]
                error = weights[output, column] - entries[group, place, lane] * scale
                errors[output, column] = error
                for later in range(column + 1, count):
                    made_up[output, later] += error * upper[column, later]


@compiled(f"void({_TABLES}, u1[:, ::1], f4[:, ::1])")
def decode(
    entries: Array,
    row_groups: Array,
    column_groups: Array,
    row_scales: Array,
    column_scales: Array,
    indices: Array,
    matrix: Array,
) -> None:
    """Fill ``matrix`` [O, n] with what ``indices`` [O / v, n] stand for."""
    width = entries.shape[2]
    for output in range(matrix.shape[0]):
        row, lane = output // width, output % width
        for column in range(matrix.shape[1]):
            group = row_groups[row] + column_groups[column]
            scale = row_scales[output] * column_scales[column]
            matrix[output, column] = entries[group, indices[row, column], lane] * scale


@compiled(f"void(f4[:, ::1], {_TABLES}, u1[:, ::1], f8[:, :, ::1])")
def gather(
    matrix: Array,
    entries: Array,
    row_groups: Array,
    column_groups: Array,
    row_scales: Array,
    column_scales: Array,
    indices: Array,
    sums: Array,
) -> None:
    """Add to ``sums`` [G, k, v] the scaled ``matrix`` [O, n] of the places where each entry stands."""
    width = entries.shape[2]
    for output in range(matrix.shape[0]):
        row, lane = output // width, output % width
        for column in range(matrix.shape[1]):
            group = row_groups[row] + column_groups[column]
            scale = row_scales[output] * column_scales[column]
            sums[group, indices[row, column], lane] += matrix[output, column] * scale

"""The tables of a palette as a linear map: from their entries to the matrix that a layer computes with.

Legend: O outputs, n inputs of the layer; G tables of k entries, each a vector of v outputs (1 if scalar).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_compress.errors import UnsupportedFormError
from sd_compress.schemes import Palette
from sd_compress.weights import Weight

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tables:
    """What indices stand for: entries of table ``row_groups[r] + column_groups[j]``, for row r and input j.

    Shapes: entries [G, k, v], ascending along k where v is 1; row_groups [O / v] and column_groups [n], of
    which one is all 0; row_scales [O] and column_scales [n] multiply what is decoded.
    """

    entries: Array
    row_groups: Array
    column_groups: Array
    row_scales: Array
    column_scales: Array
    _edges: Array = field(init=False, repr=False)
    _span: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Lay the midpoints of all tables on one line, so that one search finds a place in any of them."""
        if self.vector > 1:
            return
        tables = self.entries[:, :, 0].astype(np.float64)
        edges = (tables[:, 1:] + tables[:, :-1]) / 2
        span = 4 * float(np.abs(tables).max()) + 1
        object.__setattr__(self, "_edges", (edges + span * np.arange(len(edges))[:, None]).ravel())
        object.__setattr__(self, "_span", span)

    @property
    def rows(self) -> int:
        """Of the indices: O / v."""
        return len(self.row_groups)

    @property
    def vector(self) -> int:
        """Outputs that share an index."""
        return int(self.entries.shape[2])

    def rounded(self, entries: Array, dtype: npt.DTypeLike) -> Tables:
        """The same with other entries, as ``dtype`` holds them; out of order until :meth:`in_order`."""
        return replace(self, entries=entries.astype(dtype).astype(np.float32))

    def in_order(self, indices: Array) -> tuple[Tables, Array]:
        """The same with entries that ascend, and ``indices`` that stand for the same as before."""
        if self.vector > 1:
            return self, indices
        order = np.argsort(self.entries[:, :, 0], axis=1, kind="stable")
        ranks = np.argsort(order, axis=1).astype(np.uint8)
        entries = np.take_along_axis(self.entries, order[:, :, None], axis=1)
        return replace(self, entries=entries), ranks[self._groups(), indices]

    def nearest(self, values: Array, column: int) -> tuple[Array, Array]:
        """Indices [O / v] of what is nearest to ``values`` [O] of an input, and what they stand for [O]."""
        scales = self.row_scales * self.column_scales[column]
        wanted = values / np.where(scales == 0, 1, scales)
        groups = self.row_groups + self.column_groups[column]
        find = self._nearest_scalars if self.vector == 1 else self._nearest_vectors
        indices = find(wanted, groups)
        return indices, self.entries[groups, indices].reshape(-1) * scales

    def decode(self, indices: Array, entries: Array | None = None) -> Array:
        """The matrix [O, n] of ``indices`` [O / v, n], with ``entries`` in the place of its own if given."""
        values = (self.entries if entries is None else entries)[self._groups(), indices]  # [O / v, n, v]
        return self.scaled(np.moveaxis(values, 2, 1).reshape(-1, values.shape[1]))

    def gather(self, matrix: Array, indices: Array) -> Array:
        """The adjoint of :meth:`decode`: for each entry, the sum of ``matrix`` [O, n] where it stands."""
        spread = self.scaled(matrix).reshape(self.rows, self.vector, -1)
        places = (self._groups() * self.entries.shape[1] + indices).ravel()
        size = self.entries.shape[0] * self.entries.shape[1]
        sums = [np.bincount(places, spread[:, lane].ravel(), size) for lane in range(self.vector)]
        return np.stack(sums, axis=-1).reshape(self.entries.shape)

    def scaled(self, matrix: Array) -> Array:
        """``matrix`` [O, n] times the scales."""
        return matrix * self.row_scales[:, None] * self.column_scales

    def _nearest_scalars(self, wanted: Array, groups: Array) -> Array:
        """Values beyond the ends of a table stay on its part of the line."""
        bound = self._span / 2
        places: Array = np.searchsorted(self._edges, np.clip(wanted, -bound, bound) + groups * self._span)
        places -= groups * (self.entries.shape[1] - 1)
        return places

    def _nearest_vectors(self, wanted: Array, groups: Array) -> Array:
        entries = self.entries[groups]  # [O / v, k, v]
        products = np.einsum("rkv,rv->rk", entries, wanted.reshape(self.rows, self.vector))
        nearest: Array = np.argmin(np.square(entries).sum(axis=2) - 2 * products, axis=1)
        return nearest

    def _groups(self) -> Array:
        return self.row_groups[:, None] + self.column_groups


def tables_of(weight: Weight, palette: Palette) -> Tables:
    """The tables of a palette of ``weight``.

    Raises:
        UnsupportedFormError: vectors that do not run over the outputs of the layer.
    """
    vector = 1 if palette.vector_axis is None else int(palette.tables.shape[-1])
    if vector > 1 and (palette.vector_axis != weight.output_axis or weight.kind == "conv_transpose"):
        raise UnsupportedFormError(
            f"expected vectors along the output channels of {weight.name!r} (a {weight.kind}) for a "
            f"calibrated palette, got vectors along axis {palette.vector_axis}"
        )
    count = len(palette.tables)
    labels = np.repeat(np.arange(count), weight.shape[palette.axis] // count)
    row_groups, column_groups = _spread(weight, palette.axis, labels, neutral=0)
    scales = np.ones(1) if palette.scales is None else palette.scales.reshape(-1)
    row_scales, column_scales = _spread(weight, palette.scale_axis, scales.astype(np.float32), neutral=1)
    entries = palette.tables.reshape(count, -1, vector).astype(np.float32)
    return Tables(entries, row_groups[::vector], column_groups, row_scales, column_scales)


def palette_of(weight: Weight, palette: Palette, tables: Tables, indices: Array) -> Palette:
    """``palette`` with other entries and indices, in the form that :func:`tables_of` has given them."""
    whole = weight.tensor(np.repeat(indices, tables.vector, axis=0))
    if palette.vector_axis is not None:
        kept = [slice(None)] * whole.ndim
        kept[palette.vector_axis] = slice(None, None, tables.vector)
        whole = whole[tuple(kept)]
    entries = tables.entries.reshape(palette.tables.shape)
    return replace(palette, tables=entries, indices=np.ascontiguousarray(whole, np.uint8))


def _spread(weight: Weight, axis: int, values: Array, *, neutral: float) -> tuple[Array, Array]:
    """Values of the channels along an axis of the weight, for the rows and columns of its matrix."""
    outputs, inputs = _matrix_shape(weight)
    rows, columns = np.full(outputs, neutral, values.dtype), np.full(inputs, neutral, values.dtype)
    if axis == weight.output_axis:
        return np.repeat(values, outputs // len(values)), columns
    return rows, np.repeat(values, inputs // len(values))


def _matrix_shape(weight: Weight) -> tuple[int, int]:
    channels = weight.shape[weight.input_axis]
    is_patch = weight.kind not in ("matmul", "conv_transpose")
    inputs = weight.elements // weight.shape[weight.output_axis] if is_patch else channels
    return weight.elements // inputs, inputs

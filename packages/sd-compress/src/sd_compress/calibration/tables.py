"""The tables of a palette as a linear map: from their entries to the matrix that a layer computes with.

Legend: O outputs, n inputs of the layer; G tables of k entries, each a vector of v outputs (1 if scalar).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        groups = self.row_groups[:, None] + self.column_groups
        return replace(self, entries=entries), np.ascontiguousarray(ranks[groups, indices])

    def round(self, weights: Array, made_up: Array, upper: Array, columns: Array) -> tuple[Array, Array]:
        """Indices [O / v, s] and errors [O, s] of the inputs ``columns``, rounded one after the other.

        To each of the ``weights`` [O, s] what makes up for errors is added: ``made_up`` [O, s], which is used
        up, for those of earlier inputs, ``upper`` [s, s] times the errors of these.
        """
        indices, errors = np.empty((self.rows, len(columns)), np.uint8), np.empty_like(weights)
        _loops().round_inputs(weights, made_up, upper, *self._at(columns), indices, errors)
        return indices, errors

    def decode(self, indices: Array, entries: Array | None = None) -> Array:
        """The matrix [O, n] of ``indices`` [O / v, n], with ``entries`` in the place of its own if given."""
        tables = self if entries is None else replace(self, entries=entries)
        matrix = np.empty((len(self.row_scales), indices.shape[1]), np.float32)
        _loops().decode(*tables._at(), np.ascontiguousarray(indices, np.uint8), matrix)
        return matrix

    def gather(self, matrix: Array, indices: Array) -> Array:
        """The adjoint of :meth:`decode`: for each entry, the sum of ``matrix`` [O, n] where it stands."""
        sums = np.zeros(self.entries.shape)
        places = np.ascontiguousarray(indices, np.uint8)
        _loops().gather(np.ascontiguousarray(matrix, np.float32), *self._at(), places, sums)
        return sums

    def scaled(self, matrix: Array) -> Array:
        """``matrix`` [O, n] times the scales."""
        return matrix * self.row_scales[:, None] * self.column_scales

    def _at(self, columns: Array | slice = slice(None)) -> tuple[Array, ...]:
        scales = self.column_scales[columns]
        return self.entries, self.row_groups, self.column_groups[columns], self.row_scales, scales


def _loops() -> Any:
    """Compiled when they are needed for the first time."""
    from sd_compress.calibration import _loops

    return _loops


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
    row_groups = np.ascontiguousarray(row_groups[::vector])
    return Tables(entries, row_groups, column_groups, row_scales, column_scales)


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

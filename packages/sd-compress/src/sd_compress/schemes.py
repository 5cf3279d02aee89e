"""How one weight is to be stored: a scheme; and the palette that a scheme may lead to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from .granularity import PerBlock, PerChannel, PerGroupedChannel, PerTensor, check, is_count

Array: TypeAlias = npt.NDArray[Any]

PALETTE_BITS: Final = (1, 2, 3, 4, 6, 8)
LinearDtype: TypeAlias = Literal["int8", "uint8", "int4", "uint4"]
LinearMode: TypeAlias = Literal["symmetric", "asymmetric"]
RangeMethod: TypeAlias = Literal["mse", "percentile", "minmax"]

_PER_TENSOR: Final = PerTensor()
_PER_CHANNEL: Final = PerChannel()


@dataclass(frozen=True, slots=True)
class Keep:
    """As it is."""


@dataclass(frozen=True, slots=True)
class Palettize:
    """Indices of ``nbits`` into a table of numbers, or of vectors.

    ``per_channel_scale``: each output channel is divided by its largest magnitude first, and multiplied again
    when it is decoded. ``vector_size``: so many neighbouring output channels share an index, whose entry is a
    vector; ``nbits / vector_size`` bits are stored for each element.
    """

    nbits: int
    granularity: PerTensor | PerGroupedChannel = _PER_TENSOR
    per_channel_scale: bool = False
    vector_size: int = 1

    def __post_init__(self) -> None:
        """Refuse widths that no table has, and combinations that no decoder has."""
        check(
            is_count(self.nbits) and self.nbits in PALETTE_BITS, "nbits", f"one of {PALETTE_BITS}", self.nbits
        )
        check(is_count(self.vector_size), "vector_size", "a positive integer", self.vector_size)
        is_flag = isinstance(self.per_channel_scale, bool)
        check(is_flag, "per_channel_scale", "true or false", self.per_channel_scale)


@dataclass(frozen=True, slots=True)
class Activations:
    """The inputs of a layer as int8, too: ``symmetric`` around zero, or ``asymmetric`` with a zero point.

    ``range``: which numbers the integers reach, of those that calibration saw. ``minmax``: all of them, as
    coremltools has it. ``percentile``: all but 1 in 10,000 at each end. ``mse``: those that leave the least
    mean squared error; what is beyond is clipped.
    """

    mode: LinearMode = "symmetric"
    range: RangeMethod = "mse"

    def __post_init__(self) -> None:
        """Refuse modes and ranges that there are not."""
        _check_choice("mode", self.mode, get_args(LinearMode))
        _check_choice("range", self.range, get_args(RangeMethod))


@dataclass(frozen=True, slots=True)
class Linear:
    """Integers times a scale: ``symmetric`` around zero, or ``asymmetric`` with a zero point.

    ``activations``: how the inputs of the layer are quantized, too, which makes its products those of int8
    (W8A8); None leaves them as they are. It takes weights of int8 around zero, with a scale for all of them
    or for each output channel.
    """

    dtype: LinearDtype = "int8"
    mode: LinearMode = "symmetric"
    granularity: PerTensor | PerChannel | PerBlock = _PER_CHANNEL
    activations: Activations | None = None

    def __post_init__(self) -> None:
        """Refuse dtypes and modes that there are not, and activations beside weights of other forms."""
        _check_choice("dtype", self.dtype, get_args(LinearDtype))
        _check_choice("mode", self.mode, get_args(LinearMode))
        if self.activations is not None:
            is_whole = self.granularity in (_PER_TENSOR, _PER_CHANNEL)
            fits = is_whole and (self.dtype, self.mode) == ("int8", "symmetric")
            got = (self.dtype, self.mode, self.granularity)
            check(fits, "activations", "symmetric int8 weights, per tensor or output channel", got)


@dataclass(frozen=True, slots=True)
class Prune:
    """The elements of least magnitude become zero, and are not stored.

    Either ``sparsity`` of them all (0 to 1), or ``n_m``: n of every m neighbouring inputs.
    """

    sparsity: float | None = None
    n_m: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse both or neither, and shares that cannot be."""
        given = (self.sparsity is None) != (self.n_m is None)
        check(given, "sparsity", "either sparsity or n_m", (self.sparsity, self.n_m))
        if self.n_m is None:
            is_share = isinstance(self.sparsity, int | float) and not isinstance(self.sparsity, bool)
            check(is_share and 0 <= (self.sparsity or 0) < 1, "sparsity", "0 to less than 1", self.sparsity)
        else:
            pair = self.n_m
            is_pair = isinstance(pair, tuple) and len(pair) == 2 and all(map(is_count, pair))
            check(is_pair and pair[0] < pair[1], "n_m", "[n, m] with 0 < n < m", pair)


@dataclass(frozen=True, slots=True)
class Joint:
    """Pruned first; what is left is palettized or quantized."""

    prune: Prune
    then: Palettize | Linear

    def __post_init__(self) -> None:
        """Refuse what cannot follow pruning."""
        is_known = isinstance(self.then, Palettize | Linear)
        check(is_known, "then", "the method palettize or linear", type(self.then).__name__.lower())
        if isinstance(self.then, Linear):
            check(self.then.activations is None, "then", "no activations of sparse weights", self.then)
        if isinstance(self.then, Palettize):
            is_plain = self.then.vector_size == 1 and not self.then.per_channel_scale
            check(is_plain, "then", "a palette without vectors and scales", self.then)


@dataclass(frozen=True, slots=True)
class Palette:
    """A palettized weight.

    ``tables`` [groups, 2**nbits], or [groups, 2**nbits, vector]; any float, rounded to the weight's dtype
    when it is written. ``indices`` uint8 of the weight's shape; with vectors, that of ``vector_axis`` is
    divided by their length. Groups are equal parts of ``axis``, in order. ``scales`` multiply the channels of
    ``scale_axis``.
    """

    tables: Array
    indices: Array
    axis: int = 0
    vector_axis: int | None = None
    scales: Array | None = None
    scale_axis: int = 0

    def decode(self) -> Array:
        """The weight that it stands for, in the dtype of the tables."""
        groups = np.split(self.indices, len(self.tables), axis=self.axis)
        parts = [table[group] for table, group in zip(self.tables, groups, strict=True)]
        values: Array = np.concatenate(parts, axis=self.axis)
        if self.vector_axis is not None:
            values = np.moveaxis(values, -1, self.vector_axis + 1)
            shape = list(self.indices.shape)
            shape[self.vector_axis] *= self.tables.shape[-1]
            values = values.reshape(shape)
        if self.scales is None:
            return values
        shape = [1] * values.ndim
        shape[self.scale_axis] = -1
        scaled: Array = values * self.scales.reshape(shape)
        return scaled


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    check(value in choices, name, f"one of {', '.join(choices)}", value)


Scheme: TypeAlias = Keep | Palettize | Linear | Prune | Joint

"""The dear parts of calibration on a device of torch: products of Hessians, factors, and rounding.

Arrays go to the device and come back; what is there between calls are the sums of an accumulator, or the
Hessian of the weight at hand. Products are those of float32 (torch's default has no TF32), and factors those
of float64, as without a device. Results differ from those by the order of sums: in the last bits of noise,
and in indices of elements that are as near to one entry as to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_compress.calibration.hessians import Accumulator, Hessian
from sd_compress.errors import CalibrationError

if TYPE_CHECKING:
    from sd_compress.calibration.tables import Tables

Array: TypeAlias = npt.NDArray[Any]
#: A device as torch names it.
Device: TypeAlias = Literal["cpu", "cuda"]

#: Entries of all tables that are compared with a row of weights at once.
_MOST_DISTANCES: Final = 1 << 24


def check_device(device: Device) -> None:
    """Refuse a device that cannot be computed on.

    Raises:
        CalibrationError: torch is not installed, or sees no such device.
    """
    try:
        import torch
    except ImportError:
        raise CalibrationError(
            f"expected torch for the device {device!r}, which is not installed: "
            "pip install 'sd-compress[torch]', or leave the device out"
        ) from None
    if device not in ("cpu", "cuda"):
        raise CalibrationError(f"expected the device 'cpu' or 'cuda', got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise CalibrationError(
            "expected a GPU for the device 'cuda', got none that torch sees: install a torch that is built "
            "for its driver, or leave the device out"
        )


class DeviceAccumulator(Accumulator):
    """Sums that stay on the device until they are asked for."""

    def __init__(self, sizes: Sequence[int], device: Device) -> None:
        """``sizes`` are those of the blocks."""
        import torch

        self._on_device = [torch.zeros((size, size), device=device) for size in sizes]
        self._device = device
        self.rows = 0

    def add(self, rows: Array) -> None:
        """Rows [any, n], float32."""
        whole = _placed(rows, self._device)
        start = 0
        for total in self._on_device:
            part = whole[:, start : start + len(total)]
            total += part.T @ part
            start += len(total)
        self.rows += len(rows)

    def hessian(self) -> Hessian:
        """The mean over all rows."""
        sums = [(total + total.T) / (2 * max(self.rows, 1)) for total in self._on_device]
        return Hessian(tuple(total.cpu().numpy() for total in sums), self.rows)


@dataclass(frozen=True, slots=True)
class DeviceHessian(Hessian):
    """A Hessian whose blocks are on the device, too: ``placed``."""

    device: Device
    placed: tuple[Any, ...]

    @classmethod
    def of(cls, hessian: Hessian, device: Device) -> DeviceHessian:
        """The same, with its blocks copied."""
        placed = tuple(_placed(block, device) for block in hessian.blocks)
        return cls(hessian.blocks, hessian.rows, device, placed)

    def times(self, errors: Array) -> Array:
        """``errors @ H`` for errors [O, n]."""
        whole = _placed(errors, self.device)
        parts = zip(self.parts(), self.placed, strict=True)
        found = [(part, (whole[:, part] @ block).cpu().numpy()) for (part, _), block in parts]
        product = np.empty_like(errors)
        for part, values in found:
            product[:, part] = values
        return product


def lower_factor(block: Array, device: Device) -> Array:
    """L of ``block = L @ L.T``, float64.

    Raises:
        numpy.linalg.LinAlgError: the block is not positive definite.
    """
    import torch

    factor, failed = torch.linalg.cholesky_ex(_placed(block, device))
    if int(failed):
        raise np.linalg.LinAlgError("not positive definite")
    found: Array = factor.cpu().numpy()
    return found


def rounded(
    weights: Array, columns: Array, upper: Array, tables: Tables, stride: int, device: Device
) -> Array:
    """Indices [O / v, b] of the inputs of a block, ``weights`` [O, b] in the order in which they are rounded.

    ``columns`` are their places among all inputs, ``upper`` [b, b]; what ``stride`` inputs leave is made up
    for in the others by one product of matrices.
    """
    import torch

    wanted, factor = _placed(weights, device), _placed(upper, device)
    nearest = _Nearest.of(tables, columns, device)
    errors = torch.zeros_like(wanted)
    indices = torch.empty((tables.rows, len(columns)), dtype=torch.uint8, device=device)
    for start in range(0, len(columns), stride):
        end = min(start + stride, len(columns))
        target = wanted[:, start:end] + errors[:, :start] @ factor[:start, start:end]
        for column in range(start, end):
            found, values = nearest.of_column(column, target[:, column - start])
            indices[:, column] = found
            errors[:, column] = wanted[:, column] - values
            rest = factor[column, column + 1 : end]
            target[:, column + 1 - start :] += errors[:, column, None] * rest
    result: Array = indices.cpu().numpy()
    return result


@dataclass(frozen=True, slots=True)
class _Nearest:
    """Tables on the device: which entry is next to a weight.

    Shapes: entries [G, k, v], groups of the rows [O / v] and of the columns [b], scales [O] and [b].
    """

    entries: Any
    row_groups: Any
    column_groups: Sequence[int]
    row_scales: Any
    column_scales: Sequence[float]

    @classmethod
    def of(cls, tables: Tables, columns: Array, device: Device) -> _Nearest:
        return cls(
            _placed(tables.entries, device),
            _placed(tables.row_groups, device),
            tables.column_groups[columns].tolist(),
            _placed(tables.row_scales, device),
            tables.column_scales[columns].tolist(),
        )

    def of_column(self, column: int, target: Any) -> tuple[Any, Any]:
        """Indices [O / v], and what they stand for, [O], for the weights ``target`` [O] of an input."""
        import torch

        scale = self.row_scales * self.column_scales[column]
        wanted = torch.where(scale != 0, target.double() / scale, target.double())
        entries = self.entries[self._groups(column)]  # [1 or O / v, k, v]
        vectors = wanted.reshape(-1, 1, entries.shape[2])
        found = _next(entries.double(), vectors)
        rows = entries.expand(len(found), -1, -1)
        values = torch.take_along_dim(rows, found[:, None, None].expand(-1, 1, rows.shape[2]), 1)
        return found.to(torch.uint8), values.reshape(-1) * scale

    def _groups(self, column: int) -> Any:
        """The tables of the rows; one if all have the same."""
        if len(self.entries) == 1:
            return slice(0, 1)
        first = self.column_groups[column]
        return slice(first, first + 1) if first else self.row_groups


def _next(entries: Any, vectors: Any) -> Any:
    """The places of the entries [1 or R, k, v] next to ``vectors`` [R, 1, v]; they ascend if v is 1."""
    import torch

    if entries.shape[2] > 1:
        return _nearest_vectors(entries, vectors)
    middles = ((entries[:, :-1, 0] + entries[:, 1:, 0]) / 2).contiguous()
    if len(middles) == 1:
        return torch.searchsorted(middles[0], vectors.reshape(-1))
    return torch.searchsorted(middles, vectors.reshape(-1, 1)).reshape(-1)


def _nearest_vectors(entries: Any, vectors: Any) -> Any:
    import torch

    count = max(1, _MOST_DISTANCES // (entries.shape[1] * entries.shape[2]))
    found = []
    for start in range(0, len(vectors), count):
        here = slice(start, start + count)
        tables = entries if len(entries) == 1 else entries[here]
        found.append((vectors[here] - tables).square().sum(dim=2).argmin(dim=1))
    return torch.cat(found)


def _placed(array: Array, device: Device) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(device)

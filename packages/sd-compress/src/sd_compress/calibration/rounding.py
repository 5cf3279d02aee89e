"""Rounding to a table so that the errors of one input are made up for by those that follow.

GPTQ (Frantar et al., arXiv 2210.17323) rounds the inputs of a layer one after the other and moves what
remains to absorb each error. With H = R R.T, R upper triangular, and U = R with its columns scaled to a
diagonal of 1, the weight of input k that is rounded is w_k + sum over j < k of (w_j - q_j) U_jk: the form of
LDLQ (Chee et al., arXiv 2307.13304, theorem 6), which needs no inverse of H. The noise is then the sum over k
of d_k |error of rounding|², with d the squared diagonal of R.

Legend: O outputs, n inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_compress.calibration.devices import Device, DeviceHessian, lower_factor, rounded
from sd_compress.calibration.hessians import Hessian
from sd_compress.calibration.tables import Tables

Array: TypeAlias = npt.NDArray[Any]

#: Share of the mean of H's diagonal that is added to it, so that inputs which are always 0, or always as
#: others are, do not make it singular. GPTQ's own.
DAMPING = 0.01
#: Inputs that are rounded between two products of matrices.
_STRIDE = 64


@dataclass(frozen=True, slots=True)
class Feedback:
    """The order in which the inputs of a block are rounded, U in that order, and the gains d."""

    order: Array
    upper: Array
    gains: Array


def feedback(block: Array, damping: float = DAMPING, device: Device | None = None) -> Feedback:
    """Factor a block [n, n]; inputs that matter most come first, while there is much to make up with.

    On a ``device`` of torch if one is given.
    """
    damped = block.astype(np.float64)
    diagonal = np.arange(len(block))
    level = float(np.trace(damped)) / len(block)
    if not level > 0:  # no input was ever anything but 0
        return Feedback(diagonal, np.eye(len(block), dtype=np.float32), np.zeros(len(block)))
    order = np.argsort(-np.diagonal(damped), kind="stable")
    damped = damped[np.ix_(order, order)]
    while True:
        damped[diagonal, diagonal] += damping * level
        try:
            lower = _cholesky(damped[::-1, ::-1], device)
            break
        except np.linalg.LinAlgError:  # the rounding of float32 sums was more than the damping
            damping *= 10
    root = lower[::-1, ::-1]
    scale = np.diagonal(root)
    return Feedback(order, np.ascontiguousarray((root / scale).astype(np.float32)), scale**2)


def _cholesky(block: Array, device: Device | None) -> Array:
    return np.linalg.cholesky(block) if device is None else lower_factor(block, device)


def compensated(matrix: Array, tables: Tables, hessian: Hessian, damping: float = DAMPING) -> Array:
    """Indices of ``matrix`` [O, n] into ``tables``, chosen with the errors of other inputs in mind.

    On the device where the Hessian is, if it is on one.
    """
    device = hessian.device if isinstance(hessian, DeviceHessian) else None
    indices = np.empty((tables.rows, matrix.shape[1]), np.uint8)
    for part, block in hessian.parts():
        factor = feedback(block, damping, device)
        columns = np.arange(part.start, part.stop)[factor.order]
        given = matrix[:, columns], columns, factor.upper, tables
        indices[:, columns] = _rounded(*given) if device is None else rounded(*given, _STRIDE, device)
    return indices


def _rounded(weights: Array, columns: Array, upper: Array, tables: Tables) -> Array:
    """Indices of the inputs of a block, ``weights`` [O, b] in the order in which they are rounded."""
    errors, found = np.zeros_like(weights, order="C"), []
    for start in range(0, len(columns), _STRIDE):
        here = slice(start, start + _STRIDE)
        made_up = errors[:, :start] @ upper[:start, here]
        own = np.ascontiguousarray(weights[:, here]), made_up, np.ascontiguousarray(upper[here, here])
        indices, errors[:, here] = tables.round(*own, columns[here])
        found.append(indices)
    return np.concatenate(found, axis=1)


def remaining_noise(hessian: Hessian, damping: float = DAMPING) -> float:
    """The share of the noise of rounding to the nearest that compensated rounding is expected to leave.

    Where errors of rounding are alike and uncorrelated, their squares count with the diagonal of H in the
    one, and with the gains d in the other.
    """
    gains = sum(float(feedback(block, damping).gains.sum()) for block in hessian.blocks)
    plain = float(hessian.diagonal().sum())
    return min(1.0, gains / plain) if plain > 0 else 1.0

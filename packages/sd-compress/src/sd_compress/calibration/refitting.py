"""The table that is best for given indices, under a Hessian: a linear least squares problem.

The noise trace((W - Q) H (W - Q).T) is quadratic in the entries of the table, because Q, what the indices
stand for, is linear in them. Conjugate gradients solve it with a product by H a step, where the normal
equations would need one for each entry; and no step makes the noise larger: any number of them will do.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_compress.calibration.hessians import Hessian
from sd_compress.calibration.tables import Tables

Array: TypeAlias = npt.NDArray[Any]

#: Of the noise that can be taken away, what is left to be taken when the solver stops; and its steps at most.
_TOLERANCE, _STEPS = 1e-3, 24


def refitted(matrix: Array, tables: Tables, indices: Array, hessian: Hessian) -> Array:
    """Entries [G, k, v] of the least noise for ``matrix`` [O, n] with these ``indices``; float64.

    Entries without an index stay as they are.
    """
    entries = tables.entries.astype(np.float64)
    residual = tables.gather(hessian.times(matrix - tables.decode(indices)), indices)
    scales = _preconditioner(tables, indices, hessian)
    step = direction = scales * residual
    before = first = float(np.vdot(residual, step))
    for _ in range(_STEPS):
        if not before > _TOLERANCE**2 * first:
            break
        curved = _curvature(tables, direction, indices, hessian)
        along = float(np.vdot(direction, curved))
        if not along > 0:
            break
        entries = entries + before / along * direction
        residual = residual - before / along * curved
        step = scales * residual
        after = float(np.vdot(residual, step))
        direction, before = step + after / before * direction, after
    return entries


def _curvature(tables: Tables, direction: Array, indices: Array, hessian: Hessian) -> Array:
    moved = tables.decode(indices, direction.astype(np.float32))
    return tables.gather(hessian.times(moved), indices)


def _preconditioner(tables: Tables, indices: Array, hessian: Hessian) -> Array:
    """One over the diagonal of the normal equations: what each entry does alone."""
    weighted = tables.scaled(np.broadcast_to(hessian.diagonal(), (len(tables.row_scales), hessian.inputs)))
    diagonal = tables.gather(weighted, indices)
    return np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)

"""How a tensor that ATen sees lies in memory: permutations and reshapes as bookkeeping, not as operations.

A :class:`View` is a row-major store cut into ``atoms`` (sizes above one), and the dimensions that ATen sees,
each the product of some atoms in order. Moving axes, merging and splitting them changes bookkeeping only::

    a convolution's output (2, 64, 32, 32)    atoms (2, 64, 32, 32)  dims ((0,), (1,), (2,), (3,))
    .permute(0, 2, 3, 1)                      atoms (2, 64, 32, 32)  dims ((0,), (2,), (3,), (1,))
    .reshape(2, 1024, 64): BSC for ATen       atoms (2, 64, 32, 32)  dims ((0,), (2, 3), (1,))

The last one is what a Transformer block sees. Its store is already in the order B, C, S, so that the block
can be computed in BC1S without a transpose; and when the block's output is reshaped and permuted back, the
bookkeeping arrives at the order of the store again, and nothing is left to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class View:
    """A store of ``atoms`` seen as ``dims``: for each dimension, the indices of its atoms."""

    atoms: tuple[int, ...]
    dims: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, shape: Sequence[int]) -> View:
        """A tensor of ``shape`` seen as it is stored.

        Example: ``View.of((2, 1, 5))`` is ``View((2, 5), ((0,), (), (1,)))``.
        """
        atoms = tuple(size for size in shape if size != 1)
        numbers = iter(range(len(atoms)))
        return cls(atoms, tuple(() if size == 1 else (next(numbers),) for size in shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that ATen sees."""
        return tuple(math.prod(self.atoms[atom] for atom in dim) for dim in self.dims)

    def permute(self, order: Sequence[int]) -> View:
        """The dimensions in another order."""
        return View(self.atoms, tuple(self.dims[axis] for axis in order))

    def reshape(self, shape: Sequence[int]) -> View | None:
        """The same elements in order as ``shape``; None if that cuts an atom unevenly: (4, 6) to (6, 4)."""
        refined = _refine([self.atoms[atom] for dim in self.dims for atom in dim], shape)
        if refined is None:
            return None
        pieces, dims = refined  # both in the order that ATen sees
        return _renumber(tuple(atom for dim in self.dims for atom in dim), pieces, dims)

    def is_stored_as(self, order: Iterable[int]) -> bool:
        """Whether the store holds the dimensions in this order, row-major."""
        atoms = [atom for axis in order for atom in self.dims[axis]]
        return atoms == sorted(atoms)


def _refine(sizes: Sequence[int], shape: Sequence[int]) -> tuple[list[list[int]], list[int]] | None:
    """Cut each of ``sizes`` into factors so that each of ``shape`` is a product of whole factors, in order.

    Returns the factors of each size, and how many factors each dimension takes.
    Example: sizes [1024, 64] for shape (32, 32, 64) give [[32, 32], [64]] and [1, 1, 1].
    """
    factors: list[list[int]] = [[] for _ in sizes]
    counts: list[int] = []
    index, rest = 0, sizes[0] if sizes else 1
    for wanted in shape:
        count = 0
        while wanted > 1:
            common = min(wanted, rest)
            if wanted % common or rest % common or common == 1:
                return None
            factors[index].append(common)
            wanted, rest, count = wanted // common, rest // common, count + 1
            if rest == 1 and index + 1 < len(sizes):
                index, rest = index + 1, sizes[index + 1]
        counts.append(count)
    return factors, counts


def _renumber(seen: tuple[int, ...], pieces: Sequence[Sequence[int]], counts: Sequence[int]) -> View:
    """The view whose atoms are ``pieces`` of the atoms ``seen``, taken by dimensions in ``counts``."""
    by_old_atom = dict(zip(seen, pieces, strict=True))
    atoms = tuple(piece for atom in sorted(by_old_atom) for piece in by_old_atom[atom])
    first = _offsets([len(by_old_atom[atom]) for atom in sorted(by_old_atom)])
    numbers = iter([first[atom] + i for atom in seen for i in range(len(by_old_atom[atom]))])
    return View(atoms, tuple(tuple(next(numbers) for _ in range(count)) for count in counts))


def _offsets(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:i]) for i in range(len(lengths))]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What brings a stored tensor into a wanted order: reshape, transpose, reshape, each optional."""

    before: tuple[int, ...] | None
    perm: tuple[int, ...] | None
    after: tuple[int, ...] | None


def arrange(
    stored: tuple[int, ...], view: View, order: Sequence[int | None], shape: tuple[int, ...]
) -> Arrangement:
    """How to get from a tensor of shape ``stored`` to one of ``shape`` with ``view``'s dims in ``order``.

    ``order`` names, for every axis of ``shape``, a dimension of the view, or None for an axis of size one.
    """
    axes = [dim for dim in order if dim is not None]
    if view.is_stored_as(axes):
        return Arrangement(None, None, None if stored == shape else shape)
    wanted = list(_expand(view, order))
    before, position = _with_units(stored, view.atoms, wanted.count(None))
    units = iter([axis for axis in range(len(before)) if axis not in position.values()])
    perm = tuple(next(units) if atom is None else position[atom] for atom in wanted)
    moved = tuple(before[axis] for axis in perm)
    return Arrangement(before if before != stored else None, perm, shape if moved != shape else None)


def _expand(view: View, order: Sequence[int | None]) -> Iterator[int | None]:
    """One entry for each axis of the transposed tensor: an atom, or None for an axis of size one."""
    for dim in order:
        atoms = () if dim is None else view.dims[dim]
        yield from atoms or (None,)


def _with_units(
    stored: tuple[int, ...], atoms: tuple[int, ...], units: int
) -> tuple[tuple[int, ...], dict[int, int]]:
    """A shape of the store with an axis for every atom and ``units`` axes of size one; where each atom is.

    The shape that is there already is kept if it will do.
    """
    kept = tuple(size for size in stored if size != 1) == atoms and len(stored) == len(atoms) + units
    shape = stored if kept else (1,) * units + atoms
    axes = [axis for axis, size in enumerate(shape) if size != 1]
    return shape, dict(enumerate(axes))

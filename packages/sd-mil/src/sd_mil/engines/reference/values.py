"""What a value is while a program runs: an array, text, a list, or the cell of a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = "npt.NDArray[Any]"


@dataclass(frozen=True, slots=True)
class ListValue:
    """A MIL list. Immutable: a write makes a new list, so that each name keeps the value it was given.

    ``items`` has None where nothing was written yet; ``shape`` is the elements' shape, with None where it
    was not known before running.
    """

    items: tuple[Array | None, ...]
    shape: tuple[int | None, ...]
    dtype: np.dtype[np.generic]
    grows: bool

    def read(self, index: int) -> Array:
        """The element; zeros where nothing was written.

        Raises:
            IndexError: there is no such element.
            ValueError: nothing was written there, and the shape is not known.
        """
        if not 0 <= index < len(self.items):
            raise IndexError(f"expected an index below the list's length of {len(self.items)}, got {index}")
        item = self.items[index]
        return np.zeros(self._known_shape(), self.dtype) if item is None else item

    def written(self, index: int, item: Array) -> ListValue:
        """The list with another element; one that grows becomes as long as it takes.

        Raises:
            IndexError: the index is negative, or beyond the end of a list of fixed length.
        """
        if index < 0 or (index >= len(self.items) and not self.grows):
            raise IndexError(f"expected an index below the list's length of {len(self.items)}, got {index}")
        if index > len(self.items) + MAXIMUM_GROWTH:
            raise IndexError(f"expected a list to grow by {MAXIMUM_GROWTH} elements at most, got {index}")
        items = (*self.items, *[None] * (index + 1 - len(self.items)))
        return ListValue((*items[:index], item, *items[index + 1 :]), self.shape, self.dtype, self.grows)

    def _known_shape(self) -> tuple[int, ...]:
        written = next((item.shape for item in self.items if item is not None), self.shape)
        known = tuple(size for size in written if size is not None)
        if len(known) != len(written):
            raise ValueError("expected an element that was written, got one of unknown shape")
        return known


#: How far beyond its end a list may be written to: the index may come from a file.
MAXIMUM_GROWTH = 1 << 20


@dataclass(slots=True)
class Cell:
    """What a state holds while a program runs. The array is replaced, never changed in place."""

    value: Array


#: Dictionaries are what ``classify`` returns: a probability by label.
Value: TypeAlias = "Array | str | tuple[str, ...] | ListValue | Cell | Mapping[Any, float]"

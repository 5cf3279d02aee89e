"""What a stateful model keeps between predictions."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from sd_mil.errors import PredictionError
from sd_mil.ir.ports import Port


class State:
    """The states of one conversation with a model, all zero at first. Made by ``MLModel.make_state``.

    Threads may share it: predictions with it, reads and writes happen one after the other, and each sees all
    of what the one before it left. ``copy.copy`` and ``pickle`` make a state that goes on by itself.
    """

    def __init__(self, ports: Iterable[Port]) -> None:
        """Zeros for every port."""
        self.lock = threading.Lock()  #: held for as long as a prediction reads and replaces the arrays
        self.arrays: dict[str, npt.NDArray[Any]] = {
            port.name: np.zeros([size or 0 for size in port.shape], port.dtype) for port in ports
        }

    def read_state(self, name: str) -> npt.NDArray[Any]:
        """A copy of the state.

        Raises:
            PredictionError: there is no such state.
        """
        with self.lock:
            return self._array(name).copy()

    def write_state(self, name: str, value: npt.NDArray[Any]) -> None:
        """Replace the state by a copy of ``value``.

        Raises:
            PredictionError: there is no such state, or it has another shape or dtype.
        """
        with self.lock:
            current = self._array(name)
            if not isinstance(value, np.ndarray) or (value.shape, value.dtype) != (
                current.shape,
                current.dtype,
            ):
                expected = f"{current.dtype}{list(current.shape)}"
                got = f"{getattr(value, 'dtype', type(value).__name__)}{list(np.shape(value))}"
                raise PredictionError(f"expected {expected}, got {got} for state {name!r}")
            self.arrays[name] = value.copy()

    def __getstate__(self) -> dict[str, Any]:
        """The arrays are replaced and never changed, so that a copy may share them."""
        with self.lock:
            return {"arrays": dict(self.arrays)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A state of its own with these arrays."""
        self.lock, self.arrays = threading.Lock(), state["arrays"]

    def _array(self, name: str) -> npt.NDArray[Any]:
        if name not in self.arrays:
            raise PredictionError(f"expected one of the states {list(self.arrays)}, got {name!r}")
        return self.arrays[name]

"""Where a reader finds the constants that a program keeps outside itself."""

from __future__ import annotations

from typing import Protocol

from sd_mil.ir.program import Blob, Constant, TensorType


class WeightStore(Protocol):
    """The weight files of a package, or whatever stands for them."""

    @property
    def total_bytes(self) -> int:
        """The size of all files that were asked for so far."""
        ...

    def constant(self, kind: TensorType, blob: Blob, where: str) -> Constant:
        """The constant of that type at that place; ``where`` says what it is for.

        Raises:
            PackageError: there is none, or it has another type or size.
        """
        ...

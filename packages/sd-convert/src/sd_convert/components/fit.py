"""Hold a checkpoint's weights against the network that its config describes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sd_convert.checkpoint.tensors import READABLE_DTYPES
from sd_convert.checkpoint.weights import LazyWeights
from sd_convert.errors import WeightsMismatchError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

_SHOWN: Final = 4  # of the names that do not fit


@dataclass(frozen=True, slots=True)
class FittedWeights:
    """Weights under the names of a module's state dict; ``names`` maps them to those of the files."""

    tensors: LazyWeights
    names: Mapping[str, str]

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        """The tensor, see :class:`~sd_convert.checkpoint.weights.LazyWeights`."""
        return self.tensors[self.names[name]]

    def __contains__(self, name: object) -> bool:
        """Whether the module has a tensor of that name."""
        return name in self.names

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, from the header of its file."""
        return self.tensors.shape(self.names[name])

    @property
    def bytes(self) -> int:
        """Size in the files."""
        return sum(self.tensors.entries[name].bytes for name in self.names.values())


def fit_weights(
    module: nn.Module, tensors: LazyWeights, *, rename: Callable[[str], str | None], where: str
) -> FittedWeights:
    """The weights of ``module``; ``rename`` maps names of the files to the module's, or drops them (None).

    Raises:
        WeightsMismatchError: tensors are missing or left over, or of another shape, or not of floating point.
    """
    names = {ours: theirs for theirs in tensors if (ours := rename(theirs)) is not None}
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    _refuse(where, "missing", (name for name in shapes if name not in names))
    _refuse(where, "unexpected", (theirs for ours, theirs in names.items() if ours not in shapes))
    entries = {ours: tensors.entries[theirs] for ours, theirs in names.items()}
    _refuse(
        where,
        "of another shape than the config says",
        (
            f"{names[ours]} (expected {list(shapes[ours])}, got {list(entry.shape)})"
            for ours, entry in entries.items()
            if entry.shape != shapes[ours]
        ),
    )
    _refuse(
        where,
        f"not in {', '.join(READABLE_DTYPES)}",
        (
            f"{names[ours]} ({entry.dtype})"
            for ours, entry in entries.items()
            if entry.dtype not in READABLE_DTYPES
        ),
    )
    return FittedWeights(tensors, names)


def _refuse(where: str, complaint: str, names: Iterable[str]) -> None:
    found = list(names)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise WeightsMismatchError(
            f"{where}: expected the weights that its config.json describes, "
            f"got {len(found)} tensors {complaint}: {', '.join(found[:_SHOWN])}{more}"
        )

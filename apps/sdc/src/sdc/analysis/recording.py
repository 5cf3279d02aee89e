"""Inputs that a network gets, and what it makes of them, while it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy.typing as npt
    from sd_runtime import Model

Arrays: TypeAlias = "Mapping[str, npt.NDArray[Any]]"


@dataclass(frozen=True, slots=True)
class Sample:
    """One prediction: inputs by the names of their ports, and outputs that are floating point."""

    inputs: Arrays
    outputs: Arrays


@dataclass(slots=True)
class Samples:
    """At most ``limit`` predictions out of all, evenly spread: whenever it is full, every other one goes."""

    limit: int
    _kept: list[Sample] = field(default_factory=list)
    _stride: int = 1
    _seen: int = 0

    def add(self, sample: Sample) -> None:
        """One more prediction, which may be kept."""
        if self._seen % self._stride == 0:
            if len(self._kept) == self.limit:
                self._kept = self._kept[::2]
                self._stride *= 2
            if self._seen % self._stride == 0:
                self._kept.append(sample)
        self._seen += 1

    def __iter__(self) -> Iterator[Sample]:
        """Those that are kept, in their order."""
        return iter(self._kept)

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)


@dataclass(frozen=True, slots=True)
class Recorder:
    """A model that remembers some of its predictions."""

    model: Model
    samples: Samples

    def predict(self, inputs: Arrays, /) -> Arrays:
        """Run once."""
        outputs = self.model.predict(inputs)
        self.samples.add(Sample(dict(inputs), {name: one for name, one in outputs.items() if _is_float(one)}))
        return outputs


def _is_float(output: object) -> bool:
    """Not so are labels, pictures, and the probabilities of classifiers, which are dictionaries."""
    return getattr(getattr(output, "dtype", None), "kind", "") == "f"

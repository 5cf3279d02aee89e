"""A component: one network of a checkpoint, ready to be exported, with its ports named as apps know them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


PortDType: TypeAlias = Literal["float16", "float32"]


@dataclass(frozen=True, slots=True)
class PortSpec:
    """A named input or output. ``dtype`` is numpy's name."""

    name: str
    shape: tuple[int, ...]
    dtype: PortDType
    description: str


class Tensors(Protocol):
    """Tensors by name, read from the mapped file only when asked for."""

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        """The tensor as a view of the file where its dtype allows it (float16, float32)."""
        ...


class Weights(Tensors, Protocol):
    """Tensors by state-dict name."""

    def __contains__(self, name: object) -> bool:
        """Whether the file has that tensor."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is not read for it."""
        ...

    @property
    def bytes(self) -> int:
        """Size of all tensors in the file."""
        ...


@dataclass(frozen=True, slots=True)
class Component:
    """One network.

    ``module`` lives on the meta device; its ``forward`` takes the tensors of ``inputs`` in order (in float32)
    and returns those of ``outputs`` in order. ``weights`` answers to the names of ``module.state_dict()``.
    ``rewrites_attention``: whether its attention takes the chosen implementation, or stays over all heads.
    """

    name: str
    module: torch.nn.Module
    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]
    weights: Weights
    short_description: str
    version: str
    author: str
    license: str
    user_defined: Mapping[str, str] = field(default_factory=dict)
    rewrites_attention: bool = False

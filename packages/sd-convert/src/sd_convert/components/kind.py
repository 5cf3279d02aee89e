"""What a component is, as one value: nothing else is decided by a component's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sd_bundle import Role

from sd_convert.components.component import PortDType
from sd_convert.components.metadata import SUMMARY, package_name
from sd_convert.facts import Facts, Section, Sizes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Network:
    """``module``, on the meta device, takes the inputs' tensors in order and returns the outputs'.

    ``rename`` gives the name in ``module.state_dict()`` for one in the checkpoint, None for what is left out.
    """

    module: nn.Module
    rename: Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Drawing:
    """What sample inputs are drawn from: a generator, the facts, and the shapes of all inputs."""

    generator: np.random.Generator
    facts: Facts
    shapes: Shapes

    def noise(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Standard normal numbers."""
        return self.generator.standard_normal(shape)


Draw: TypeAlias = "Callable[[Drawing, tuple[int, ...]], npt.NDArray[Any]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentKind:
    """A network that checkpoints have.

    ``name`` is that of the bundle's component, ``role`` what pipelines look for; ``folder`` is where a
    checkpoint has its config and weights. ``shapes``: of inputs and outputs, by name and in order.
    ``network`` builds it for inputs of these names. Both are given the facts of the checkpoint and the
    folder's own config, and are to depend on nothing else but the code of their file: a cached program
    follows from these.

    ``architecture``: what of the facts and the config the network follows from, as JSON has it, in a form
    that is equal for equal networks; None is everything that they say. ``canonical``: the name of a tensor
    under which programs are kept, equal for the names that it has in one checkpoint or another, and None for
    what the network does not have.

    ``libraries``: what ``network`` imports. ``descriptions``: of ports, by name. ``draws``: how sample inputs
    are drawn, by name; the others are standard normal. ``inputs_as``: the dtype of the inputs, None for that
    of the arithmetic. ``precision``: ``fp16``, ``fp32`` or ``auto`` (found by a check) where the options do
    not say. ``rewrites_attention``: whether attention takes the chosen implementation; all heads at once if
    not. ``summary`` and ``notes`` are what its package says of it: a sentence, and metadata by key.
    ``identifier``: the model version that its metadata carry; None is the checkpoint's. ``package``: the file
    name of its package, for a model version and the sizes.
    """

    name: str
    role: Role
    folder: str
    libraries: tuple[str, ...]
    shapes: Callable[[Facts, Section, Sizes], tuple[Shapes, Shapes]]
    network: Callable[[Facts, Section, tuple[str, ...]], Network]
    descriptions: Mapping[str, str] = field(default_factory=dict)
    draws: Mapping[str, Draw] = field(default_factory=dict)
    inputs_as: PortDType | None = None
    precision: Literal["auto", "fp16", "fp32"] = "fp16"
    rewrites_attention: bool = False
    summary: str = SUMMARY
    notes: Callable[[Facts], Mapping[str, str]] = lambda _: {}
    architecture: Callable[[Facts, Section], Mapping[str, Any]] | None = None
    canonical: Callable[[Facts, str], str | None] = lambda _, name: name
    identifier: str | None = None
    package: Callable[[str, Sizes], str] | None = None

    def package_of(self, version: str, sizes: Sizes) -> str:
        """The file name of its package in a bundle of that model version."""
        return package_name(version, self.name) if self.package is None else self.package(version, sizes)

"""What a rule looks at: one function of a model, and the device and system that are to run it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from sd_mil.ir.ports import Description
from sd_mil.ir.program import Block, Function, Operation, Package, TensorType, Variable
from sd_mil.rewriting.scores import Attention, attentions
from sd_mil.rewriting.views import Definitions

DeviceName: TypeAlias = Literal["iphone", "ipad", "mac"]


@dataclass(frozen=True, slots=True)
class Device:
    """A class of devices by its smallest that is current.

    ``memory``: bytes that one app may use there; ``why``: how that is known.
    """

    name: DeviceName
    memory: int
    why: str


_GB = 10**9
DEVICES: Final[Mapping[DeviceName, Device]] = MappingProxyType(
    {
        "iphone": Device("iphone", 3 * _GB, "about half of an iPhone's 6 GB"),
        "ipad": Device("ipad", 3 * _GB, "what iPadOS 26.4 leaves to an app of 8 GB; it was 6 GB before"),
        "mac": Device("mac", 6 * _GB, "three quarters of a Mac's 8 GB"),
    }
)


@dataclass(frozen=True)
class Scope:
    """One function of a package. ``os``: the number of the system (16 to 18, 26, 27; macOS by its year)."""

    package: Package
    function: Function
    description: Description
    device: Device
    os: int

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """All that compute something, nested blocks included."""
        return tuple(one for one in _walk(self.function.body) if one.type != "const")

    @cached_property
    def computed(self) -> tuple[tuple[Operation, Variable], ...]:
        """Every tensor that is computed while the model runs, and by what."""
        return tuple(
            (operation, output)
            for operation in self.operations
            if not operation.type.startswith("constexpr_")
            for output in operation.outputs
            if isinstance(output.type, TensorType)
        )

    @cached_property
    def definitions(self) -> Definitions:
        """Who computes each value of the function's own block."""
        return Definitions.of(self.function.body)

    @cached_property
    def attentions(self) -> tuple[Attention, ...]:
        """The function's attention."""
        return tuple(attentions(self.function.body))


def _walk(block: Block) -> Iterator[Operation]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _walk(inner)

"""The systems that a model is made for: one table, for reading, writing, converting, compressing and linting.

Sources: ``_deployment_compatibility.py`` and ``_OPSET`` of coremltools 9.0 (names, opsets and specification
versions; visionOS, which it does not list, and iPadOS as Apple's documentation of Core ML numbers them), and
the release notes of coremltools 6.0, 7.0, 8.0 and 9.0 (what each one adds).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Target:
    """A system by name, and what a model for it may be written in.

    ``number``: that of the iOS of the same year. ``opset``: coremltools' name for its operations;
    ``core_ml``: the file's. ``specification``: the version of the file format. ``adds``: what the one before
    it has not.
    """

    name: str
    number: int
    opset: str
    core_ml: str
    specification: int
    adds: str


def _targets(number: int, specification: int, others: tuple[str, ...], adds: str) -> dict[str, Target]:
    opset = f"iOS{number}"
    names = (opset, f"iPadOS{number}", *others)
    return {
        name: Target(name, number, opset, f"CoreML{specification - 1}", specification, adds) for name in names
    }


#: By name, the oldest first.
TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    _targets(15, 6, ("macOS12", "tvOS15", "watchOS8"), "ML Programs")
    | _targets(
        16,
        7,
        ("macOS13", "tvOS16", "watchOS9"),
        "float16 inputs and outputs; weights as tables of a tensor, in 8 bits, or sparse",
    )
    | _targets(
        17,
        8,
        ("macOS14", "tvOS17", "watchOS10", "visionOS1"),
        "activations in 8 bits; indices of 16 bits; weights that are decompressed as they are needed",
    )
    | _targets(
        18,
        9,
        ("macOS15", "tvOS18", "watchOS11", "visionOS2"),
        "scaled_dot_product_attention; states; several functions; tables of groups and of vectors, 4 bits "
        "in blocks, and sparse weights that are compressed, too",
    )
    | _targets(
        26,
        10,
        ("macOS26", "tvOS26", "watchOS26", "visionOS26"),
        "int8 inputs and outputs",
    )
)

#: One of each year, by the file's name of its operations (``CoreML6``).
OPSETS: Final[Mapping[str, Target]] = MappingProxyType(
    {target.core_ml: target for name, target in TARGETS.items() if name == target.opset}
)


def names_from(number: int) -> tuple[str, ...]:
    """The names of the systems from the iOS ``number`` on."""
    return tuple(name for name, target in TARGETS.items() if target.number >= number)

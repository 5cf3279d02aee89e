"""Deployment targets: the oldest system that is to load a package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from .errors import OptionsError


@dataclass(frozen=True, slots=True)
class Target:
    """``opset``: coremltools' name for a set of operations; ``specification``: the file format's version."""

    name: str
    opset: str
    specification: int


def _targets(opset: str, specification: int, *names: str) -> dict[str, Target]:
    return {name: Target(name, opset, specification) for name in names}


TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    _targets("iOS16", 7, "macOS13", "iOS16")
    | _targets("iOS17", 8, "macOS14", "iOS17")
    | _targets("iOS18", 9, "macOS15", "iOS18")
)

#: The set of operations that has ``scaled_dot_product_attention``.
FUSED_ATTENTION_OPSET: Final = "iOS18"


def target_named(name: str) -> Target:
    """The target called ``name``.

    Raises:
        OptionsError: there is none; the choices are said.
    """
    try:
        return TARGETS[name]
    except KeyError:
        raise OptionsError(f"target: expected one of {', '.join(TARGETS)}, got {name!r}") from None

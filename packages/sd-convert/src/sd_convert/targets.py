"""Deployment targets: the oldest system that is to load a package."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sd_mil.ir import TARGETS as SYSTEMS
from sd_mil.ir import Target, names_from

from .errors import OptionsError

#: The first iOS that takes the float16 inputs which apps expect.
_OLDEST: Final = 16
#: The first that has ``scaled_dot_product_attention``, and packages of several functions.
_FUSED_ATTENTION: Final = 18
_FUNCTIONS: Final = 18

TARGETS: Final[Mapping[str, Target]] = MappingProxyType({name: SYSTEMS[name] for name in names_from(_OLDEST)})


def has_fused_attention(target: Target) -> bool:
    """Whether its operations include ``scaled_dot_product_attention``."""
    return target.number >= _FUSED_ATTENTION


def has_functions(target: Target) -> bool:
    """Whether a package for it may have several functions."""
    return target.number >= _FUNCTIONS


def target_named(name: str) -> Target:
    """The target called ``name``.

    Raises:
        OptionsError: there is none; the choices are said.
    """
    try:
        return TARGETS[name]
    except KeyError:
        raise OptionsError(f"target: expected one of {', '.join(TARGETS)}, got {name!r}") from None

"""What the systems that packages are made for can decode."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sd_mil.ir import OPSETS as SYSTEMS_BY_OPSET
from sd_mil.ir import TARGETS as SYSTEMS

from .errors import CompressionError, UnsupportedFormError
from .granularity import PerBlock, PerTensor
from .schemes import Joint, Keep, Linear, Palettize, Prune, Scheme

#: The set of operations that a function is written in, by the iOS that has it first; and the version of the
#: file format.
OPSETS: Final[Mapping[int, tuple[str, int]]] = MappingProxyType(
    {target.number: (core_ml, target.specification) for core_ml, target in SYSTEMS_BY_OPSET.items()}
)
TARGETS: Final[Mapping[str, int]] = MappingProxyType(
    {name: target.number for name, target in SYSTEMS.items()}
)
_OLDEST_COMPRESSED: Final = 16
_INTEGER_ACTIVATIONS: Final = 17
_BLOCKWISE: Final = 18


def target_named(name: str) -> int:
    """The number of the iOS whose operations the target called ``name`` has.

    Raises:
        CompressionError: there is none; the choices are said.
    """
    if name not in TARGETS:
        raise CompressionError(f"target: expected one of {', '.join(TARGETS)}, got {name!r}")
    return TARGETS[name]


def target_of(opset: str) -> int:
    """The number of the iOS that first had an opset; one that is newer than any known counts as the last."""
    return next((number for number, (name, _) in OPSETS.items() if name == opset), max(OPSETS))


def needed(scheme: Scheme) -> int:
    """The number of the first iOS that decodes what the scheme makes."""
    if isinstance(scheme, Joint):
        return _BLOCKWISE
    if isinstance(scheme, Palettize):
        is_plain = isinstance(scheme.granularity, PerTensor) and scheme.vector_size == 1
        is_old = is_plain and not scheme.per_channel_scale and scheme.nbits != 3
        return _OLDEST_COMPRESSED if is_old else _BLOCKWISE
    if isinstance(scheme, Linear):
        if scheme.activations is not None:
            return _INTEGER_ACTIVATIONS
        is_old = scheme.dtype in ("int8", "uint8") and not isinstance(scheme.granularity, PerBlock)
        return _OLDEST_COMPRESSED if is_old else _BLOCKWISE
    return 0 if isinstance(scheme, Keep) else _OLDEST_COMPRESSED


def check_supported(name: str, scheme: Scheme, target: int) -> None:
    """Refuse what the target cannot decode.

    Raises:
        UnsupportedFormError: naming the first target that can.
    """
    if (first := needed(scheme)) > target:
        raise UnsupportedFormError(
            f"{name}: expected a form of weights that iOS{target} has, got {_described(scheme)}; "
            f"ask for the target iOS{first} (macOS{first - 3})"
        )


def _described(scheme: Scheme) -> str:
    if isinstance(scheme, Palettize):
        extras = f"vectors of {scheme.vector_size}{', scales of channels' * scheme.per_channel_scale}"
        return f"{scheme.nbits}-bit palettes, {type(scheme.granularity).__name__}, {extras}"
    if isinstance(scheme, Linear):
        activations = ", and activations" if scheme.activations is not None else ""
        return f"{scheme.dtype}, {type(scheme.granularity).__name__}{activations}"
    return "sparse weights" if isinstance(scheme, Prune) else "sparse weights that are compressed, too"

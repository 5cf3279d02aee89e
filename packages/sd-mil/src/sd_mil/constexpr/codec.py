"""What a codec is: the decoder of one ``constexpr_*`` operation.

Arguments arrive in the dtype they are stored in (fp16 as fp16, sub-byte integers unpacked) and results leave
in the one that is declared: the arithmetic is coremltools' own, rounding included, so that the bits are the
same. The iOS 16 forms keep packed bytes and a ``shape``; the iOS 18 forms have typed sub-byte tensors.

Source: coremltools, ``decompress`` of the operations in ``defs/iOS16/constexpr_ops.py`` and
``defs/iOS18/compression.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Decoder: TypeAlias = Callable[..., "Array | tuple[Array, ...]"]

_D = TypeVar("_D", bound=Decoder)


@dataclass(frozen=True)
class Codec:
    """How weights of one kind are decoded.

    ``decode`` takes the operation's parameters by their names and returns its output, or a tuple of them.
    ``choices`` has the values that some parameters are limited to; ``ignored`` are parameters that change
    nothing, because the result's dtype follows from the declared type.
    """

    name: str
    decode: Decoder
    signature: inspect.Signature
    choices: Mapping[str, Collection[object]] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()


#: By the type of the operation; :func:`codec` adds to it.
CODECS: dict[str, Codec] = {}


def codec(
    name: str, *, choices: Mapping[str, Collection[object]] | None = None, ignored: tuple[str, ...] = ()
) -> Callable[[_D], _D]:
    """Register the decorated function as the decoder of the operation ``name``, for every engine.

    Raises:
        ValueError: the name does not begin with ``constexpr_``, or has a decoder.
    """
    if not name.startswith("constexpr_") or name in CODECS:
        raise ValueError(f"expected a new name that begins with constexpr_, got {name!r}")

    def register(decode: _D) -> _D:
        CODECS[name] = Codec(name, decode, inspect.signature(decode), choices or {}, frozenset(ignored))
        return decode

    return register


def is_compressed(op_type: str) -> bool:
    """Whether an operation of this type decodes weights, in a way that is known."""
    return op_type in CODECS


def as_fp32(values: Array, dtype: np.dtype[Any]) -> Array:
    """fp32 values as ``dtype`` has them."""
    return values if dtype == np.float32 else values.astype(dtype).astype(np.float32)

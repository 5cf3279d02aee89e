"""How big a tensor may be, and how long a loop: one line of an untrusted program can ask for a terabyte."""

from __future__ import annotations

import math

import numpy as np

from sd_mil.errors import PackageError
from sd_mil.ir.dtypes import stored_bytes
from sd_mil.ir.program import ValueType

#: Of one declared tensor. The largest that a real program declares, the attention scores of a picture of
#: 1024 x 1024 pixels in fp16, are half of it (and a good engine never computes them).
MAX_DECLARED_BYTES = 1 << 34
#: Of one tensor that numpy computes in 4 bytes per element.
MAX_COMPUTED_ELEMENTS = 1 << 30
#: Of one loop, or of a recurrent layer. A decoder makes a few hundred; no program that ends makes as many.
MAX_ITERATIONS = 1 << 17
#: Of an axis that is split, of size 0, which any number divides, or of unknown size.
MAX_EMPTY_PARTS = 4096
#: Of a tensor of no elements, its other sizes multiplied: it takes no memory, but going through it takes
#: time.
MAX_EMPTY_PLACES = 1 << 20


def check_declared(kind: ValueType, name: str) -> None:
    """Refuse a declared type that no machine should be asked to hold.

    Raises:
        PackageError: more than ``MAX_DECLARED_BYTES``.
    """
    if kind.dtype == "string" or not kind.shape:
        return
    size = stored_bytes(kind.dtype, tuple(1 if size is None else size for size in kind.shape))
    if size > MAX_DECLARED_BYTES:
        raise PackageError(f"expected values of at most {MAX_DECLARED_BYTES} bytes, got {kind} for {name!r}")


def check_translated(op_type: str, name: str, shape: tuple[int, ...], *, is_fused: bool) -> None:
    """Refuse a tensor before OpenVINO allocates it, which it may do while it compiles.

    ``is_fused``: it is computed in parts, and never there as a whole.

    Raises:
        PackageError: more elements than ``MAX_COMPUTED_ELEMENTS``; of those that are fused, more bytes in
            fp32 than ``MAX_DECLARED_BYTES``.
    """
    limit = MAX_DECLARED_BYTES // 4 if is_fused else MAX_COMPUTED_ELEMENTS
    if math.prod(shape) > limit:
        raise PackageError(
            f"expected at most {limit} elements of {op_type} {name!r}, got shape {list(shape)}"
        )


def check_computed(*sizes: float) -> None:
    """Refuse to compute a tensor of these sizes, before it is allocated.

    Raises:
        ValueError: more than ``MAX_COMPUTED_ELEMENTS``; the interpreter says in which operation.
    """
    if math.prod(sizes) > MAX_COMPUTED_ELEMENTS:
        shape = [int(size) if math.isfinite(size) else size for size in sizes]
        raise ValueError(f"more than {MAX_COMPUTED_ELEMENTS} elements, in shape {shape}")


def check_broadcast(*shapes: tuple[int, ...]) -> None:
    """Refuse to compute on tensors of these shapes together, before the result is allocated.

    Raises:
        ValueError: they do not fit each other, or more than ``MAX_COMPUTED_ELEMENTS`` come of them.
    """
    if math.prod(map(math.prod, shapes)) > MAX_COMPUTED_ELEMENTS:  # else not even one beside the other
        check_computed(*np.broadcast_shapes(*shapes))


def check_empty(shape: tuple[int, ...]) -> None:
    """Refuse to go through a tensor of no elements that has these sizes.

    Raises:
        ValueError: more than ``MAX_EMPTY_PLACES``; the interpreter says in which operation.
    """
    if 0 in shape and math.prod(filter(None, shape)) > MAX_EMPTY_PLACES:
        raise ValueError(f"more than {MAX_EMPTY_PLACES} places for no elements, in shape {list(shape)}")


def check_parts(size: int, count: int) -> None:
    """Refuse to split an axis of ``size`` into so many parts, before they are made.

    Raises:
        ValueError: more than there are elements, or than ``MAX_EMPTY_PARTS`` if there are none; or none.
    """
    if not 0 < count <= max(size, MAX_EMPTY_PARTS):
        raise ValueError(f"expected as many parts as {size} elements can be in, got {count}")


def check_iterations(count: int) -> None:
    """Refuse to go on with a loop that has run so often.

    Raises:
        ValueError: more than ``MAX_ITERATIONS``; whoever runs the loop says which it is.
    """
    if count > MAX_ITERATIONS:
        raise ValueError(f"more than {MAX_ITERATIONS} iterations")

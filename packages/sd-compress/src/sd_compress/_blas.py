"""How many threads products of matrices take, while threads of ours call for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any


@dataclass(slots=True)
class _Limit:
    """Blocks that are entered and not left yet, in whichever threads; ``limits`` is that of the first."""

    lock: Lock = field(default_factory=Lock)
    blocks: int = 0
    limits: Any = None


_LIMIT = _Limit()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """In the block a product of matrices takes the thread that asks for it, and no other.

    BLAS has threads of its own, which wait by spinning: those of several callers, each with as many as there
    are cores, take more than twice the processor's time for the same palettes. Blocks may overlap; the last
    that is left gives BLAS its threads back.
    """
    from threadpoolctl import threadpool_limits

    with _LIMIT.lock:
        if not _LIMIT.blocks:
            _LIMIT.limits = threadpool_limits(1, user_api="blas")
        _LIMIT.blocks += 1
    try:
        yield
    finally:
        with _LIMIT.lock:
            _LIMIT.blocks -= 1
            if not _LIMIT.blocks:
                _LIMIT.limits.restore_original_limits()

"""What a killed process left beside a bundle: cleared away by the next one that writes there.

A draft's folder is locked for as long as its process lives. Whoever gets the lock of another's draft
therefore knows that nobody works on it any more.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

PARTIAL: Final = "partial"
OLD: Final = "old"


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of ``folder``, or say false: somebody else does, or there are no such locks here."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(fcntl, descriptor, wait)
    finally:
        os.close(descriptor)


def clear_leftovers(target: Path) -> None:
    """Remove the drafts of ``target`` whose processes are gone, and finish what one left between two renames.

    A bundle that was moved aside, with nothing in its place, comes back; with a new one there, it goes. An
    empty draft is left alone: its process may not have come to lock it yet.
    """
    are_dead = [_clear_draft(draft) for draft in _siblings(target, PARTIAL)]
    if not all(are_dead):
        return  # somebody is at work, and may be just between the two renames
    for aside in _siblings(target, OLD):
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(target)


def _clear_draft(draft: Path) -> bool:
    """Whether nobody works on ``draft``; then it is gone, if it held anything."""
    try:
        with locked(draft) as is_ours:
            if is_ours and any(draft.iterdir()):
                shutil.rmtree(draft, ignore_errors=True)
            return is_ours
    except OSError:  # gone while we looked, or not ours to open
        return False


def _siblings(target: Path, suffix: str) -> list[Path]:
    if not target.parent.is_dir():
        return []
    start, end = f".{target.name}.", f".{suffix}"
    return [
        path
        for path in sorted(target.parent.iterdir())
        if path.name.startswith(start)
        and path.name.endswith(end)
        and _is_token(path.name[len(start) : -len(end)])
    ]


def _is_token(text: str) -> bool:
    """Whether it is what ``secrets.token_hex(4)`` makes."""
    return len(text) == 8 and set(text) <= set("0123456789abcdef")


def _lock(fcntl: Any, descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True

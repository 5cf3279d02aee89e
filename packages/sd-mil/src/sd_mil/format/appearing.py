"""Folders that appear whole: written beside their place, renamed at the end, swept up after a kill.

A folder that is being written is locked for as long as its process lives, so that whoever gets the lock of
one knows that it was abandoned. On Windows, which locks files only, and renames no folder with an open one,
the lock is that of an empty file beside it. sd-bundle's drafts do the same for bundles; neither package needs
the other.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def appearing(root: Path) -> Iterator[Path]:
    """A folder beside ``root``, of a name that is short and nobody else's, which becomes it at the end.

    What killed processes left of ``root`` is removed first.

    Raises:
        FileExistsError: there is something at ``root``, before or after.
    """
    _refuse_existing(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{hashlib.sha256(os.fsencode(root.name)).hexdigest()[:12]}"
    for left in root.parent.glob(f"{stem}.*.partial"):
        _remove_abandoned(left)
    folder, lock = _created(root, stem)
    try:
        yield folder
        _refuse_existing(root)
        folder.rename(root)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        _unlock(folder, lock)


def _created(root: Path, stem: str) -> tuple[Path, int | None]:
    """A new folder and its lock: made again if somebody took it for abandoned before the lock was ours."""
    while True:
        folder = root.with_name(f"{stem}.{secrets.token_hex(4)}.partial")
        folder.mkdir()
        lock = _locked(folder)
        if folder.exists():
            return folder, lock
        _unlock(folder, lock)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _remove_abandoned(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    lock = _locked(folder)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(folder, lock)


def _locked(folder: Path) -> int | None:
    """The descriptor that holds the folder's lock until it is closed; None if somebody else holds it."""
    try:
        import fcntl
    except ImportError:
        return _locked_beside(folder)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # gone while we looked, or not ours to open
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _locked_beside(folder: Path) -> int | None:
    """As :func:`_locked`, on Windows; None where there are no locks either."""
    try:
        msvcrt: Any = importlib.import_module("msvcrt")
        os.lstat(folder)
        descriptor = os.open(_beside(folder), os.O_RDWR | os.O_CREAT)
    except (ImportError, OSError):
        return None
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(folder: Path, lock: int | None) -> None:
    if lock is None:
        return
    os.close(lock)
    with suppress(OSError):  # there is none but on Windows, where somebody may have opened it by now
        _beside(folder).unlink()


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")

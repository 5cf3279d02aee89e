"""Temporary files and folders beside what they will become, and what a killed process left of them.

A draft is ``.NAME.xxxxxxxx.partial`` in the folder of ``NAME``, on the same file system, so that it can be
renamed; where ``NAME`` is long, a hash stands for it, since file systems end names at 255 bytes or earlier. A
draft is locked for as long as its process lives, on Windows by an empty file beside it. Whoever gets the lock
of another's draft therefore knows that nobody works on it any more, and the next one that writes ``NAME``
clears it away.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

PARTIAL: Final = "partial"
OLD: Final = "old"

#: Bytes of a name up to which a draft's name repeats it; encrypting file systems end names at 143.
_LONGEST: Final = 120
_TOKEN: Final = 4  # bytes


@contextmanager
def draft_folder(target: Path) -> Iterator[Path]:
    """A new empty folder beside ``target``, locked, and removed afterwards unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _draft(target, Path.mkdir) as draft:
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """An empty file beside ``target``, to be written in the ``with`` block; it takes the place of ``target``.

    If the block raises, ``target`` is as it was. Drafts of ``target`` that dead processes left are removed.

    Raises:
        OSError: the folder cannot be written, or ``target`` is a folder.
    """
    remove_abandoned(target)
    with _draft(target, lambda path: path.touch(exist_ok=False)) as draft:
        try:
            yield draft
            os.replace(draft, target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def sibling(target: Path, suffix: str = PARTIAL) -> Path:
    """A name beside ``target`` that nothing has."""
    return target.with_name(f".{_stem(target)}.{secrets.token_hex(_TOKEN)}.{suffix}")


def siblings(target: Path, suffix: str) -> list[Path]:
    """What :func:`sibling` has named for the same ``target``, by whichever process."""
    start, end = f".{_stem(target)}.", f".{suffix}"
    try:
        with os.scandir(target.parent) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.name.startswith(start)
                and entry.name.endswith(end)
                and _is_token(entry.name[len(start) : -len(end)])
            )
    except OSError:  # there is no such folder, or we may not look
        return []
    return [target.with_name(name) for name in names]


def remove_abandoned(target: Path) -> bool:
    """Remove the drafts of ``target`` whose processes are gone; whether there are no others."""
    all_gone = True
    for draft in siblings(target, PARTIAL):
        with abandoned(draft) as is_ours:
            if is_ours:
                remove(draft)
            all_gone = all_gone and is_ours
    return all_gone


def clear_leftovers(target: Path) -> None:
    """Remove the drafts of ``target`` whose processes are gone, and finish what one left between two renames.

    A bundle that was moved aside, with nothing in its place, comes back; with a new one there, it goes.
    """
    if not remove_abandoned(target):
        return  # somebody is at work, and may be just between the two renames
    for aside in siblings(target, OLD):
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(target)


def put_in_place(temporary: Path, target: Path) -> None:
    """Rename ``temporary`` to ``target``; until that has happened the old ``target`` can come back."""
    aside = sibling(target, OLD)
    try:
        if target.exists():
            target.rename(aside)
        temporary.rename(target)
    except BaseException:
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
    flush(target.parent)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if os.name == "nt":
        return  # Windows flushes neither folders nor files that are open for reading
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def abandoned(draft: Path) -> Iterator[bool]:
    """Whether nobody works on ``draft``; for the length of the block, nobody begins to."""
    with ExitStack() as stack:
        try:
            is_ours = not draft.is_symlink() and stack.enter_context(locked(draft))
        except OSError:  # gone while we looked, or not ours to open
            is_ours = False
        yield is_ours


def remove(draft: Path) -> None:
    """Remove a file or folder, as far as that is possible."""
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of a file or folder, or say false: somebody else does, or there are no locks here."""
    try:
        import fcntl
    except ImportError:
        with _locked_beside(path, wait=wait) as is_ours:
            yield is_ours
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO of that name must not hold us
    try:
        yield _lock(fcntl, descriptor, wait)
    finally:
        os.close(descriptor)


@contextmanager
def _locked_beside(path: Path, *, wait: bool) -> Iterator[bool]:
    """As :func:`locked` on Windows, which locks files only: an empty one beside ``path``, gone with the lock.

    A folder with an open file could not be renamed there, so it cannot be one inside.
    """
    try:
        msvcrt: Any = importlib.import_module("msvcrt")
    except ImportError:  # no locks at all
        yield False
        return
    os.lstat(path)  # what is gone is not locked
    beside, is_ours = path.with_name(f"{path.name}.lock"), True
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT)
    try:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            is_ours = False
        yield is_ours
    finally:
        os.close(descriptor)
        if is_ours:
            with suppress(OSError):  # somebody has opened it, and removes it then
                beside.unlink()


def link_or_copy(source: Path, target: Path) -> None:
    """The file under a second name: a hard link, or a copy where the file system has none."""
    try:
        os.link(source.resolve(), target)  # of a link, what it leads to
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def _draft(target: Path, create: Callable[[Path], None]) -> Iterator[Path]:
    """A new draft, locked: made again if another process took it for abandoned before the lock was ours."""
    while True:
        draft = sibling(target)
        try:
            create(draft)
            with ExitStack() as stack:
                try:
                    stack.enter_context(locked(draft, wait=True))
                except FileNotFoundError:
                    continue
                if draft.exists():
                    yield draft
                    return
        except FileExistsError:  # of that name there was another's; or the block's, which removes its own
            raise
        except BaseException:  # an interrupt may come as soon as there is something
            remove(draft)
            raise


def _stem(target: Path) -> str:
    name = os.fsencode(target.name)
    return target.name if len(name) <= _LONGEST else hashlib.sha256(name).hexdigest()[:32]


def _is_token(text: str) -> bool:
    """Whether it is what ``secrets.token_hex`` makes."""
    return len(text) == 2 * _TOKEN and set(text) <= set("0123456789abcdef")


def _lock(fcntl: Any, descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True

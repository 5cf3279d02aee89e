"""The limits of the machine, said in one line each."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sd_convert.errors import NotEnoughMemoryError, NotEnoughSpaceError

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: What the loader of shared libraries and torch say, in exceptions that also mean other things.
_NO_MEMORY: Final = (
    "failed to map segment",
    "cannot allocate memory",
    "can't allocate memory",
    "not enough memory",
)


def check_space(folder: Path, needed: int) -> None:
    """Refuse with :class:`NotEnoughSpaceError` to write ``needed`` bytes that do not fit into ``folder``."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NotEnoughSpaceError(
            f"{folder.parent}: expected {_gigabytes(needed)} of free disk space for the packages, "
            f"got {_gigabytes(free)}: free some, or choose another output"
        )


@contextmanager
def limits_named(output: Path) -> Iterator[None]:
    """Errors of the block that mean a full disk or too little memory, as what they mean.

    Raises:
        NotEnoughSpaceError, NotEnoughMemoryError: in place of OSError, MemoryError, and what libraries raise.
    """
    try:
        yield
    except (MemoryError, OSError, ImportError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise NotEnoughSpaceError(
                f"{output}: the bundle could not be written: {error.strerror}; nothing of it was left behind"
            ) from error
        if _is_memory(error):
            raise NotEnoughMemoryError(
                f"{output}: memory ran out; nothing was left behind: raise the limit, close other programs, "
                "or convert fewer components at a time"
            ) from error
        raise


def _is_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(words in str(error).lower() for words in _NO_MEMORY)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"

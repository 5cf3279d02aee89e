"""Paths inside a bundle: relative, POSIX, portable, and never out of the folder."""

from __future__ import annotations

import re
from pathlib import Path

from sd_bundle.errors import ManifestError

_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_LONGEST = 400  # characters; a bundle's own paths stay under 120
PATH_RULE = (
    "a relative POSIX path without '.', '..', empty or trailing-dot parts, and none of \\ : * ? \" < > |"
)


def check_relative(path: str, where: str) -> None:
    """Refuse any spelling that could leave the folder or mean another file on another system.

    Raises:
        ManifestError: absolute paths, ``..``, backslashes, drive letters, control characters, over-long ones.
    """
    parts = path.split("/")
    sound = all(part and part == part.rstrip(". ") for part in parts)
    if not sound or _FORBIDDEN.search(path) or len(path) > _LONGEST:
        raise ManifestError(where, PATH_RULE, path)


def inside(folder: Path, path: str, where: str) -> Path:
    """``folder / path`` with every link resolved, refused if a link leads out of ``folder``.

    Raises:
        ManifestError: the resolved path lies outside.
    """
    resolved = (folder / path).resolve()
    if not resolved.is_relative_to(folder.resolve()):
        raise ManifestError(where, "a file inside the bundle", f"{path}, a link that leads out of it")
    return folder / path

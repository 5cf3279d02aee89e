"""Small JSON files of a checkpoint, which are untrusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from sd_convert.errors import IncompleteCheckpointError, NotACheckpointError

#: Bytes; the largest there is, a vocabulary or an index of shards, has a few million.
_LARGEST: Final = 64 * 2**20


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        IncompleteCheckpointError: it is no JSON, as after a download that broke off.
        NotACheckpointError: it is too large, or JSON of another kind.
    """
    if path.stat().st_size > _LARGEST:
        raise NotACheckpointError(f"{path}: expected at most {_LARGEST} bytes, got {path.stat().st_size}")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise IncompleteCheckpointError(
            f"{path}: expected JSON, got {error}; download it again (`git lfs pull` if it is an lfs pointer)"
        ) from error
    if not isinstance(document, dict):
        raise NotACheckpointError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document

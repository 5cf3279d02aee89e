"""The hub's client without what it tells and asks beside the files.

Left alone, huggingface_hub fetches a list of coding agents from the hub once a day and keeps it in its cache,
and sends the name of the one that it is run by, and torch's version, with every request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_before: list[bool] = []  # the host's choice, once for each context that is open


@contextmanager
def without_telemetry() -> Iterator[None]:
    """``HF_HUB_DISABLE_TELEMETRY`` for as long as any such context lasts, then what it was before.

    It is the client's own switch, for all threads; nothing is lost but telemetry.
    """
    from huggingface_hub import constants

    with _lock:
        _before.append(_before[0] if _before else constants.HF_HUB_DISABLE_TELEMETRY)
        constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        with _lock:
            before = _before.pop()
            constants.HF_HUB_DISABLE_TELEMETRY = before if not _before else True

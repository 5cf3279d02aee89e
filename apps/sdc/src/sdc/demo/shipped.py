"""Where the demo checkpoint lies."""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path


def demo_checkpoint() -> AbstractContextManager[Path]:
    """The diffusers folder that ships with sdc, on disk for as long as the context lasts."""
    return as_file(files("sdc.demo") / "checkpoint")

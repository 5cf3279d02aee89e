"""coremltools, imported without its noise."""

from __future__ import annotations

import importlib
import logging
import warnings
from types import ModuleType


def import_coremltools() -> ModuleType:
    """The module ``coremltools``.

    Its first import off the Mac logs that libraries of macOS are missing, once for each, and that it was not
    tested with this torch; neither matters to building programs. It is silenced during the import only.
    """
    logger = logging.getLogger("coremltools")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("coremltools")
    finally:
        logger.setLevel(before)

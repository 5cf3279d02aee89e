"""OpenVINO, imported here and nowhere else first. Importing this module imports it.

OpenVINO's model converter, which ``import openvino`` brings along, sends an event to Google's analytics from
a process of its own, and writes an identifier of the user into the home folder. It does neither where the
package ``openvino_telemetry`` cannot be imported (``openvino.tools.ovc.telemetry_stub`` takes its place), so
that is how it is imported. After that ``openvino_telemetry`` is what it was before, for whoever wants it.

Modules that import openvino at their top import this one before.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType

from sd_mil.errors import MissingEngineError

_TELEMETRY = "openvino_telemetry"
_hiding = threading.Lock()


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Make ``import openvino_telemetry`` fail for as long as the context lasts."""
    with _hiding:
        modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]  # None: not importable
        was_there, before = _TELEMETRY in modules, modules.get(_TELEMETRY)
        modules[_TELEMETRY] = None
        try:
            yield
        finally:
            del modules[_TELEMETRY]
            if was_there:
                modules[_TELEMETRY] = before


def import_openvino() -> ModuleType:
    """The module ``openvino``.

    Raises:
        MissingEngineError: OpenVINO is not installed.
    """
    try:
        with nullcontext() if sys.modules.get("openvino") else _without_telemetry():
            return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingEngineError(
            'the portable engine needs OpenVINO: pip install "sd-mil[openvino]" (or use engine="reference")'
        ) from error


import_openvino()

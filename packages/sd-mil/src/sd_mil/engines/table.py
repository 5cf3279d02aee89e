"""The names of engines: one table, for the command line and for everybody who is given a name."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable
from typing import Any

from sd_mil.engines.coreml import CoreML
from sd_mil.engines.portable import OpenVINO
from sd_mil.engines.protocol import Engine, ModelEngine, ProgramEngine
from sd_mil.engines.reference.engine import Reference
from sd_mil.errors import EngineError

#: What makes the engine of a name, from the options that it has. Others may be added.
ENGINES: dict[str, Callable[..., Engine]] = {
    "portable": OpenVINO,
    "reference": Reference,
    "coreml": CoreML,
}

#: Core ML where it is, the portable engine elsewhere.
AUTO = "auto"


def meant(name: str) -> str:
    """The name itself, or that of the engine which ``auto`` is on this machine."""
    if name != AUTO:
        return name
    return "coreml" if platform.system() == "Darwin" else "portable"


def engine_named(name: str | Engine, **options: Any) -> Engine:
    """The engine of a name, with those ``options`` that are not None; an engine is returned as it is.

    Options are those of the classes: ``precision`` of :class:`OpenVINO`, ``rounding`` of :class:`Reference`,
    ``compute_unit`` of :class:`CoreML`.

    Raises:
        EngineError: no such name, or an option that the engine does not have.
    """
    chosen = {option: value for option, value in options.items() if value is not None}
    if not isinstance(name, str):
        if not isinstance(name, ProgramEngine | ModelEngine):
            raise EngineError(f"expected an engine or the name of one, got {type(name).__name__}")
        if chosen:
            raise EngineError(f"expected {', '.join(chosen)} to be given to the engine itself, got an engine")
        return name
    name = meant(name)
    if name not in ENGINES:
        raise EngineError(f"expected engine to be one of {', '.join([AUTO, *ENGINES])}, got {name!r}")
    known = inspect.signature(ENGINES[name]).parameters
    for option, value in chosen.items():
        if option not in known:
            others = [
                other for other, made in ENGINES.items() if option in inspect.signature(made).parameters
            ]
            raise EngineError(
                f"expected no {option} for the engine {name}, got {value!r}: only {', '.join(others)} has it"
            )
    return ENGINES[name](**chosen)

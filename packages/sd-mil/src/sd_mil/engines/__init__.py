"""What executes programs and models: engines as objects, and one table of their names.

An engine is any object that is a :class:`ProgramEngine` or a :class:`ModelEngine`. The libraries of those
that are here are imported when something is compiled.
"""

from sd_mil.engines.coreml import CoreML
from sd_mil.engines.portable import OpenVINO
from sd_mil.engines.protocol import CompiledProgram, Engine, ModelEngine, OpenedModel, ProgramEngine
from sd_mil.engines.reference.engine import Reference
from sd_mil.engines.table import AUTO, ENGINES, engine_named

__all__ = [
    "AUTO",
    "ENGINES",
    "CompiledProgram",
    "CoreML",
    "Engine",
    "ModelEngine",
    "OpenVINO",
    "OpenedModel",
    "ProgramEngine",
    "Reference",
    "engine_named",
]

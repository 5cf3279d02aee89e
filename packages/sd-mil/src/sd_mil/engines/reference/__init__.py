"""The reference engine: plain numpy, one op = one function, slow and exact. The oracle of the others."""

from sd_mil.engines.reference.interpreter import (
    CompiledBlock,
    Event,
    Observer,
    ReferenceProgram,
    compile_block,
    compile_program,
)
from sd_mil.engines.reference.values import Cell, ListValue

__all__ = [
    "Cell",
    "CompiledBlock",
    "Event",
    "ListValue",
    "Observer",
    "ReferenceProgram",
    "compile_block",
    "compile_program",
]

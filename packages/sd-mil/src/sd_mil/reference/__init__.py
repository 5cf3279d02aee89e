"""The reference engine: plain numpy, one op = one function, slow and exact. The oracle of the others."""

from sd_mil.reference.interpreter import ReferenceProgram, compile_program

__all__ = ["ReferenceProgram", "compile_program"]

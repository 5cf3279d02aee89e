"""Programs of which a backend runs what it can, and numpy what is between."""

from sd_mil.engines.hybrid.backend import Backend
from sd_mil.engines.hybrid.program import HybridProgram, compile_in_parts

__all__ = ["Backend", "HybridProgram", "compile_in_parts"]

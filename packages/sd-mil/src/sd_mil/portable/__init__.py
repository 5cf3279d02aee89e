"""The portable engine: an ML Program on OpenVINO, on any processor that OpenVINO runs on.

:func:`compile_program` is the way in. A program is checked, rewritten by :mod:`sd_mil.portable.passes` where
that makes it faster, and translated operation by operation (:mod:`sd_mil.portable.ops`).
"""

from sd_mil.portable.compiled import CompiledProgram, compile_program

__all__ = ["CompiledProgram", "compile_program"]

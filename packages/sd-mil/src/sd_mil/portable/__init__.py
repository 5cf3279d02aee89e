"""The portable engine: an ML Program on OpenVINO, on any processor that OpenVINO runs on.

:func:`compile_program` is the way in. A program is checked, rewritten by :mod:`sd_mil.portable.passes` where
that makes it faster, and translated operation by operation (:mod:`sd_mil.portable.ops`). What has no
translation is executed by the reference engine between compiled segments (:mod:`sd_mil.portable.hybrid`).
"""

from sd_mil.portable.compiled import CompiledProgram
from sd_mil.portable.hybrid import HybridProgram, compile_program

__all__ = ["CompiledProgram", "HybridProgram", "compile_program"]

"""The portable engine: an ML Program on OpenVINO, on any processor that OpenVINO runs on.

:func:`compile_program` is the way in. A program is checked, rewritten by :mod:`sd_mil.rewriting` where
that makes it faster, and translated operation by operation (:mod:`sd_mil.engines.openvino.ops`). What has
no translation is executed by the reference engine between compiled segments (:mod:`sd_mil.engines.hybrid`).
"""

from sd_mil.engines.hybrid.program import HybridProgram, compile_program
from sd_mil.engines.openvino.compiled import CompiledProgram

__all__ = ["CompiledProgram", "HybridProgram", "compile_program"]

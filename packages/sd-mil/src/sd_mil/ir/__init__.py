"""An ML Program as values, and the questions that every pass and engine asks of one.

Nothing here reads a file, computes a number of a model, or knows an engine.
"""

from sd_mil.ir.dtypes import NUMPY_DTYPES, stored_bytes
from sd_mil.ir.joining import alone, content_key, joined
from sd_mil.ir.pipelines import programs_in, with_programs
from sd_mil.ir.targets import OPSETS, TARGETS, Target, names_from
from sd_mil.ir.tensors import PIECE, Tensor
from sd_mil.ir.uses import constants_in, constants_of, operand, references, storage_key

__all__ = [
    "NUMPY_DTYPES",
    "OPSETS",
    "PIECE",
    "TARGETS",
    "Target",
    "Tensor",
    "alone",
    "constants_in",
    "constants_of",
    "content_key",
    "joined",
    "names_from",
    "operand",
    "programs_in",
    "references",
    "storage_key",
    "stored_bytes",
    "with_programs",
]

"""Rewrites of a program that change its speed and nothing else, in the order in which they run."""

from __future__ import annotations

from sd_mil.ir.program import Program
from sd_mil.rewriting.attention_rows import attend_over_rows
from sd_mil.rewriting.boundaries import crossing_in_fp16, crossing_in_fp32
from sd_mil.rewriting.casts import drop_casts
from sd_mil.rewriting.chunking import chunked, piece_description
from sd_mil.rewriting.decoding import decode_constants
from sd_mil.rewriting.folding import fold_constants
from sd_mil.rewriting.integers import compute_in_integers
from sd_mil.rewriting.merge_heads import merge_heads
from sd_mil.rewriting.outputs import returning
from sd_mil.rewriting.passes import Pass, PassError, Property, rewrites
from sd_mil.rewriting.recurrences import join_recurrences
from sd_mil.rewriting.rows import compute_in_rows
from sd_mil.rewriting.standardise import standardise
from sd_mil.rewriting.text_encoders import with_rows, without_last_layers
from sd_mil.rewriting.unused import drop_unused

__all__ = [
    "PASSES",
    "Pass",
    "PassError",
    "Property",
    "chunked",
    "compute_in_integers",
    "crossing_in_fp16",
    "crossing_in_fp32",
    "decode_constants",
    "join_recurrences",
    "piece_description",
    "returning",
    "rewrite",
    "rewrites",
    "with_rows",
    "without_last_layers",
]

#: In order, after :func:`decode_constants`: casts and what is done to constants first, because they hide
#: patterns; attention before rows, because it leaves transposes that those undo; what they all leave without
#: a user, the last drops.
PASSES: tuple[Pass[[]], ...] = (
    drop_casts,
    fold_constants,
    standardise,
    merge_heads,
    attend_over_rows,
    compute_in_rows,
    drop_unused,
)


def rewrite(program: Program) -> Program:
    """``program`` after every pass."""
    for rewrite_once in PASSES:
        program = rewrite_once(program)
    return program

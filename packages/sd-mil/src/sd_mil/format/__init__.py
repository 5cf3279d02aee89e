"""Every file format that an ML Program has, in both directions, with numpy and nothing else.

Reading: wire -> values, graph, description -> specification -> package: bytes, messages, the program.
A compiled model holds the same program as text: text -> compiled -> package. Writing is the inverse, and
streams: a tensor is read when it is written, and forgotten.
"""

from sd_mil.format.blob_writer import Check
from sd_mil.format.compiling.compiler import CompiledModel, compile_model
from sd_mil.format.package import read_model, read_package
from sd_mil.format.unweighted import Unweighted, encode_unweighted
from sd_mil.format.writer import (
    WEIGHTS,
    WrittenPackage,
    encode_model,
    layout_of,
    write_model,
    write_package,
    write_packages,
    write_pipeline,
)

__all__ = [
    "WEIGHTS",
    "Check",
    "CompiledModel",
    "Unweighted",
    "WrittenPackage",
    "compile_model",
    "encode_model",
    "encode_unweighted",
    "layout_of",
    "read_model",
    "read_package",
    "write_model",
    "write_package",
    "write_packages",
    "write_pipeline",
]

"""Read, walk and execute Core ML ML Programs anywhere."""

from sd_mil.analysis import (
    ArgumentFidelity,
    Comparison,
    Divergence,
    DivergenceReport,
    OutputFidelity,
    Overflow,
    OverflowReport,
    compare,
    compare_outputs,
    first_divergence,
    overflow,
    predictor,
)
from sd_mil.analysis.fidelity import psnr
from sd_mil.analysis.support import unsupported_operations
from sd_mil.cache import Cache, default_cache
from sd_mil.engines.protocol import CompiledProgram
from sd_mil.errors import (
    ComparisonError,
    EngineError,
    LintError,
    MissingEngineError,
    PackageError,
    PredictionError,
    SdMilError,
    UnsupportedModelError,
    UnsupportedOpError,
)
from sd_mil.format import read_model, read_package
from sd_mil.format.recognition import FileKind, recognise_file
from sd_mil.format.text import print_program
from sd_mil.format.writer import write_package
from sd_mil.ir.ports import Description, EnumeratedShapes, Port, ShapeRange
from sd_mil.ir.program import (
    Argument,
    Blob,
    Block,
    Constant,
    DictionaryType,
    Function,
    ListType,
    Operation,
    Package,
    Pipeline,
    Program,
    Reference,
    StateType,
    Suppression,
    TensorType,
    UnrankedType,
    ValueType,
    Variable,
)
from sd_mil.predict.model import MLModel
from sd_mil.predict.state import State
from sd_mil.residency import dropping_weights

__all__ = [
    "Argument",
    "ArgumentFidelity",
    "Blob",
    "Block",
    "Cache",
    "Comparison",
    "ComparisonError",
    "CompiledProgram",
    "Constant",
    "Description",
    "DictionaryType",
    "Divergence",
    "DivergenceReport",
    "EngineError",
    "EnumeratedShapes",
    "FileKind",
    "Function",
    "LintError",
    "ListType",
    "MLModel",
    "MissingEngineError",
    "Operation",
    "OutputFidelity",
    "Overflow",
    "OverflowReport",
    "Package",
    "PackageError",
    "Pipeline",
    "Port",
    "PredictionError",
    "Program",
    "Reference",
    "SdMilError",
    "ShapeRange",
    "State",
    "StateType",
    "Suppression",
    "TensorType",
    "UnrankedType",
    "UnsupportedModelError",
    "UnsupportedOpError",
    "ValueType",
    "Variable",
    "compare",
    "compare_outputs",
    "default_cache",
    "dropping_weights",
    "first_divergence",
    "overflow",
    "predictor",
    "print_program",
    "psnr",
    "read_model",
    "read_package",
    "recognise_file",
    "unsupported_operations",
    "write_package",
]

"""Read, walk and execute Core ML ML Programs anywhere."""

from sd_mil.engine import CompiledProgram
from sd_mil.errors import (
    ComparisonError,
    EngineError,
    MissingEngineError,
    PackageError,
    PredictionError,
    SdMilError,
    UnsupportedModelError,
    UnsupportedOpError,
)
from sd_mil.fidelity import psnr
from sd_mil.model import MLModel
from sd_mil.ports import Description, EnumeratedShapes, Port, ShapeRange
from sd_mil.program import (
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
    ValueType,
    Variable,
)
from sd_mil.reader import read_model, read_package
from sd_mil.state import State
from sd_mil.text import print_program
from sd_mil.writer import write_package

__all__ = [
    "Argument",
    "Blob",
    "Block",
    "ComparisonError",
    "CompiledProgram",
    "Constant",
    "Description",
    "DictionaryType",
    "EngineError",
    "EnumeratedShapes",
    "Function",
    "ListType",
    "MLModel",
    "MissingEngineError",
    "Operation",
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
    "UnsupportedModelError",
    "UnsupportedOpError",
    "ValueType",
    "Variable",
    "print_program",
    "psnr",
    "read_model",
    "read_package",
    "write_package",
]

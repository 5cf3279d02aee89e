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
from sd_mil.program import (
    Argument,
    Block,
    Constant,
    Description,
    Function,
    ListType,
    Operation,
    Package,
    Port,
    Program,
    Reference,
    StateType,
    TensorType,
    ValueType,
    Variable,
)
from sd_mil.reader import read_package
from sd_mil.writer import write_package

__all__ = [
    "Argument",
    "Block",
    "ComparisonError",
    "CompiledProgram",
    "Constant",
    "Description",
    "EngineError",
    "Function",
    "ListType",
    "MLModel",
    "MissingEngineError",
    "Operation",
    "Package",
    "PackageError",
    "Port",
    "PredictionError",
    "Program",
    "Reference",
    "SdMilError",
    "StateType",
    "TensorType",
    "UnsupportedModelError",
    "UnsupportedOpError",
    "ValueType",
    "Variable",
    "psnr",
    "read_package",
    "write_package",
]

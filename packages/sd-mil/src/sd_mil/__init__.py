"""Read, walk and execute Core ML ML Programs anywhere."""

from sd_mil.errors import (
    PackageError,
    PredictionError,
    SdMilError,
    UnsupportedModelError,
    UnsupportedOpError,
)
from sd_mil.program import (
    Argument,
    Block,
    Constant,
    Description,
    Function,
    Operation,
    Package,
    Port,
    Program,
    Reference,
    TensorType,
    Variable,
)
from sd_mil.reader import read_package

__all__ = [
    "Argument",
    "Block",
    "Constant",
    "Description",
    "Function",
    "Operation",
    "Package",
    "PackageError",
    "Port",
    "PredictionError",
    "Program",
    "Reference",
    "SdMilError",
    "TensorType",
    "UnsupportedModelError",
    "UnsupportedOpError",
    "Variable",
    "read_package",
]

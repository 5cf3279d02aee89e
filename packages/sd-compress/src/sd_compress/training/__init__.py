"""Fine-tuning a torch network in as few distinct weights as a palettized package has.

Needs torch (``pip install "sd-compress[train]"``); nothing else of this package does.
"""

try:
    import torch  # noqa: F401 - here for the message
except ModuleNotFoundError as missing:
    raise ImportError('sd_compress.training needs torch: pip install "sd-compress[train]"') from missing

from sd_compress.errors import TrainingError

from .palettized import MIN_ELEMENTS, Select, finalize, is_large_layer, prepare
from .tables import LearnedTables

__all__ = [
    "MIN_ELEMENTS",
    "LearnedTables",
    "Select",
    "TrainingError",
    "finalize",
    "is_large_layer",
    "prepare",
]

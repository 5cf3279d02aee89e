"""What the weights of a Core ML package cost, by encoding, and fewer bits for them."""

from .errors import CompressionError, RecipeError, UnsupportedFormError
from .granularity import Granularity, PerBlock, PerChannel, PerGroupedChannel, PerTensor
from .scheme_json import scheme_from_json, scheme_to_json
from .schemes import Joint, Keep, Linear, Palette, Palettize, Prune, Scheme
from .storage import StorageReport, StorageRow, storage
from .weights import Weight, weights_of

__all__ = [
    "CompressionError",
    "Granularity",
    "Joint",
    "Keep",
    "Linear",
    "Palette",
    "Palettize",
    "PerBlock",
    "PerChannel",
    "PerGroupedChannel",
    "PerTensor",
    "Prune",
    "RecipeError",
    "Scheme",
    "StorageReport",
    "StorageRow",
    "UnsupportedFormError",
    "Weight",
    "scheme_from_json",
    "scheme_to_json",
    "storage",
    "weights_of",
]

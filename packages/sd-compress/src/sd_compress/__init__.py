"""What the weights of a Core ML package cost, by encoding, and fewer bits for them."""

from .compress import Assign, CompressedProgram, WeightReport, compress
from .errors import CompressionError, RecipeError, UnsuitableError, UnsupportedFormError
from .granularity import Granularity, PerBlock, PerChannel, PerGroupedChannel, PerTensor
from .palettes import optimal_palette
from .palettize import palettize
from .recipe import Recipe, Selection, format_recipe, parse_recipe, read_recipe, uniform_recipe, with_schemes
from .scheme_json import scheme_from_json, scheme_to_json
from .schemes import Joint, Keep, Linear, Palette, Palettize, Prune, Scheme
from .storage import StorageReport, StorageRow, storage
from .weights import Weight, weights_of

__all__ = [
    "Assign",
    "CompressedProgram",
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
    "Recipe",
    "RecipeError",
    "Scheme",
    "Selection",
    "StorageReport",
    "StorageRow",
    "UnsuitableError",
    "UnsupportedFormError",
    "Weight",
    "WeightReport",
    "compress",
    "format_recipe",
    "optimal_palette",
    "palettize",
    "parse_recipe",
    "read_recipe",
    "scheme_from_json",
    "scheme_to_json",
    "storage",
    "uniform_recipe",
    "weights_of",
    "with_schemes",
]

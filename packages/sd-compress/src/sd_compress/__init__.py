"""What the weights of a Core ML package cost, by encoding, and fewer bits for them."""

from .apple import apple_recipe, format_apple_recipe, parse_apple_recipe, read_any_recipe
from .compress import Assign, CompressedProgram, WeightReport, compress
from .errors import CompressionError, RecipeError, UnsuitableError, UnsupportedFormError
from .granularity import Granularity, PerBlock, PerChannel, PerGroupedChannel, PerTensor
from .packages import BundleReport, PackageReport, chosen_components, compress_bundle, compress_package
from .palettes import optimal_palette
from .palettize import palettize
from .raising import with_target
from .recipe import (
    Recipe,
    Selection,
    check_patterns,
    format_recipe,
    parse_recipe,
    read_recipe,
    uniform_recipe,
    with_schemes,
)
from .scheme_json import scheme_from_json, scheme_to_json
from .schemes import Joint, Keep, Linear, Palette, Palettize, Prune, Scheme
from .storage import StorageReport, StorageRow, storage
from .weights import Weight, weights_of

__all__ = [
    "Assign",
    "BundleReport",
    "CompressedProgram",
    "CompressionError",
    "Granularity",
    "Joint",
    "Keep",
    "Linear",
    "PackageReport",
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
    "apple_recipe",
    "check_patterns",
    "chosen_components",
    "compress",
    "compress_bundle",
    "compress_package",
    "format_apple_recipe",
    "format_recipe",
    "optimal_palette",
    "palettize",
    "parse_apple_recipe",
    "parse_recipe",
    "read_any_recipe",
    "read_recipe",
    "scheme_from_json",
    "scheme_to_json",
    "storage",
    "uniform_recipe",
    "weights_of",
    "with_schemes",
    "with_target",
]

"""What the weights of a Core ML package cost, by encoding, and fewer bits for them."""

from .activations import LayerInput, LayerInputs
from .apple import apple_recipe, format_apple_recipe, parse_apple_recipe, read_any_recipe
from .calibration import (
    Calibrated,
    Collecting,
    Device,
    Hessian,
    Statistics,
    check_device,
    collect_activations,
    collect_hessians,
    collect_statistics,
    measure_gains,
)
from .compress import Assign, CompressedProgram, WeightReport, check_forms, check_recipe, compress
from .errors import (
    BudgetError,
    CalibrationError,
    CompressionError,
    RecipeError,
    UnsuitableError,
    UnsupportedFormError,
)
from .granularity import Granularity, PerBlock, PerChannel, PerGroupedChannel, PerTensor
from .input_noise import AS_ASKED, FittedActivations, InputNoise, fit_activations, input_noises
from .measured import measured_sensitivities
from .packages import (
    COMPRESSED_ROLES,
    BundleReport,
    PackageReport,
    RecipeFor,
    chosen_components,
    compress_bundle,
    compress_package,
    describe_compression,
)
from .palettes import optimal_palette
from .palettize import palettize
from .plan import Plan, plan_for_bits, plan_for_bytes, plan_for_snr
from .quality import signal_to_noise, smallest_plan
from .raising import with_target
from .ranges import Affine, affine_of
from .recipe import (
    Recipe,
    Selection,
    check_names,
    check_patterns,
    format_recipe,
    parse_recipe,
    read_recipe,
    uniform_recipe,
    with_schemes,
)
from .scheme_json import scheme_from_json, scheme_to_json
from .schemes import PALETTE_BITS, Activations, Joint, Keep, Linear, Palette, Palettize, Prune, Scheme
from .sensitivity import Candidate, Sensitivity, sensitivities, stored_sizes, widths_for
from .snr import SignalToNoise
from .storage import StorageReport, StorageRow, StoredWeight, storage, storage_of, stored_weights
from .targets import target_named
from .weights import Weight, weights_of

__all__ = [
    "AS_ASKED",
    "COMPRESSED_ROLES",
    "PALETTE_BITS",
    "Activations",
    "Affine",
    "Assign",
    "BudgetError",
    "BundleReport",
    "Calibrated",
    "CalibrationError",
    "Candidate",
    "Collecting",
    "CompressedProgram",
    "CompressionError",
    "Device",
    "FittedActivations",
    "Granularity",
    "Hessian",
    "InputNoise",
    "Joint",
    "Keep",
    "LayerInput",
    "LayerInputs",
    "Linear",
    "PackageReport",
    "Palette",
    "Palettize",
    "PerBlock",
    "PerChannel",
    "PerGroupedChannel",
    "PerTensor",
    "Plan",
    "Prune",
    "Recipe",
    "RecipeError",
    "RecipeFor",
    "Scheme",
    "Selection",
    "Sensitivity",
    "SignalToNoise",
    "Statistics",
    "StorageReport",
    "StorageRow",
    "StoredWeight",
    "UnsuitableError",
    "UnsupportedFormError",
    "Weight",
    "WeightReport",
    "affine_of",
    "apple_recipe",
    "check_device",
    "check_forms",
    "check_names",
    "check_patterns",
    "check_recipe",
    "chosen_components",
    "collect_activations",
    "collect_hessians",
    "collect_statistics",
    "compress",
    "compress_bundle",
    "compress_package",
    "describe_compression",
    "fit_activations",
    "format_apple_recipe",
    "format_recipe",
    "input_noises",
    "measure_gains",
    "measured_sensitivities",
    "optimal_palette",
    "palettize",
    "parse_apple_recipe",
    "parse_recipe",
    "plan_for_bits",
    "plan_for_bytes",
    "plan_for_snr",
    "read_any_recipe",
    "read_recipe",
    "scheme_from_json",
    "scheme_to_json",
    "sensitivities",
    "signal_to_noise",
    "smallest_plan",
    "storage",
    "storage_of",
    "stored_sizes",
    "stored_weights",
    "target_named",
    "uniform_recipe",
    "weights_of",
    "widths_for",
    "with_schemes",
    "with_target",
]

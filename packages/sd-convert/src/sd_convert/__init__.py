"""Stable Diffusion checkpoints to Core ML packages, from any machine.

Importing this package loads neither torch nor coremltools: they come with the first conversion.
"""

from .checkpoint import Checkpoint
from .component import Component, PortSpec, Weights
from .components import build_component
from .convert import ComponentReport, ConversionReport, Progress, convert
from .errors import (
    CheckpointError,
    CheckpointNotFoundError,
    IncompleteCheckpointError,
    LoweringError,
    NotACheckpointError,
    OptionsError,
    SdConvertError,
    UnsafeWeightsError,
    UnsupportedArchitectureError,
    VariantError,
    VerificationError,
    WeightsMismatchError,
)
from .options import ATTENTION_IMPLEMENTATIONS, COMPONENTS, COMPUTE_UNITS, ConversionOptions
from .plan import ComponentPlan, Plan, plan
from .samples import sample_inputs
from .verify import MIN_PSNR, OutputFidelity, VerificationReport, verify
from .write import WrittenPackage, write_component

__all__ = [
    "ATTENTION_IMPLEMENTATIONS",
    "COMPONENTS",
    "COMPUTE_UNITS",
    "MIN_PSNR",
    "Checkpoint",
    "CheckpointError",
    "CheckpointNotFoundError",
    "Component",
    "ComponentPlan",
    "ComponentReport",
    "ConversionOptions",
    "ConversionReport",
    "IncompleteCheckpointError",
    "LoweringError",
    "NotACheckpointError",
    "OptionsError",
    "OutputFidelity",
    "Plan",
    "PortSpec",
    "Progress",
    "SdConvertError",
    "UnsafeWeightsError",
    "UnsupportedArchitectureError",
    "VariantError",
    "VerificationError",
    "VerificationReport",
    "Weights",
    "WeightsMismatchError",
    "WrittenPackage",
    "build_component",
    "convert",
    "plan",
    "sample_inputs",
    "verify",
    "write_component",
]

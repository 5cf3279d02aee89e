"""Stable Diffusion checkpoints to Core ML packages, from any machine.

Importing this package loads neither torch nor coremltools: they come with the first conversion.
"""

from .cache import CacheUsage, ConversionCache
from .checkpoint import Checkpoint
from .component import Component, PortSpec, Weights
from .components import KINDS, ComponentKind, Drawing, Network, build_component, sample_inputs
from .convert import ComponentReport, ConversionReport, Progress, convert
from .embeddings import Embedding
from .errors import (
    CheckpointError,
    CheckpointNotFoundError,
    IncompleteCheckpointError,
    LikeError,
    LimitError,
    LoweringError,
    NotACheckpointError,
    NotEnoughMemoryError,
    NotEnoughSpaceError,
    OptionsError,
    SdConvertError,
    UnsafeWeightsError,
    UnsupportedArchitectureError,
    VariantError,
    VerificationError,
    WeightsMismatchError,
)
from .facts import Facts, Section, Sizes
from .like import Likeness
from .lora import Lora
from .opening import open_checkpoint
from .options import ATTENTION_IMPLEMENTATIONS, COMPUTE_UNITS, ConversionOptions
from .plan import ComponentPlan, Plan, plan
from .transform import Transform, Transformed
from .verify import MIN_PSNR, OutputFidelity, VerificationReport, verify
from .write import WrittenPackage, write_component

__all__ = [
    "ATTENTION_IMPLEMENTATIONS",
    "COMPUTE_UNITS",
    "KINDS",
    "MIN_PSNR",
    "CacheUsage",
    "Checkpoint",
    "CheckpointError",
    "CheckpointNotFoundError",
    "Component",
    "ComponentKind",
    "ComponentPlan",
    "ComponentReport",
    "ConversionCache",
    "ConversionOptions",
    "ConversionReport",
    "Drawing",
    "Embedding",
    "Facts",
    "IncompleteCheckpointError",
    "LikeError",
    "Likeness",
    "LimitError",
    "Lora",
    "LoweringError",
    "Network",
    "NotACheckpointError",
    "NotEnoughMemoryError",
    "NotEnoughSpaceError",
    "OptionsError",
    "OutputFidelity",
    "Plan",
    "PortSpec",
    "Progress",
    "SdConvertError",
    "Section",
    "Sizes",
    "Transform",
    "Transformed",
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
    "open_checkpoint",
    "plan",
    "sample_inputs",
    "verify",
    "write_component",
]

"""Stable Diffusion checkpoints to Core ML packages, from any machine.

Importing this package loads neither torch nor coremltools: they come with the first conversion.
"""

from .checkpoint.checkpoint import Checkpoint
from .checkpoint.embeddings import Embedding
from .checkpoint.ip_adapters import with_image_attention
from .checkpoint.lora import Lora
from .checkpoint.networks import SeparateNetwork, open_network, with_networks
from .checkpoint.opening import open_checkpoint
from .checkpoint.single_file import read_controlnet_file, read_ip_adapter_file, read_t2i_adapter_file
from .components import (
    KINDS,
    ComponentKind,
    Drawing,
    Network,
    Shapes,
    build_component,
    on_meta_device,
    sample_inputs,
)
from .components.component import Component, PortSpec, Weights
from .components.metadata import portable
from .conversion.cache import CacheUsage, ConversionCache
from .conversion.convert import ComponentReport, ConversionReport, Progress, convert
from .conversion.like import Likeness
from .conversion.options import ATTENTION_IMPLEMENTATIONS, COMPUTE_UNITS, ConversionOptions
from .conversion.plan import ComponentPlan, Plan, plan
from .conversion.transform import Transform, Transformed
from .conversion.write import WrittenPackage, write_component
from .errors import (
    CheckpointError,
    CheckpointNotFoundError,
    IncompleteCheckpointError,
    LikeError,
    LimitError,
    LoweringError,
    MissingLibrariesError,
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
from .facts import (
    ADAPTER_RESIDUAL,
    IMAGE_SCALE,
    IMAGE_TOKENS,
    RESIDUAL,
    Facts,
    Section,
    Sizes,
    check_known_options,
    check_values,
)
from .preview import with_preview_vae
from .verify import MIN_PSNR, OutputFidelity, VerificationReport, verify

__all__ = [
    "ADAPTER_RESIDUAL",
    "ATTENTION_IMPLEMENTATIONS",
    "COMPUTE_UNITS",
    "IMAGE_SCALE",
    "IMAGE_TOKENS",
    "KINDS",
    "MIN_PSNR",
    "RESIDUAL",
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
    "MissingLibrariesError",
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
    "SeparateNetwork",
    "Shapes",
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
    "check_known_options",
    "check_values",
    "convert",
    "on_meta_device",
    "open_checkpoint",
    "open_network",
    "plan",
    "portable",
    "read_controlnet_file",
    "read_ip_adapter_file",
    "read_t2i_adapter_file",
    "sample_inputs",
    "verify",
    "with_image_attention",
    "with_networks",
    "with_preview_vae",
    "write_component",
]

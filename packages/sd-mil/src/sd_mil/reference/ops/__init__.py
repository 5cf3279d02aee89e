"""The operations, by kind. Importing this package fills the registry."""

from sd_mil.reference.ops import (
    activation,
    compression,
    convolution,
    elementwise,
    indexing,
    linear,
    normalisation,
    pooling,
    reduction,
    resizing,
    shaping,
    slicing,
)
from sd_mil.reference.registry import OPS

__all__ = [
    "OPS",
    "activation",
    "compression",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalisation",
    "pooling",
    "reduction",
    "resizing",
    "shaping",
    "slicing",
]

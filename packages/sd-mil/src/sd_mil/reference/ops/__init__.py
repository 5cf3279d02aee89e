"""The operations, by kind. Importing this package fills the registry."""

from sd_mil.reference.ops import (
    activation,
    compression,
    control,
    convolution,
    elementwise,
    indexing,
    linear,
    lists,
    normalisation,
    pooling,
    reduction,
    resizing,
    shaping,
    slicing,
    states,
)
from sd_mil.reference.registry import OPS

__all__ = [
    "OPS",
    "activation",
    "compression",
    "control",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "lists",
    "normalisation",
    "pooling",
    "reduction",
    "resizing",
    "shaping",
    "slicing",
    "states",
]

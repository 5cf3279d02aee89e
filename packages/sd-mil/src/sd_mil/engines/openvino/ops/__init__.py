"""MIL operations in OpenVINO's opset, one function per operation; importing this registers them all.

The modules import openvino, so only the function that compiles a program imports this package.
"""

from sd_mil.engines.openvino import library  # noqa: F401 (before openvino)

# isort: split
from sd_mil.engines.openvino.ops import (
    activation,
    attention,
    casting,
    convolution,
    elementwise,
    filling,
    indexing,
    joining,
    linear,
    normalisation,
    ordering,
    pooling,
    quantisation,
    rearranging,
    recurrent,
    reduction,
    resizing,
    sampling,
    scattering,
    shape,
    slicing,
)

__all__ = [
    "activation",
    "attention",
    "casting",
    "convolution",
    "elementwise",
    "filling",
    "indexing",
    "joining",
    "linear",
    "normalisation",
    "ordering",
    "pooling",
    "quantisation",
    "rearranging",
    "recurrent",
    "reduction",
    "resizing",
    "sampling",
    "scattering",
    "shape",
    "slicing",
]

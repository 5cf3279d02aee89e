"""Checkpoints in one ``.safetensors`` file, in the original layout of CompVis and Stability, as sites share
them.

Everything follows from the tensors' names and shapes; what does not is in :mod:`.families` and
:mod:`.detect`.
"""

from .controlnet import read_controlnet_file
from .detect import PREDICTION_TYPES
from .ip_adapter import read_ip_adapter_file
from .read import read_single_file
from .source import InSingleFile
from .t2i_adapter import read_t2i_adapter_file

__all__ = [
    "PREDICTION_TYPES",
    "InSingleFile",
    "read_controlnet_file",
    "read_ip_adapter_file",
    "read_single_file",
    "read_t2i_adapter_file",
]

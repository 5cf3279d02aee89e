"""Constants of a program as nodes of the graph, without copying weights.

An fp16 weight stays what it is: a view of the mapped file, followed by a conversion to fp32 that carries
OpenVINO's ``decompression`` mark.
"""

from __future__ import annotations

from sd_mil.engines.openvino import library  # noqa: F401 (before openvino)

# isort: split
import numpy as np
import numpy.typing as npt
import openvino.opset14 as ov
from openvino import Output
from openvino.op import Constant as ConstantNode

from sd_mil.engines.openvino.dtypes import computed_dtype
from sd_mil.errors import PackageError
from sd_mil.ir.program import Constant

#: ov::Decompression, the runtime attribute by which a plugin knows a conversion of compressed weights.
_DECOMPRESSION = "decompression_0"
#: Elements below which a constant is widened at once: a mapped page and a graph node cost more.
_SMALL = 1024


def constant_output(constant: Constant) -> Output:
    """``constant`` as a graph output of the type it is computed in.

    Raises: PackageError when it is a string or a dictionary, which cannot be data.
    """
    array = constant_array(constant, where="an operand")
    computed = computed_dtype(constant.type.dtype, where="a constant")
    if array.dtype == np.float16 and array.size >= _SMALL:
        return _decompressed(array)
    widened = np.ascontiguousarray(array, dtype=computed).reshape(array.shape)
    return constant_node(widened).output(0)


def constant_array(constant: Constant, *, where: str) -> npt.NDArray[np.generic]:
    """The constant's payload as an array.

    Raises: PackageError when it is text.
    """
    if not isinstance(constant.value, np.ndarray | np.generic):
        raise PackageError(f"expected a tensor, got {constant.value!r} for {where}")
    return np.asarray(constant.value)


def _decompressed(array: npt.NDArray[np.generic]) -> Output:
    convert = ov.convert(constant_node(array), np.float32)
    convert.get_rt_info()[_DECOMPRESSION] = ""
    return convert.output(0)


def constant_node(array: npt.NDArray[np.generic]) -> ConstantNode:
    """A constant node; arrays that OpenVINO may point at (contiguous, writable) are shared, others copied."""
    shareable = array.flags.c_contiguous and array.flags.writeable and array.size > 0
    return ConstantNode(array, shared_memory=bool(shareable))

"""Whether this processor adds up products of 8-bit integers without loss, found by trying.

x86 processors without VNNI have no instruction for such sums. OpenVINO takes ``vpmaddubsw`` there, which adds
the products in pairs and saturates each pair at 16 bits: 255 · 127 + 255 · 127 becomes 32767. Its own list of
what a processor is good at says INT8 all the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from openvino import Output

#: Channels and, as linear layers take the last axis, columns of the picture that the layers are tried on.
_TERMS = 32
_SHAPE = (1, _TERMS, 4, _TERMS)
#: Weights [outputs, inputs of a group, *kernel] by the number of groups; a linear layer's have no kernel.
#: OpenVINO has code of its own for each.
_LAYERS = (
    ((16, _TERMS), 1),
    ((7, _TERMS), 1),
    ((16, _TERMS, 1, 1), 1),
    ((16, _TERMS, 3, 3), 1),
    ((16, _TERMS // 2, 3, 3), 2),
    ((_TERMS, 1, 3, 3), _TERMS),
)
#: The least and the greatest of what activations are rounded to.
_ACTIVATIONS = ((-128, 127), (0, 255))


@cache
def sums_are_exact() -> bool:
    """Whether quantised layers, computed in integers, give what exact sums give. Tried once per process.

    The largest activations and weights there are, on a few small layers: tens of milliseconds.
    """
    return all(_is_exact(low, high) for low, high in _ACTIVATIONS)


def _is_exact(low: int, high: int) -> bool:
    from sd_mil.engines.openvino.library import import_openvino

    openvino, ov = import_openvino(), _opset()
    x = ov.parameter(_SHAPE, np.float32)
    bounds = np.float32(low), np.float32(high)
    rounded = ov.fake_quantize(x, *bounds, *bounds, 256).output(0)
    results = [ov.result(_layer(rounded, shape, groups)) for shape, groups in _LAYERS]
    configuration = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    compiled = openvino.Core().compile_model(openvino.Model(results, [x], "trial"), "CPU", configuration)
    return all(
        np.array_equal(got, np.broadcast_to(expected, got.shape))
        for value in bounds
        for got, expected in zip(
            compiled([np.full(_SHAPE, value)]).values(), _exact_sums(int(value)), strict=True
        )
    )


def _opset() -> ModuleType:
    from sd_mil.engines.openvino.library import import_openvino

    import_openvino()
    return importlib.import_module("openvino.opset14")


def _weights(shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    """127 and -128 for every other output."""
    each = np.resize(np.array([127, -128], np.int8), shape[0])
    return np.ascontiguousarray(np.broadcast_to(each.reshape(-1, *[1] * (len(shape) - 1)), shape))


def _layer(x: Output, shape: tuple[int, ...], groups: int) -> Output:
    ov = _opset()
    data = _weights(shape)
    if groups > 1:
        data = data.reshape(groups, -1, *shape[1:])
    scales = np.ones([*data.shape[: 2 if groups > 1 else 1], *[1] * (len(shape) - 1)], np.float32)
    weight = ov.multiply(ov.convert(ov.constant(data), np.float32), ov.constant(scales))
    if len(shape) == 2:
        return ov.matmul(x, weight, False, True).output(0)
    convolve = ov.group_convolution if groups > 1 else ov.convolution
    return convolve(x, weight, [1, 1], [0, 0], [0, 0], [1, 1]).output(0)


def _exact_sums(value: int) -> Iterator[npt.NDArray[np.float32]]:
    """What each layer makes of a picture of nothing but ``value``, for each output alike everywhere."""
    for shape, _ in _LAYERS:
        sums = _weights(shape).reshape(shape[0], -1).sum(axis=1, dtype=np.int64) * value
        yield (sums if len(shape) == 2 else sums.reshape(-1, 1, 1)).astype(np.float32)

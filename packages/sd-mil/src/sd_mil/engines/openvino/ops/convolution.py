"""Convolutions over one to three spatial dimensions. Source: coremltools ``defs/iOS15/conv.py``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list
from sd_mil.engines.openvino.windows import may_be_empty

_AUTO_PAD = {"valid": "valid", "custom": "explicit", "same": "same_upper", "same_lower": "same_lower"}


@dataclass(frozen=True, slots=True)
class _Window:
    """The attributes that ``conv`` and ``conv_transpose`` share; one entry per spatial dimension."""

    strides: list[int]
    dilations: list[int]
    pads_begin: list[int]
    pads_end: list[int]
    pad_type: str
    groups: int


def _window(call: Call) -> _Window:
    """Read the attributes. MIL's pads are [begin, end, begin, end, …], and count only when custom."""
    dimensions = len(call.output("x").get_partial_shape()) - 2
    pad_type = call.choice("pad_type", "valid", among=tuple(_AUTO_PAD))
    pads = [0, 0] * dimensions
    if pad_type == "custom":
        pads = call.counts("pad", pads, length=len(pads))
    return _Window(
        strides=call.counts("strides", [1] * dimensions, length=dimensions, least=1),
        dilations=call.counts("dilations", [1] * dimensions, length=dimensions, least=1),
        pads_begin=pads[0::2],
        pads_end=pads[1::2],
        pad_type=pad_type,
        groups=call.count("groups", 1, least=1),
    )


@translate("conv")
def conv(call: Call) -> Output:
    """``x`` [N, Cin, *D] with ``weight`` [Cout, Cin/groups, *K] -> [N, Cout, *D']."""
    window = _window(call)
    x, weight = call.output("x"), call.output("weight")
    kernel = call.shape(weight)[2:]
    pads = window.pads_begin, window.pads_end
    if window.pad_type.startswith("same"):  # at most
        pads = ([(size - 1) * step for size, step in zip(kernel, window.dilations, strict=True)],) * 2
    if may_be_empty(x, kernel, *pads, window.dilations):
        # OpenVINO 2026.4.1 reads where there is nothing, on processors with AVX2
        raise call.unsupported(f"padding of {pads} for windows of {kernel}, of which some may be empty")
    convolve = ov.convolution
    if window.groups > 1:
        weight, convolve = _split_groups(weight, window.groups), ov.group_convolution
    result = convolve(
        x,
        weight,
        window.strides,
        window.pads_begin,
        window.pads_end,
        window.dilations,
        _AUTO_PAD[window.pad_type],
    )
    return _with_bias(call, result.output(0))


@translate("conv_transpose")
def conv_transpose(call: Call) -> Output:
    """``x`` [N, Cin, *D] with ``weight`` [Cin, Cout/groups, *K] -> [N, Cout, *D'], the gradient of ``conv``.

    What ``pad`` crops is exact; when ``output_shape`` or ``same`` asks for another size than follows from it,
    the difference goes to the end (to the begin with ``same_lower``).
    """
    window = _window(call)
    x, weight = call.output("x"), call.output("weight")
    call.shape(weight)
    pads_begin, pads_end, extra = _crops(call, window)
    if x.get_node().get_type_name() == "Pad":  # OpenVINO 2026.4.1 takes such padding as that of the result
        crops, pads_begin, pads_end = (pads_begin, pads_end), [0] * len(extra), [0] * len(extra)
    else:
        crops = ([0] * len(extra), [0] * len(extra))
    convolve = ov.convolution_backprop_data
    if window.groups > 1:
        weight, convolve = _split_groups(weight, window.groups), ov.group_convolution_backprop_data
    result = convolve(
        x,
        weight,
        strides=window.strides,
        pads_begin=pads_begin,
        pads_end=pads_end,
        dilations=window.dilations,
        auto_pad="explicit",
        output_padding=extra,
    )
    return _with_bias(call, _cropped(result.output(0), *crops))


def _cropped(result: Output, begins: list[int], ends: list[int]) -> Output:
    if not any(begins + ends):
        return result
    axes = int_list(list(range(2, 2 + len(begins))))
    stops = int_list([-end if end else np.iinfo(np.int32).max for end in ends])
    return ov.slice(result, int_list(begins), stops, int_list([1] * len(begins)), axes).output(0)


def _crops(call: Call, window: _Window) -> tuple[list[int], list[int], list[int]]:
    """Crops at begin and end and rows to add, so that the output has the size that MIL asks for."""
    if not window.pad_type.startswith("same") and "output_shape" not in call:
        return window.pads_begin, window.pads_end, [0] * len(window.strides)
    sizes = [int(size) for size in list(call.output("x").get_shape())[2:]]
    kernel = [int(size) for size in list(call.output("weight").get_shape())[2:]]
    full = [
        (size - 1) * stride + (width - 1) * dilation + 1
        for size, stride, width, dilation in zip(sizes, window.strides, kernel, window.dilations, strict=True)
    ]
    wanted = [whole - b - e for whole, b, e in zip(full, window.pads_begin, window.pads_end, strict=True)]
    begins, ends, least = list(window.pads_begin), list(window.pads_end), wanted
    if window.pad_type.startswith("same"):
        wanted = [size * stride for size, stride in zip(sizes, window.strides, strict=True)]
        least = [size - stride + 1 for size, stride in zip(wanted, window.strides, strict=True)]
    if "output_shape" in call:
        wanted = _sizes_among(call, least, window)
    if window.pad_type.startswith("same"):
        spare = [max(whole - size, 0) for whole, size in zip(full, wanted, strict=True)]
        begins = [(total + (window.pad_type == "same_lower")) // 2 for total in spare]
        ends = [total - begin for total, begin in zip(spare, begins, strict=True)]
    missing = [
        size - (whole - begin - end)
        for size, whole, begin, end in zip(wanted, full, begins, ends, strict=True)
    ]
    ends = [end + max(-rows, 0) for end, rows in zip(ends, missing, strict=True)]
    return begins, ends, [max(rows, 0) for rows in missing]


def _sizes_among(call: Call, least: list[int], window: _Window) -> list[int]:
    """The spatial part of ``output_shape``: of the sizes of which ``conv`` makes those of ``x``.

    Raises: UnsupportedOpError when it is of others.
    """
    shape = call.counts("output_shape", least=1, length=2 + len(least))
    x, weight = call.shape(call.output("x")), call.shape(call.output("weight"))
    steps = zip(shape[2:], least, window.strides, strict=True)
    fits = all(first <= size < first + stride for size, first, stride in steps)
    if not fits or shape[:2] != [x[0], weight[1] * window.groups]:
        raise call.unsupported(f"output_shape={shape} of {x} with pad_type={window.pad_type!r}")
    return shape[2:]


def _split_groups(weight: Output, groups: int) -> Output:
    """[groups·A, B, *K] -> [groups, A, B, *K], the layout that OpenVINO wants."""
    first, *rest = (int(size) for size in weight.get_shape())
    return ov.reshape(weight, int_list([groups, first // groups, *rest]), False).output(0)


def _with_bias(call: Call, result: Output) -> Output:
    if "bias" not in call:
        return result
    spatial, channels = len(result.get_partial_shape()) - 2, result.get_partial_shape()[1]
    (size,) = call.shape(call.output("bias")) or [1]
    if channels.is_dynamic or size not in (1, channels.get_length()):
        raise call.unsupported(f"a bias of {size} numbers for {channels} channels")
    bias = ov.reshape(call.output("bias"), int_list([1, -1] + [1] * spatial), False)
    return ov.add(result, bias).output(0)

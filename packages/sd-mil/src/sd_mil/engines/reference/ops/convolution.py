"""Convolutions in one, two or three spatial dimensions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from sd_mil.engines.reference.ops.windows import PAD_TYPES, padded, padding, per_axis, windows
from sd_mil.engines.reference.registry import Array, check_counts, op
from sd_mil.ir.limits import check_computed, check_parts

#: Elements of unrolled windows held at a time: 64 MiB of fp32.
_COLUMN_LIMIT = 1 << 24


@op("conv", choices={"pad_type": PAD_TYPES})
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    dilations: Array | None = None,
    groups: Array | int = 1,
) -> Array:
    """Cross-correlation.

    Shapes: x [N, C, *D], weight [O, C / groups, *K], result [N, O, *D'].
    """
    kernel = weight.shape[2:]
    steps, gaps = per_axis(strides, len(kernel)), per_axis(dilations, len(kernel))
    extents = [(size - 1) * gap + 1 for size, gap in zip(kernel, gaps, strict=True)]
    pads = padding(pad_type, pad, sizes=x.shape[2:], extents=extents, strides=steps)
    wider = padded(x, pads)
    if x.shape[1] != weight.shape[1] * int(groups):
        raise ValueError(
            f"expected {weight.shape[1] * int(groups)} channels for the weight, got {x.shape[1]}"
        )
    view = windows(wider[:1, :1], kernel, steps, gaps)
    check_computed(x.shape[0], weight.shape[0], *view.shape[2 : 2 + len(kernel)])
    results = [
        _correlate(part, kernels, steps, gaps)
        for image in wider
        for part, kernels in _groups(image, weight, int(groups))
    ]
    result = np.stack(results).reshape(x.shape[0], weight.shape[0], *results[0].shape[1:])
    return result if bias is None else _biased(result, bias)


def _groups(x: Array, weight: Array, count: int, *, axis: int = 0) -> Iterator[tuple[Array, Array]]:
    """The channels of ``x`` along ``axis``, and the kernels that are theirs."""
    check_parts(x.shape[axis], count)
    return zip(np.split(x, count, axis), np.split(weight, count), strict=True)


def _biased(result: Array, bias: Array) -> Array:
    """One number for each channel, and no other count of them."""
    if bias.size not in (1, result.shape[1]):
        raise ValueError(f"expected a bias for each of {result.shape[1]} channels, got shape {bias.shape}")
    return np.asarray(result + bias.reshape(-1, *[1] * (result.ndim - 2)))


def _correlate(image: Array, weight: Array, strides: list[int], dilations: list[int]) -> Array:
    """One image [C, *D] and one group of kernels [O, C, *K], as a matrix product per band of rows."""
    rank = weight.ndim - 2
    view = windows(image, weight.shape[2:], strides, dilations)  # [C, *D', *K]
    outputs = view.shape[1 : 1 + rank]
    matrix = weight.reshape(weight.shape[0], -1)
    check_computed(weight.shape[0], *outputs)
    check_computed(view.size // max(1, outputs[0]))  # what a row of outputs is made of
    result = np.empty((weight.shape[0], *outputs), np.float32)
    band = max(1, _COLUMN_LIMIT * outputs[0] // max(1, view.size))
    for start in range(0, outputs[0], band):
        rows = view[:, start : start + band]
        columns = np.moveaxis(rows, range(1, 1 + rank), range(-rank, 0)).reshape(matrix.shape[1], -1)
        result[:, start : start + band] = (matrix @ columns).reshape(-1, *rows.shape[1 : 1 + rank])
    return result


@op("conv_transpose", choices={"pad_type": PAD_TYPES})
def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Array | None = None,
    output_shape: Array | None = None,
    pad_type: str = "valid",
    strides: Array | None = None,
    dilations: Array | None = None,
    groups: Array | int = 1,
) -> Array:
    """The transpose of ``conv``: every input element adds a scaled kernel to the output.

    ``output_shape`` chooses among the sizes of which ``conv`` makes those of ``x``.

    Shapes: x [N, C, *D], weight [C, O / groups, *K], result [N, O, *D'].
    """
    kernel = weight.shape[2:]
    steps, gaps = per_axis(strides, len(kernel)), per_axis(dilations, len(kernel))
    full = np.concatenate(
        [_spread(part, kernels, steps, gaps) for part, kernels in _groups(x, weight, int(groups), axis=1)],
        axis=1,
    )
    if output_shape is not None and tuple(output_shape[:2]) != full.shape[:2]:
        raise ValueError(f"expected an output_shape of {list(full.shape[:2])} first, got {output_shape}")
    wanted = _transposed_sizes(x, output_shape, pad_type, pad, full.shape[2:], steps)
    result = _crop(full, wanted, pad_type, pad)
    return result if bias is None else _biased(result, bias)


def _spread(x: Array, weight: Array, strides: list[int], dilations: list[int]) -> Array:
    """The uncropped result, accumulated over kernel positions."""
    kernel = weight.shape[2:]
    sizes = [
        (size - 1) * stride + (width - 1) * gap + 1
        for size, stride, width, gap in zip(x.shape[2:], strides, kernel, dilations, strict=True)
    ]
    check_computed(x.shape[0], weight.shape[1], *sizes)
    result = np.zeros((x.shape[0], weight.shape[1], *sizes), np.float32)
    for position in itertools.product(*map(range, kernel)):
        targets: Any = tuple(
            slice(index * gap, index * gap + (size - 1) * stride + 1, stride)
            for index, gap, size, stride in zip(position, dilations, x.shape[2:], strides, strict=True)
        )
        tap: Any = (..., *position)
        result[..., *targets] += np.moveaxis(np.tensordot(weight[tap], x, (0, 1)), 0, 1)
    return result


def _transposed_sizes(
    x: Array,
    output_shape: Array | None,
    pad_type: str,
    pad: Array | None,
    full: tuple[int, ...],
    strides: list[int],
) -> list[int]:
    if pad_type in ("same", "same_lower"):
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        least = [size - stride + 1 for size, stride in zip(wanted, strides, strict=True)]
    else:
        crops = padding(pad_type, pad, sizes=full, extents=full, strides=strides)
        wanted = [size - before - after for size, (before, after) in zip(full, crops, strict=True)]
        least = wanted
    if output_shape is not None:
        wanted = [int(size) for size in output_shape[2:]]
        choices = [range(first, first + stride) for first, stride in zip(least, strides, strict=True)]
        if any(size not in sizes for size, sizes in zip(wanted, choices, strict=True)):
            raise ValueError(
                f"expected an output_shape whose convolution has the sizes {list(x.shape[2:])} of x,"
                f" from {least} to {[sizes[-1] for sizes in choices]}, got {wanted}"
            )
    check_counts("sizes", *wanted, least=1)
    return wanted


def _crop(full: Array, wanted: list[int], pad_type: str, pad: Array | None) -> Array:
    """Cut to the wanted size; where the full result is too small, zeros (then only bias) are added."""
    excess = [size - target for size, target in zip(full.shape[2:], wanted, strict=True)]
    if pad_type == "custom" and pad is not None:
        starts = [int(before) for before in pad[::2]]
    elif pad_type == "same_lower":
        starts = [max(0, extra - extra // 2) for extra in excess]
    else:
        starts = [max(0, extra // 2) if pad_type == "same" else 0 for extra in excess]
    ends = [start + target for start, target in zip(starts, wanted, strict=True)]
    missing = [(0, max(0, end - size)) for end, size in zip(ends, full.shape[2:], strict=True)]
    kept: Any = (..., *map(slice, starts, ends))
    return np.asarray(padded(full, missing)[kept])

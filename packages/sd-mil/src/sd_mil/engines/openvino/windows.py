"""Windows of convolutions and poolings that lie in the padding, where nothing is to be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openvino import Output

#: Nodes that OpenVINO moves or drops, so that the padding before one may become that of what reads it.
_MOVED = frozenset({"Convert", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def may_be_empty(
    x: Output,
    kernel: Sequence[int],
    pads_begin: Sequence[int],
    pads_end: Sequence[int],
    dilations: Sequence[int] | None = None,
) -> bool:
    """Whether a window over the spatial dimensions of ``x`` [N, C, *D] may hold no element of it.

    One does not if no padding is as wide as a window, and ``x`` does not fit between two of its taps. Padding
    in a node of its own counts, because OpenVINO makes it that of the convolution that reads it.
    """
    before = _padded_before(x)
    sizes = list(x.get_partial_shape())[2:]
    steps = dilations or [1] * len(kernel)
    for size, width, begin, end, step in zip(sizes, kernel, pads_begin, pads_end, steps, strict=True):
        pad = before + max(begin, end)
        gap = step > 1 and width > 1 and pad > 0 and size.get_min_length() - 2 * before < step
        if pad > (width - 1) * step or gap:
            return True
    return False


def _padded_before(x: Output) -> int:
    """The widest padding of the nodes right before ``x``."""
    widest, node = 0, x.get_node()
    while node.get_type_name() in _MOVED | {"Pad"}:
        if node.get_type_name() == "Pad":
            widths = [node.input_value(place).get_node() for place in (1, 2)]
            known = [one.get_data() for one in widths if one.get_type_name() == "Constant"]
            widest += max((int(abs(one).max(initial=0)) for one in known), default=0)
        node = node.input_value(0).get_node()
    return widest

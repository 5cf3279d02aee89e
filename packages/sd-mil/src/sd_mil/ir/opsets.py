"""Since when an operation, and a parameter of it, exists.

Source: the registry of coremltools 9.0 (``SSAOpRegistry``); a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sd_mil.ir.program import Operation

#: The iOS of the first opset with the operation, where that is not 15.
FIRST: Final[Mapping[str, int]] = MappingProxyType(
    dict.fromkeys(
        (
            "constexpr_affine_dequantize",
            "constexpr_cast",
            "constexpr_lut_to_dense",
            "constexpr_sparse_to_dense",
            "fill_like",
            "pixel_unshuffle",
            "reshape_like",
        ),
        16,
    )
    | dict.fromkeys(("dequantize", "quantize", "resize"), 17)
    | dict.fromkeys(
        (
            "constexpr_blockwise_shift_scale",
            "constexpr_lut_to_sparse",
            "constexpr_sparse_blockwise_shift_scale",
            "coreml_update_state",
            "read_state",
            "scaled_dot_product_attention",
            "slice_update",
            "write_state",
        ),
        18,
    )
)

_INDICES: Final = ("gather", "gather_along_axis", "gather_nd", "scatter", "scatter_along_axis", "scatter_nd")

#: ... with the parameter, where that is later than the operation.
FIRST_PARAMETER: Final[Mapping[tuple[str, str], int]] = MappingProxyType(
    {(kind, "validate_indices"): 17 for kind in _INDICES}
    | {
        ("constexpr_lut_to_dense", "vector_axis"): 18,
        ("crop_resize", "box_indices"): 17,
        ("crop_resize", "boxes"): 17,
        ("crop_resize", "pad_value"): 16,
        ("gather", "batch_dims"): 16,
        ("gather_nd", "batch_dims"): 16,
        ("gru", "input_bias"): 18,
        ("gru", "reset_after"): 18,
        ("reduce_argmax", "output_dtype"): 17,
        ("reduce_argmin", "output_dtype"): 17,
        ("topk", "output_indices_dtype"): 17,
        ("topk", "return_indices"): 16,
        ("topk", "sort"): 16,
        ("upsample_bilinear", "half_pixel_centers"): 16,
    }
)

#: Parameters that an operation has no more, from the iOS on: it has another form there.
DROPPED: Final[Mapping[tuple[str, str], int]] = MappingProxyType(
    {
        ("constexpr_lut_to_dense", "shape"): 18,
        ("constexpr_sparse_to_dense", "shape"): 18,
        ("crop_resize", "roi"): 17,
        ("non_maximum_suppression", "score_threshold"): 17,
    }
)

#: Operations whose form of 18 is known by a parameter that is not there.
_SHAPED: Final = ("constexpr_lut_to_dense", "constexpr_sparse_to_dense")


def first_with(operation: Operation) -> int:
    """The number of the first iOS whose opset has the operation in this form."""
    given = {*operation.inputs, *operation.attributes}
    numbers = [FIRST_PARAMETER.get((operation.type, name), 0) for name in given]
    is_typed = operation.type in _SHAPED and "shape" not in given
    return max(15, FIRST.get(operation.type, 15), 18 if is_typed else 0, *numbers)


def gone_with(operation: Operation) -> int | None:
    """The number of the iOS from whose opset on the operation has this form no more; None: it stays."""
    given = {*operation.inputs, *operation.attributes}
    return min(
        (number for (kind, name), number in DROPPED.items() if kind == operation.type and name in given),
        default=None,
    )

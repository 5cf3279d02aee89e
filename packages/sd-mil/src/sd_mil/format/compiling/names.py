"""How ``metadata.json`` names operations: ``Ios16.constexprLutToDense``, ``SliceByIndex``.

The prefix is that of the newest opset, up to the function's own, which defines the operation anew; those of
iOS 15 have none. Apple publishes no list. This one is read off compiled models and compute plans that are
public (of iOS 15 to 18), and where these are silent follows coremltools 9.0, which defines the same
operations anew but for some. iOS 26 is called 19.
"""

from __future__ import annotations

from typing import Final


def _kinds(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ACTIVATIONS: Final = _kinds(
    """
    clamped_relu elu gelu leaky_relu linear_activation prelu relu relu6 scaled_tanh sigmoid sigmoid_hard
    silu softmax softplus softplus_parametric softsign thresholded_relu
    """
)
_BINARY: Final = _kinds(
    """
    add equal floor_div greater greater_equal less less_equal logical_and logical_or logical_xor maximum
    minimum mod mul not_equal pow real_div sub
    """
)
_UNARY: Final = _kinds(
    """
    abs acos asin atan atanh cast ceil clip cos cosh erf exp exp2 floor inverse log logical_not round rsqrt
    sign sin sinh sqrt square tan tanh threshold
    """
)
_REDUCTIONS: Final = _kinds(
    """
    reduce_argmax reduce_argmin reduce_l1_norm reduce_l2_norm reduce_log_sum reduce_log_sum_exp reduce_max
    reduce_mean reduce_min reduce_prod reduce_sum reduce_sum_square
    """
)
_NORMALISATIONS: Final = _kinds(
    """
    batch_norm instance_norm l2_norm layer_norm local_response_norm
    """
)
_LAYERS: Final = _kinds(
    """
    conv conv_transpose einsum gru linear lstm matmul rnn
    """
)
_POOLING: Final = _kinds(
    """
    avg_pool l2_pool max_pool
    """
)
_SCATTERING: Final = _kinds(
    """
    gather gather_along_axis gather_nd scatter scatter_along_axis scatter_nd
    """
)
_IMAGES: Final = _kinds(
    """
    affine crop_resize resample resize_bilinear upsample_bilinear
    """
)
_MOVES: Final = _kinds(
    """
    expand_dims reverse reverse_sequence slice_by_index slice_by_size sliding_windows squeeze transpose
    """
)
_OTHERS_IN_16: Final = _kinds(
    """
    constexpr_affine_dequantize constexpr_cast constexpr_lut_to_dense constexpr_sparse_to_dense cumsum
    fill_like pixel_unshuffle reshape reshape_like topk
    """
)
_OTHERS_IN_17: Final = _kinds(
    """
    cast clamped_relu clip crop_resize dequantize elu inverse leaky_relu linear_activation log logical_not
    non_maximum_suppression prelu quantize reduce_argmax reduce_argmin resample reshape reshape_like resize
    rsqrt scaled_tanh sigmoid_hard softplus_parametric thresholded_relu topk
    """
)
_OTHERS_IN_18: Final = _kinds(
    """
    concat constexpr_blockwise_shift_scale constexpr_lut_to_dense constexpr_lut_to_sparse
    constexpr_sparse_blockwise_shift_scale constexpr_sparse_to_dense coreml_update_state read_state
    scaled_dot_product_attention slice_update write_state
    """
)

_IN_16: Final = (
    _ACTIVATIONS | _BINARY | _UNARY | _REDUCTIONS | _NORMALISATIONS | _LAYERS | _POOLING | _SCATTERING
) | (_IMAGES | _OTHERS_IN_16)
_IN_17: Final = (_BINARY | _NORMALISATIONS | _SCATTERING | _MOVES | _LAYERS | _OTHERS_IN_17) - {"einsum"}
_IN_18: Final = _OTHERS_IN_18 | (_IN_17 - {"dequantize", "quantize", "resize"})
_IN_19: Final = frozenset(("dequantize", "quantize"))  # the first is seen, the other its inverse
_SINCE: Final = ((19, _IN_19), (18, _IN_18), (17, _IN_17), (16, _IN_16))


def histogram_name(kind: str, ios: int) -> str:
    """The name of an operation in a function of the opset of that iOS."""
    words = kind.split("_")
    since = next((year for year, kinds in _SINCE if year <= ios and kind in kinds), 15)
    if since == 15:
        return "".join(map(_capital, words))
    return f"Ios{since}.{words[0]}{''.join(map(_capital, words[1:]))}"


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]

"""Attention as one operation. Source: coremltools ``defs/iOS18/transformers.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output, Type

from sd_mil.engines.openvino.bounds import least_shape
from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.ir.limits import check_translated


@translate("scaled_dot_product_attention")
def scaled_dot_product_attention(call: Call) -> Output:
    """``softmax(scale · query · keyᵀ + attn_mask) · value``.

    ``query`` [B, *, L, E], ``key`` [B, *, S, E], ``value`` [B, *, S, EV]; ``attn_mask`` broadcasts to
    [B, *, L, S] and is bool (false hides) or added. The scale is 1/√E.
    """
    query, key, value = call.output("query"), call.output("key"), call.output("value")
    scores = ov.matmul(ov.multiply(query, _scale(query)), key, False, True).output(0)
    _check_size(call, scores)
    if "attn_mask" in call:
        scores = _mask(scores, call.output("attn_mask"))
    return ov.matmul(ov.softmax(scores, -1), value, False, False).output(0)


def _check_size(call: Call, scores: Output) -> None:
    """The scores are fused away, but not those of five dimensions, nor those of constants."""
    fused = len(scores.get_partial_shape()) in (3, 4)
    fused = fused and not (call.is_constant("query") and call.is_constant("key"))
    check_translated(call.operation.type, call.operation.name, least_shape(scores), is_fused=fused)


def _scale(query: Output) -> Output:
    width = query.get_partial_shape()[-1]
    if width.is_static:
        return ov.constant(np.float32(width.get_length() ** -0.5)).output(0)
    size = ov.gather(ov.shape_of(query, "i32"), np.int32(-1), np.int32(0))
    return ov.power(ov.convert(size, np.float32), np.float32(-0.5)).output(0)


def _mask(scores: Output, mask: Output) -> Output:
    if mask.get_element_type() == Type.boolean:
        return ov.select(mask, scores, np.float32(-np.inf)).output(0)
    return ov.add(scores, mask).output(0)

"""Scaled fp8: files of 8-bit floats with, beside each weight, the number that it is to be multiplied by.

Source: ComfyUI's ``comfy/utils.py`` and ``comfy/ops.py`` (``scaled_fp8``, ``scale_weight``, ``comfy_quant``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sd_convert.errors import CheckpointError, UnsupportedArchitectureError

from .tensors import TensorEntry

#: Where the scale of ``X.weight`` is: ``X.scale_weight`` in the older files, ``X.weight_scale`` in the newer.
_SCALES: Final = ("scale_weight", "weight_scale")
_SCALE_DTYPES: Final = ("F32", "F16", "BF16", "F64")
#: Of the layer's input, for runtimes that multiply in 8 bits; they say nothing about the weights.
_INPUT_SCALES: Final = ("scale_input", "input_scale")
#: An empty tensor whose dtype is that of the weights; it only announces scales.
_MARKER: Final = "scaled_fp8"
#: JSON that says how one layer is stored.
_LAYER_FORMAT: Final = "comfy_quant"
_LAYER_FORMATS: Final = ("float8_e4m3fn", "float8_e5m2")
#: What such JSON may say beside the format without changing the weights.
_WITHOUT_EFFECT: Final = frozenset({"format", "full_precision_matrix_mult"})
_MOST_JSON_BYTES: Final = 10_000


def with_scales(entries: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """``entries`` with each scale inside the weight that it belongs to, and no marks of scaled fp8 left.

    Raises:
        CheckpointError: a scale that is neither one number nor one for each row, or two scales of one weight.
        UnsupportedArchitectureError: a layer in another format (nvfp4, ...).
    """
    result = dict(entries)
    for name, entry in entries.items():
        module, _, part = name.rpartition(".")
        weight = f"{module}.weight" if module else "weight"
        if part == _MARKER or (part in _INPUT_SCALES and weight in entries):
            del result[name]
        elif part == _LAYER_FORMAT and weight in entries:
            _check_format(name, entry)
            del result[name]
        elif part in _SCALES and weight in entries:
            result[weight] = _scaled(result[weight], weight, name, entry)
            del result[name]
    return result


def _scaled(weight: TensorEntry, name: str, scale_name: str, scale: TensorEntry) -> TensorEntry:
    rows = (*weight.shape[:1], *(1,) * (len(weight.shape) - 1))
    fits = math.prod(scale.shape) == 1 or (scale.shape == rows and 0 not in rows)
    if weight.scale is not None or not fits or scale.dtype not in _SCALE_DTYPES:
        came = "a second one" if weight.scale is not None else f"{scale.dtype}{list(scale.shape)}"
        raise CheckpointError(
            f"{scale.file}: tensor {scale_name!r}: expected one number or {list(rows)} as scale of {name}, "
            f"got {came}"
        )
    return replace(weight, scale=scale)


def _check_format(name: str, entry: TensorEntry) -> None:
    raw = entry.data[entry.start : min(entry.stop, entry.start + _MOST_JSON_BYTES)].tobytes()
    try:
        said = json.loads(raw)
        kind = said["format"]
        unknown = said.keys() - _WITHOUT_EFFECT
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{entry.file}: tensor {name!r}: expected JSON with a format, got {raw[:80]!r}"
        ) from error
    if kind not in _LAYER_FORMATS or unknown:
        others = f" with {', '.join(sorted(unknown))}" if unknown else ""
        raise UnsupportedArchitectureError(
            f"{entry.file}: tensor {name!r}: expected weights in {' or '.join(_LAYER_FORMATS)}, "
            f"got {kind!r:.80}{others:.200}; take a checkpoint in fp8, fp16 or bf16"
        )

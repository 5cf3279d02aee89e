"""The text encoders of a single file: CLIP in transformers' layout, and OpenCLIP in its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sd_convert.checkpoint.tensors import TensorEntry
from sd_convert.errors import UnsupportedArchitectureError

from .renaming import OPEN_CLIP_ENDS, OPEN_CLIP_LAYER, below, rename

#: Every CLIP text encoder of Stable Diffusion has heads of this width; it does not follow from shapes.
_HEAD_CHANNELS: Final = 64
_OPEN_CLIP_WIDTHS: Final = (
    1024,
    1280,
)  # of ViT-H/14 and ViT-bigG/14, trained with gelu; OpenAI's have quick_gelu
_VIT_H_LAYERS: Final = 24

_LAYER: Final = re.compile(r"(?:transformer\.resblocks|text_model\.encoder\.layers)\.(\d+)\.", re.ASCII)
_SPLIT: Final = re.compile(r"(transformer\.resblocks\.\d+)\.attn\.in_proj_(weight|bias)", re.ASCII)
_IGNORED: Final = ("logit_scale", "attn_mask", "position_ids")


def clip_tensors(entries: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """The text model alone, of tensors in transformers' layout, with or without ``text_model.`` in front.

    Some tools keep the projection, the image encoder or constants beside it, which nothing needs here.
    """
    named = {
        name
        if name.startswith(("text_model.", "text_projection", "vision_model."))
        else f"text_model.{name}": e
        for name, e in entries.items()
        if not name.endswith(_IGNORED)
    }
    return {name: entry for name, entry in named.items() if name.startswith("text_model.")}


def open_clip_tensors(
    entries: Mapping[str, TensorEntry], *, penultimate: bool, where: str
) -> dict[str, TensorEntry]:
    """Tensors of OpenCLIP's text model under transformers' names: q, k, v apart, the projection turned.

    ``penultimate``: as SD 2 has it, without the last layer and the projection, which it does not use.

    Raises:
        UnsupportedArchitectureError: a tensor that the model does not have.
    """
    layers = _layers(entries) - (penultimate and _is_whole(entries))
    table = _table(layers)
    result: dict[str, TensorEntry] = {}
    for name, entry in entries.items():
        if name.endswith(_IGNORED) or _is_beyond(name, layers):
            continue
        if split := _SPLIT.fullmatch(name):
            result |= _split(entry, f"{rename(split[1], table)}.self_attn", split[2], where)
        elif name in ("text_projection", "text_projection.weight"):
            if not penultimate:
                result["text_projection.weight"] = entry.turned() if name == "text_projection" else entry
        elif (ours := rename(name, table)) is not None:
            result[ours] = entry
        else:
            raise UnsupportedArchitectureError(
                f"{where}: expected OpenCLIP's text model, got a tensor {name}, which it does not have"
            )
    return result


def text_config(tensors: Mapping[str, TensorEntry], *, openai: bool, where: str) -> dict[str, Any]:
    """The config of transformers' ``CLIPTextModel`` for tensors under its names; ``openai``: whose layout it
    was.

    Raises:
        UnsupportedArchitectureError: it is no such model.
    """
    vocabulary, width = _matrix(tensors, "text_model.embeddings.token_embedding.weight", where)
    positions, _ = _matrix(tensors, "text_model.embeddings.position_embedding.weight", where)
    projection = tensors.get("text_projection.weight")
    return {
        "architectures": ["CLIPTextModelWithProjection" if projection else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": _matrix(tensors, "text_model.encoder.layers.0.mlp.fc1.weight", where)[0],
        "num_hidden_layers": _layers(tensors),
        "num_attention_heads": max(1, width // _HEAD_CHANNELS),
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "projection_dim": projection.shape[0] if projection else width,
        "hidden_act": "quick_gelu" if openai and width not in _OPEN_CLIP_WIDTHS else "gelu",
        "layer_norm_eps": 1e-05,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 1,
    }


def _matrix(tensors: Mapping[str, TensorEntry], name: str, where: str) -> tuple[int, int]:
    entry = tensors.get(name)
    if entry is None or len(entry.shape) != 2:
        raise UnsupportedArchitectureError(
            f"{where}: expected CLIP's text model with a matrix {name}, got {entry and list(entry.shape)}"
        )
    return entry.shape[0], entry.shape[1]


def _layers(names: Iterable[str]) -> int:
    return len({match[1] for name in names if (match := _LAYER.match(name))})


def _is_whole(names: Iterable[str]) -> bool:
    """Whether the layer that SD 2 leaves out is there.

    Tools that write the file anew leave it out with the rest.
    """
    names = set(names)
    return "text_projection" in names or _layers(names) == _VIT_H_LAYERS


def _is_beyond(name: str, layers: int) -> bool:
    match = _LAYER.match(name)
    return match is not None and int(match[1]) >= layers


def _table(layers: int) -> dict[str, str]:
    table = dict(OPEN_CLIP_ENDS)
    for number in range(layers):
        theirs, ours = f"transformer.resblocks.{number}", f"text_model.encoder.layers.{number}"
        table |= {theirs: ours} | below(theirs, ours, OPEN_CLIP_LAYER)
    return table


def _split(entry: TensorEntry, module: str, kind: str, where: str) -> dict[str, TensorEntry]:
    """Query, key and value, which OpenCLIP keeps one above the other."""
    if not entry.shape or entry.shape[0] % 3:
        raise UnsupportedArchitectureError(
            f"{where}: expected three parts in in_proj_{kind}, got the shape {list(entry.shape)}"
        )
    return {f"{module}.{part}_proj.{kind}": entry.part(index, 3) for index, part in enumerate("qkv")}

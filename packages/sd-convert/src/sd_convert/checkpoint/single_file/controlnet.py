"""A ControlNet in one ``.safetensors`` file: in the original layout, or in diffusers' without its config.

Source: the layout of lllyasviel/ControlNet (``cldm/cldm.py``), and ``convert_controlnet_checkpoint`` in
diffusers' pipelines/stable_diffusion/convert_from_ckpt.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sd_convert.checkpoint.checkpoint import Config
from sd_convert.checkpoint.sources import Files, Source
from sd_convert.checkpoint.tensors import TensorEntry
from sd_convert.checkpoint.weights import LazyWeights, open_weights
from sd_convert.errors import NotACheckpointError, UnsupportedArchitectureError

from .blocks import diffusers_blocks, original_blocks, unet_table
from .renaming import rename
from .unet import encoder_config, encoder_depths, same

_PREFIXES: Final = ("control_model.", "")
_ORIGINAL: Final = "input_hint_block.0.weight"
_DIFFUSERS: Final = "controlnet_cond_embedding.conv_in.weight"
_HINT: Final = "input_hint_block"
_EMBEDDING: Final = "controlnet_cond_embedding"
#: Of a union ControlNet: a row for each kind of hint, what fuses hints (in diffusers' spelling), and its end.
_UNION: Final = "task_embedding"
_UNION_LAYERS: Final = "transformer_layes."
_UNION_PROJECTION: Final = "spatial_ch_projs.weight"
_UNION_KINDS: Final = "control_add_embedding.linear_1.weight"
#: Convolutions between the first and the last of the hint's, and how far apart activations put them.
_MOST_STEPS: Final = 32

#: What only others have, and what they are called.
_OTHERS: Final = {
    "lora_controlnet": "a Control-LoRA, which needs its UNet's weights",
    "transformer_blocks.0.attn.to_q.weight": "a ControlNet of Stable Diffusion 3 or Flux",
}

#: What shapes do not tell, and a ControlNet has in common with the UNet that it was trained beside.
_OF_THE_UNET: Final = (
    "act_fn",
    "addition_time_embed_dim",
    "attention_head_dim",
    "downsample_padding",
    "flip_sin_to_cos",
    "freq_shift",
    "mid_block_scale_factor",
    "norm_eps",
    "norm_num_groups",
    "num_attention_heads",
    "resnet_time_scale_shift",
    "upcast_attention",
)


@dataclass(frozen=True, slots=True)
class _Original:
    """A ControlNet of the original layout under diffusers' names."""

    file: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """That one file."""
        return (self.file,)

    def open(self) -> LazyWeights:
        """Map the file and rename, see :class:`sd_convert.checkpoint.sources.Source`."""
        entries = _original(open_weights([self.file]).entries)
        table = _table(entries, where=str(self.file))
        names = {name: rename(name, table) for name in entries}
        if unknown := sorted(name for name, ours in names.items() if ours is None):
            raise UnsupportedArchitectureError(
                f"{self.file}: expected a ControlNet of Stable Diffusion 1, 2 or XL, got {len(unknown)} "
                f"tensors that it does not have: {', '.join(unknown[:4])}"
            )
        return LazyWeights({ours: entries[name] for name, ours in names.items() if ours is not None})


def read_controlnet_file(file: Path, unet: Config) -> tuple[Config, Source]:
    """Config and weights of the ControlNet in ``file``; ``unet`` says what shapes do not tell.

    Raises:
        NotACheckpointError: there is no ControlNet in it.
        UnsupportedArchitectureError: it is of another kind.
    """
    entries = open_weights([file]).entries
    for mark, kind in _OTHERS.items():
        if any(name.startswith(mark) for name in entries):
            raise UnsupportedArchitectureError(
                f"{file}: expected a ControlNet, got {kind}: it is not converted"
            )
    original = _original(entries)
    if _ORIGINAL in original:
        return _config(original, unet, where=str(file)), _Original(file)
    if _DIFFUSERS in entries:
        config = _config(_as_original(entries), unet, where=str(file))
        return _as_union(config, entries, where=str(file)), Files((file,))
    raise NotACheckpointError(
        f"{file}: expected a ControlNet ({_ORIGINAL} or {_DIFFUSERS}), got "
        f"{', '.join(list(entries)[:3]) or 'no tensors'}"
    )


def _as_union(config: Config, entries: Mapping[str, TensorEntry], *, where: str) -> Config:
    """``config``, of a union ControlNet (ControlNet++) with what makes it one; it has but diffusers' names.

    Not in a file is into how many heads its transformers cut what they see: of one token, the same for any.
    """
    if _UNION not in entries:
        return config
    table = entries[_UNION].shape
    projected, kinds = (
        entries[name].shape if name in entries else () for name in (_UNION_PROJECTION, _UNION_KINDS)
    )
    if {len(table), len(projected), len(kinds)} != {2}:
        raise UnsupportedArchitectureError(
            f"{where}: expected a union ControlNet with {_UNION} (kinds, channels), "
            f"{_UNION_PROJECTION} and {_UNION_KINDS}, got {list(table)} of the first, or others"
        )
    layers = {name.split(".")[1] for name in entries if name.startswith(_UNION_LAYERS)}
    return {
        **{key: value for key, value in config.items() if key != "mid_block_type"},  # it has but one
        "_class_name": "ControlNetUnionModel",
        "addition_time_embed_dim": kinds[1] // table[0],
        "num_control_type": table[0],
        "num_trans_channel": table[1],
        "num_trans_head": 1,
        "num_trans_layer": len(layers),
        "num_proj_channel": projected[0],
    }


def _original(entries: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """What is a ControlNet's, without a prefix: a file may have the UNet beside it."""
    for prefix in _PREFIXES:
        if prefix + _ORIGINAL in entries:
            return {n.removeprefix(prefix): entry for n, entry in entries.items() if n.startswith(prefix)}
    return {}


def _as_original(entries: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """Tensors under diffusers' names under those of the original layout, as far as these tell the config."""
    blocks = diffusers_blocks(entries)
    back = {
        ours: theirs
        for theirs, ours in (unet_table(blocks) | _hint_table(_hint_steps(entries, _EMBEDDING))).items()
    }
    return {theirs: entry for name, entry in entries.items() if (theirs := rename(name, back)) is not None}


def _table(entries: Mapping[str, TensorEntry], *, where: str) -> dict[str, str]:
    """Modules of the original layout by diffusers' names."""
    blocks = original_blocks(entries, where=where)
    zeros = {name.split(".")[1] for name in entries if name.startswith("zero_convs.")}
    return {
        **unet_table(blocks),
        **_hint_table(_hint_steps(entries, _HINT)),
        **{f"zero_convs.{number}.0": f"controlnet_down_blocks.{number}" for number in zeros},
        "middle_block_out.0": "controlnet_mid_block",
    }


def _hint_steps(names: Mapping[str, object], beginning: str) -> int:
    """How many convolutions the hint passes between the first and the last."""
    if beginning == _EMBEDDING:
        return sum(f"{beginning}.blocks.{number}.weight" in names for number in range(_MOST_STEPS))
    # every other module is an activation
    return sum(f"{beginning}.{2 * number}.weight" in names for number in range(_MOST_STEPS)) - 2


def _hint_table(steps: int) -> dict[str, str]:
    return {
        f"{_HINT}.0": f"{_EMBEDDING}.conv_in",
        **{f"{_HINT}.{2 * number + 2}": f"{_EMBEDDING}.blocks.{number}" for number in range(steps)},
        f"{_HINT}.{2 * steps + 2}": f"{_EMBEDDING}.conv_out",
    }


def _config(entries: Mapping[str, TensorEntry], unet: Config, *, where: str) -> dict[str, Any]:
    """That of diffusers' ``ControlNetModel`` for tensors in the original layout."""
    shapes = {name: entry.shape for name, entry in entries.items()}
    blocks = original_blocks(shapes, where=where)
    layers = same([len(block.depths) for block in blocks.down])
    if not isinstance(layers, int):
        raise UnsupportedArchitectureError(
            f"{where}: expected as many layers in each block, got {layers}: no ControlNet of diffusers"
        )
    steps = _hint_steps(shapes, _HINT)
    channels = [shapes[f"{_HINT}.{4 * number}.weight"][0] for number in range(steps // 2 + 1)]
    return {
        **{key: unet[key] for key in _OF_THE_UNET if key in unet},
        **encoder_config(shapes, blocks, where=where),
        "_class_name": "ControlNetModel",
        "layers_per_block": layers,
        "transformer_layers_per_block": same(encoder_depths(blocks, where=where)),
        "conditioning_channels": shapes[_ORIGINAL][1],
        "conditioning_embedding_out_channels": channels,
    }

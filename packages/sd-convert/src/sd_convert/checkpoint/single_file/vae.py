"""The VAE of a single file: its config from the shapes of its tensors, which get diffusers' names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sd_convert.checkpoint.tensors import TensorEntry
from sd_convert.errors import UnsupportedArchitectureError

from .renaming import VAE_ATTENTION, VAE_ENDS, VAE_RESNET, below, rename

#: diffusers' own layout starts like CompVis' and goes on with these.
DIFFUSERS_MARK: Final = (
    "encoder.down_blocks.",
    "decoder.up_blocks.",
    "encoder.mid_block.",
    "decoder.mid_block.",
)

#: What the training of an autoencoder leaves beside it: the loss with its networks, and averages of the
#: weights under names without dots. As in AUTOMATIC1111 and diffusers, the weights themselves count.
_TRAINING: Final = re.compile(r"(loss|discriminator|perceptual_loss|model_ema)\.|logvar$")

_BLOCK: Final = re.compile(r"(encoder\.down|decoder\.up)\.(\d+)\.block\.(\d+)\.", re.ASCII)
_ATTENTION_MATRIX: Final = re.compile(r"\.attentions\.\d+\.to_(?:q|k|v|out\.0)\.weight$")


def is_of_training(name: str) -> bool:
    """Whether a tensor of a VAE's file only had a part in its training."""
    return _TRAINING.match(name) is not None


def vae_tensors(entries: Mapping[str, TensorEntry], *, where: str) -> dict[str, TensorEntry]:
    """``entries`` in CompVis' layout (``decoder.up.0.block.0.norm1.weight``) under diffusers' names.

    The matrices of attention, which may be saved as 1x1 convolutions, become matrices; what training left is
    left out.

    Raises:
        UnsupportedArchitectureError: a tensor that the VAE of Stable Diffusion does not have.
    """
    table = _table(entries)
    result: dict[str, TensorEntry] = {}
    for name, entry in entries.items():
        if is_of_training(name):
            continue
        ours = rename(name, table)
        if ours is None:
            raise UnsupportedArchitectureError(
                f"{where}: expected the VAE of Stable Diffusion, got a tensor {name}, which it does not have"
            )
        is_matrix = _ATTENTION_MATRIX.search(ours) and set(entry.shape[2:]) <= {1}
        result[ours] = entry.reshaped(entry.shape[:2]) if is_matrix else entry
    return result


def vae_config(entries: Mapping[str, TensorEntry], *, where: str) -> dict[str, Any]:
    """The config of diffusers' ``AutoencoderKL`` for tensors in CompVis' layout, of one half or both.

    Raises:
        UnsupportedArchitectureError: it is no such VAE.
    """
    half = "decoder" if "decoder.conv_in.weight" in entries else "encoder"
    counts = _counts(entries, "decoder.up" if half == "decoder" else "encoder.down")
    if not counts:
        raise UnsupportedArchitectureError(
            f"{where}: expected the VAE of Stable Diffusion, got one without blocks"
        )
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [_channels(entries, half, index) for index in range(len(counts))],
        "down_block_types": ["DownEncoderBlock2D"] * len(counts),
        "up_block_types": ["UpDecoderBlock2D"] * len(counts),
        "layers_per_block": counts[0] - (half == "decoder"),
        "latent_channels": _latent_channels(entries, half),
        "mid_block_add_attention": any(f"{half}.mid.attn_1." in name for name in entries),
        "use_quant_conv": "quant_conv.weight" in entries or not _has(entries, "encoder."),
        "use_post_quant_conv": "post_quant_conv.weight" in entries or not _has(entries, "decoder."),
    }


def _has(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _counts(names: Iterable[str], side: str) -> list[int]:
    """Residual layers of each block, from full resolution down."""
    found: dict[int, set[int]] = {}
    for name in names:
        if (match := _BLOCK.match(name)) and match[1] == side:
            found.setdefault(int(match[2]), set()).add(int(match[3]))
    return [len(layers) for _, layers in sorted(found.items())]


def _channels(entries: Mapping[str, TensorEntry], half: str, index: int) -> int:
    side = "up" if half == "decoder" else "down"
    return _size(entries, f"{half}.{side}.{index}.block.0.conv2.weight", 0)


def _latent_channels(entries: Mapping[str, TensorEntry], half: str) -> int:
    if half == "decoder":
        return _size(entries, "decoder.conv_in.weight", 1)
    return _size(entries, "encoder.conv_out.weight", 0) // 2  # mean and log variance


def _size(entries: Mapping[str, TensorEntry], name: str, axis: int) -> int:
    entry = entries.get(name)
    if entry is None or len(entry.shape) != 4:
        raise UnsupportedArchitectureError(
            f"the VAE: expected a convolution {name}, got {list(entry.shape) if entry else 'none'}"
        )
    return entry.shape[axis]


def _table(names: Iterable[str]) -> dict[str, str]:
    """Of all modules; diffusers counts the decoder's blocks upwards from the lowest resolution.

    CompVis down.
    """
    table = dict(VAE_ENDS)
    for side, ours in (("encoder.down", "encoder.down_blocks"), ("decoder.up", "decoder.up_blocks")):
        counts = _counts(names, side)
        for number, layers in enumerate(counts):
            block = f"{ours}.{number if side == 'encoder.down' else len(counts) - 1 - number}"
            for layer in range(layers):
                table |= below(f"{side}.{number}.block.{layer}", f"{block}.resnets.{layer}", VAE_RESNET)
            table[f"{side}.{number}.downsample.conv"] = f"{block}.downsamplers.0.conv"
            table[f"{side}.{number}.upsample.conv"] = f"{block}.upsamplers.0.conv"
    for half in ("encoder", "decoder"):
        table |= below(f"{half}.mid.block_1", f"{half}.mid_block.resnets.0", VAE_RESNET)
        table |= below(f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0", VAE_ATTENTION)
        table |= below(f"{half}.mid.block_2", f"{half}.mid_block.resnets.1", VAE_RESNET)
    return table

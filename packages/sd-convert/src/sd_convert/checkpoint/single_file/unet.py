"""The UNet of a single file: its config from the shapes of its tensors, which get diffusers' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sd_convert.checkpoint.tensors import TensorEntry
from sd_convert.errors import UnsupportedArchitectureError

from .blocks import Block, Blocks, original_blocks, unet_table
from .renaming import rename

#: Width of each of the numbers (sizes, crops, score) that condition SDXL.
_TIME_ID_CHANNELS: Final = 256

Shapes = Mapping[str, tuple[int, ...]]


def unet_tensors(entries: Mapping[str, TensorEntry], *, where: str) -> dict[str, TensorEntry]:
    """``entries`` in the original layout (``input_blocks.0.0.weight``) under diffusers' names.

    Raises:
        UnsupportedArchitectureError: a tensor that Stable Diffusion's UNet does not have.
    """
    table = unet_table(original_blocks(entries, where=where))
    names = {name: rename(name, table) for name in entries}
    unknown = sorted(name for name, ours in names.items() if ours is None)
    if unknown:
        raise UnsupportedArchitectureError(
            f"{where}: expected the UNet of Stable Diffusion 1, 2 or XL, got {len(unknown)} tensors that it "
            f"does not have: {', '.join(unknown[:4])}"
        )
    return {ours: entries[name] for name, ours in names.items() if ours is not None}


def unet_config(entries: Mapping[str, TensorEntry], *, where: str) -> dict[str, Any]:
    """The config of diffusers' ``UNet2DConditionModel`` for tensors in the original layout.

    It lacks the attention heads, which do not follow from shapes, and the size of the picture.

    Raises:
        UnsupportedArchitectureError: blocks that diffusers' UNet cannot have.
    """
    shapes = {name: entry.shape for name, entry in entries.items()}
    blocks = original_blocks(shapes, where=where)
    return {
        **encoder_config(shapes, blocks, where=where),
        "_class_name": "UNet2DConditionModel",
        "out_channels": _first(shapes, "out.2.weight", where)[0],
        "up_block_types": ["CrossAttnUpBlock2D" if b.attends else "UpBlock2D" for b in blocks.up],
        "layers_per_block": _layers(blocks, where),
        **_depths(blocks, where),
    }


def encoder_config(shapes: Shapes, blocks: Blocks, *, where: str) -> dict[str, Any]:
    """What the config says of the way down and the middle, which a ControlNet has too; errors as above."""
    return {
        "in_channels": _first(shapes, "input_blocks.0.0.weight", where)[1],
        "block_out_channels": _channels(blocks, shapes, where),
        "down_block_types": ["CrossAttnDownBlock2D" if b.attends else "DownBlock2D" for b in blocks.down],
        "mid_block_type": _mid_block_type(blocks.middle),
        "cross_attention_dim": _first(shapes, ".attn2.to_k.weight", where)[1],
        "use_linear_projection": len(_first(shapes, ".proj_in.weight", where)) == 2,
        **_conditions(shapes, where),
    }


def _first(shapes: Shapes, ending: str, where: str) -> tuple[int, ...]:
    """The shape of the first tensor with that end of its name."""
    for name, shape in shapes.items():
        if name.endswith(ending) and len(shape) >= 2:
            return shape
    raise UnsupportedArchitectureError(
        f"{where}: expected the UNet of Stable Diffusion 1, 2 or XL, got one without a tensor *{ending}"
    )


def _channels(blocks: Blocks, shapes: Shapes, where: str) -> list[int]:
    channels, number = [], 1
    for block in blocks.down:
        channels.append(_first(shapes, f"input_blocks.{number}.0.out_layers.3.weight", where)[0])
        number += len(block.depths) + block.resampled
    return channels


def _mid_block_type(depth: int | None) -> str | None:
    if depth is None:
        return None
    return "UNetMidBlock2DCrossAttn" if depth else "UNetMidBlock2D"


def _layers(blocks: Blocks, where: str) -> int | list[int]:
    down = [len(block.depths) for block in blocks.down]
    up = [len(block.depths) - 1 for block in reversed(blocks.up)]
    if down != up:
        raise UnsupportedArchitectureError(
            f"{where}: expected one layer more in each block on the way up than on the way down, "
            f"got {down} down and {up[::-1]} up"
        )
    each: int | list[int] = same(down)
    return each


def _depths(blocks: Blocks, where: str) -> dict[str, Any]:
    """Transformer blocks per attention, on the way up too where that is not as on the way down."""
    down = encoder_depths(blocks, where=where)
    up = [_depth_of(block) for block in blocks.up]
    mirrored = all(
        ours in (theirs, None) for ours, theirs in zip(_attending(blocks.up), down[::-1], strict=True)
    )
    depths: dict[str, Any] = {"transformer_layers_per_block": same(down)}
    if not mirrored or any(isinstance(depth, list) for depth in down):
        depths["reverse_transformer_layers_per_block"] = up
    return depths


def encoder_depths(blocks: Blocks, *, where: str) -> list[int | list[int]]:
    """Those of the blocks on the way down; diffusers takes the middle's from the last of them.

    Raises:
        UnsupportedArchitectureError: the middle has another number.
    """
    down: list[int | list[int]] = [_depth_of(block) for block in blocks.down]
    if blocks.middle and blocks.down and not blocks.down[-1].attends:
        down[-1] = blocks.middle
    last = down[-1] if down else 1
    if blocks.middle and blocks.middle != (last[0] if isinstance(last, list) else last):
        raise UnsupportedArchitectureError(
            f"{where}: expected as many transformer blocks in the middle as in the last block on the way "
            f"down ({last}), got {blocks.middle}"
        )
    return down


def _attending(blocks: tuple[Block, ...]) -> list[Any]:
    return [_depth_of(block) if block.attends else None for block in blocks]


def _depth_of(block: Block) -> int | list[int]:
    each: int | list[int] = same([depth or 1 for depth in block.depths])
    return each


def same(values: list[Any]) -> Any:
    """The one value that all are, or the list."""
    return values[0] if values and all(value == values[0] for value in values) else values


def _conditions(shapes: Shapes, where: str) -> dict[str, Any]:
    conditions: dict[str, Any] = {}
    if "label_emb.0.0.weight" in shapes:
        conditions["addition_embed_type"] = "text_time"
        conditions["addition_time_embed_dim"] = _TIME_ID_CHANNELS
        conditions["projection_class_embeddings_input_dim"] = _first(shapes, "label_emb.0.0.weight", where)[1]
    if "time_embed.cond_proj.weight" in shapes:
        conditions["time_cond_proj_dim"] = _first(shapes, "time_embed.cond_proj.weight", where)[1]
    return conditions

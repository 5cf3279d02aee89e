"""The blocks of a UNet, in whichever layout its names were found, and what each is called in the other.

The original layout numbers every layer through (``input_blocks.7``), diffusers' groups them by resolution
(``down_blocks.2.resnets.0``), so neither can be told from the other without the number of layers in each.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from sd_convert.errors import UnsupportedArchitectureError

from .renaming import UNET_ENDS, UNET_RESNET, below

Layer: TypeAlias = dict[int, set[str]]  # number of the module in the layer -> names of its tensors

_ORIGINAL: Final = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)(?:\.(\d+))?\.(.+)", re.ASCII)
_DIFFUSERS: Final = re.compile(
    r"(?:(down_blocks|up_blocks)\.(\d+)|(mid_block))\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)",
    re.ASCII,
)
_TRANSFORMER: Final = re.compile(r"transformer_blocks\.(\d+)\.", re.ASCII)


@dataclass(frozen=True, slots=True)
class Block:
    """Layers of one resolution. ``depths``: transformer blocks of each layer's attention, 0 if it has none.

    ``resampled``: whether the block ends with a layer that halves or doubles the resolution.
    """

    depths: tuple[int, ...]
    resampled: bool

    @property
    def attends(self) -> bool:
        """Whether its layers have attention."""
        return any(self.depths)


@dataclass(frozen=True, slots=True)
class Blocks:
    """A UNet. ``middle`` is the depth of its attention, 0 for one residual layer alone, None for no block."""

    down: tuple[Block, ...]
    middle: int | None
    up: tuple[Block, ...]


def original_blocks(names: Iterable[str], *, where: str) -> Blocks:
    """The blocks that tensors of the original layout (``input_blocks.1.0.in_layers.0.weight``) belong to.

    Raises:
        UnsupportedArchitectureError: a block that diffusers' UNet cannot have.
    """
    layers: dict[str, defaultdict[int, Layer]] = {
        side: defaultdict(lambda: defaultdict(set))
        for side in ("input_blocks", "middle_block", "output_blocks")
    }
    for name in names:
        if match := _ORIGINAL.fullmatch(name):
            side, layer, module, rest = match.groups()
            if side == "middle_block":
                layers[side][0][int(layer)].add(f"{module}.{rest}" if module else rest)
            elif module is not None:
                layers[side][int(layer)][int(module)].add(rest)
    down = {number: layer for number, layer in layers["input_blocks"].items() if number > 0}
    return Blocks(
        down=_group(down, first=1, where=f"{where}: input_blocks"),
        middle=_middle(layers["middle_block"].get(0)),
        up=_group(layers["output_blocks"], first=0, where=f"{where}: output_blocks"),
    )


def _group(layers: dict[int, Layer], *, first: int, where: str) -> tuple[Block, ...]:
    """Layers up to each one that changes the resolution, as blocks."""
    blocks: list[Block] = []
    depths: list[int] = []
    for number, (_, layer) in enumerate(sorted(layers.items()), first):
        if number not in layers:
            raise _unknown(where, number)
        halves = any("op.weight" in names for names in layer.values())
        doubles = any("conv.weight" in names for names in layer.values())
        if not halves:
            depths.append(_depth(layer))
        if halves or doubles:
            blocks.append(_block(depths, resampled=True, where=where))
            depths = []
    return (*blocks, *((_block(depths, resampled=False, where=where),) if depths else ()))


def _block(depths: list[int], *, resampled: bool, where: str) -> Block:
    if not depths or (any(depths) and not all(depths)):
        raise UnsupportedArchitectureError(
            f"{where}: expected attention in every layer of a resolution or in none, got depths {depths}; "
            "supported: Stable Diffusion 1, 2 and XL"
        )
    return Block(tuple(depths), resampled)


def _unknown(where: str, number: int) -> UnsupportedArchitectureError:
    return UnsupportedArchitectureError(
        f"{where}: expected consecutive layers, got none numbered {number}; "
        "supported: Stable Diffusion 1, 2 and XL"
    )


def _middle(layer: Layer | None) -> int | None:
    return None if layer is None else _depth(layer)


def _depth(layer: Layer) -> int:
    """Number of transformer blocks of the attention in ``layer``, 0 if there is none."""
    return len(
        {match[1] for names in layer.values() for name in names if (match := _TRANSFORMER.match(name))}
    )


def diffusers_blocks(names: Iterable[str]) -> Blocks:
    """The blocks that tensors of diffusers' layout (``down_blocks.0.resnets.0.norm1.weight``) belong to."""
    found: dict[tuple[str, int], dict[str, Layer]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(set))
    )
    for name in names:
        if match := _DIFFUSERS.fullmatch(name):
            side, block, middle, kind, number, rest = match.groups()
            found[side or middle, int(block or 0)][kind][int(number)].add(rest)
    return Blocks(
        down=tuple(_diffusers_block(found[key]) for key in sorted(found) if key[0] == "down_blocks"),
        middle=_depth(found["mid_block", 0]["attentions"]) if ("mid_block", 0) in found else None,
        up=tuple(_diffusers_block(found[key]) for key in sorted(found) if key[0] == "up_blocks"),
    )


def _diffusers_block(kinds: dict[str, Layer]) -> Block:
    attentions = kinds.get("attentions", {})
    return Block(
        depths=tuple(_depth({0: attentions.get(number, set())}) for number in sorted(kinds["resnets"])),
        resampled=bool(kinds.get("downsamplers") or kinds.get("upsamplers")),
    )


def unet_table(blocks: Blocks) -> dict[str, str]:
    """Names of modules in the original layout to those of diffusers, for :func:`.renaming.rename`."""
    table = dict(UNET_ENDS)
    for theirs, ours, is_resnet in (*_down(blocks), *_mid(blocks), *_up(blocks)):
        table |= below(theirs, ours, UNET_RESNET) if is_resnet else {theirs: ours}
    return table


def _down(blocks: Blocks) -> Iterator[tuple[str, str, bool]]:
    number = 1
    for index, block in enumerate(blocks.down):
        for layer, depth in enumerate(block.depths):
            yield f"input_blocks.{number}.0", f"down_blocks.{index}.resnets.{layer}", True
            if depth:
                yield f"input_blocks.{number}.1", f"down_blocks.{index}.attentions.{layer}", False
            number += 1
        if block.resampled:
            yield f"input_blocks.{number}.0.op", f"down_blocks.{index}.downsamplers.0.conv", False
            number += 1


def _mid(blocks: Blocks) -> Iterator[tuple[str, str, bool]]:
    if blocks.middle is not None:
        yield "middle_block.0", "mid_block.resnets.0", True
    if blocks.middle:
        yield "middle_block.1", "mid_block.attentions.0", False
        yield "middle_block.2", "mid_block.resnets.1", True


def _up(blocks: Blocks) -> Iterator[tuple[str, str, bool]]:
    number = 0
    for index, block in enumerate(blocks.up):
        for layer, depth in enumerate(block.depths):
            yield f"output_blocks.{number}.0", f"up_blocks.{index}.resnets.{layer}", True
            if depth:
                yield f"output_blocks.{number}.1", f"up_blocks.{index}.attentions.{layer}", False
            number += 1
        if block.resampled:
            place = f"output_blocks.{number - 1}.{2 if block.attends else 1}.conv"
            yield place, f"up_blocks.{index}.upsamplers.0.conv", False

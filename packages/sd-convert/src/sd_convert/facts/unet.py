"""What the UNet's config says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sd_bundle import TimeIds

from sd_convert.families import TASKS, TIME_ID_COUNTS, TaskKind

from .section import Section

# diffusers' own defaults, for configs that leave the key out
_CHANNELS: Final = 4
_WIDTHS: Final = (320, 640, 1280, 1280)
_LAYERS: Final = 2
_TEXT_WIDTH: Final = 1280


@dataclass(frozen=True, slots=True)
class UNetFacts:
    """The UNet as its ports and its metadata need it.

    ``channels``: of what it predicts. ``text_width``: of the hidden states that it attends to. ``time_ids``,
    ``pooled_width``: what SDXL's is told of sizes, and the channels of the pooled text beside it.
    ``guidance_width``: of the embedded guidance scale that a latent consistency model takes; None for others.
    ``block_channels``, ``layers``: of each block on the way down, where a ControlNet adds. ``sample_size``:
    height and width of the latents that it was trained with, if they are said.
    """

    task: TaskKind
    channels: int
    text_width: int
    time_ids: TimeIds
    pooled_width: int
    guidance_width: int | None
    linear_projection: bool
    block_channels: tuple[int, ...]
    layers: tuple[int, ...]
    sample_size: tuple[int, int] | None


def unet_facts(config: Section, *, pooled_width: Callable[[], int]) -> UNetFacts:
    """``config`` parsed; ``pooled_width`` finds that of the last text encoder, which SDXL alone needs.

    Raises:
        UnsupportedArchitectureError: channels that no task has, or sizes that contradict each other.
    """
    widths = config.items("block_out_channels") or _WIDTHS
    time_ids, pooled = _conditions(config, pooled_width)
    return UNetFacts(
        task=task_of(config),
        channels=config.count("out_channels", _CHANNELS),
        text_width=_text_width(config),
        time_ids=time_ids,
        pooled_width=pooled,
        guidance_width=_guidance_width(config),
        linear_projection=bool(config.values.get("use_linear_projection", False)),
        block_channels=_numbers(config, "block_out_channels", widths),
        layers=_layers(config, len(widths)),
        sample_size=_sample_size(config),
    )


def task_of(config: Section) -> TaskKind:
    """What the UNet sees beside the noisy latents: nothing, mask and masked picture, or a picture.

    Raises:
        UnsupportedArchitectureError: a number of channels that no task has.
    """
    latent, channels = config.count("out_channels", _CHANNELS), config.values.get("in_channels", _CHANNELS)
    tasks = {task.channels(latent): task for task in TASKS}
    if channels not in tasks:
        raise config.unexpected("in_channels", " or ".join(map(str, tasks)))
    return tasks[channels]


def _text_width(config: Section) -> int:
    """Channels of the hidden states that it takes, which have to be the same in all of its blocks."""
    key = "cross_attention_dim" if config.values.get("encoder_hid_dim") is None else "encoder_hid_dim"
    value = config.values.get(key, _TEXT_WIDTH)
    widths = set(_numbers(config, key, value if isinstance(value, list | tuple) else [value]))
    if len(widths) != 1:
        raise config.unexpected(key, "one number of channels")
    return widths.pop()


def _conditions(config: Section, pooled_width: Callable[[], int]) -> tuple[TimeIds, int]:
    """What ``time_ids`` are, by how many numbers their embedding leaves room for beside the pooled text."""
    if config.values.get("addition_embed_type") != "text_time":
        return "none", 0
    key = "projection_class_embeddings_input_dim"
    width, each = config.values.get(key), config.values.get("addition_time_embed_dim")
    if type(width) is not int or type(each) is not int or each < 1:
        raise config.unexpected(key, "a width")
    pooled = pooled_width()
    for kind, count in TIME_ID_COUNTS.items():
        if count and width == pooled + count * each:
            return kind, pooled
    raise config.unexpected(key, f"{pooled} for the text and 5 or 6 times {each}")


def _guidance_width(config: Section) -> int | None:
    key = "time_cond_proj_dim"
    return None if config.values.get(key) is None else config.count(key, 1)


def _layers(config: Section, blocks: int) -> tuple[int, ...]:
    value = config.values.get("layers_per_block", _LAYERS)
    layers = _numbers(
        config, "layers_per_block", value if isinstance(value, list | tuple) else [value] * blocks
    )
    if len(layers) != blocks:
        raise config.unexpected("layers_per_block", f"a number, or one for each of {blocks} blocks")
    return layers


def _numbers(config: Section, key: str, values: Sequence[object]) -> tuple[int, ...]:
    numbers = tuple(value for value in values if type(value) is int)
    if len(numbers) != len(values):
        raise config.unexpected(key, "whole numbers")
    return numbers


def _sample_size(config: Section) -> tuple[int, int] | None:
    value = config.values.get("sample_size")
    height, width = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    return (height, width) if type(height) is type(width) is int and min(height, width) > 0 else None

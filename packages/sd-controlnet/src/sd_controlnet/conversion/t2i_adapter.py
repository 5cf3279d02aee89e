"""A T2I-Adapter: features of a hint, computed once a picture, that the UNet adds in its blocks going down.

Source: arXiv 2302.08453 (T2I-Adapter); diffusers' ``T2IAdapter``. Ports are named as in Guernika's converter.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from sd_convert import (
    ADAPTER_RESIDUAL,
    ComponentKind,
    Facts,
    Network,
    OptionsError,
    Section,
    Shapes,
    Sizes,
    check_known_options,
    check_values,
    on_meta_device,
    portable,
)

from .base import check_base
from .controlnet import drawn_hint

INPUT: Final = "input"
_SUMMARY: Final = (
    "T2I-Adapter is a small network that lets a hint steer a diffusion model. Please refer to "
    "https://arxiv.org/abs/2302.08453 for details."
)
_XL: Final = "full_adapter_xl"
_LIGHT: Final = "light_adapter"
_TYPES: Final = ("full_adapter", _LIGHT, _XL)
_SUPPORTED: Final[Mapping[str, Collection[Any]]] = {
    "_class_name": ("T2IAdapter",),
    "adapter_type": _TYPES,
    "in_channels": (1, 3),
}
_WIDTHS: Final = (320, 640, 1280, 1280)  # diffusers' default


def t2i_adapter_kind(name: str) -> ComponentKind:
    """The component called ``name``, whose config and weights a checkpoint has under the same name."""
    return ComponentKind(
        name=name,
        role="t2i_adapter",
        folder=name,
        libraries=("torch.export", "diffusers.models.adapter"),
        shapes=_shapes,
        network=_network,
        descriptions={INPUT: "The picture that steers, in [0, 1]."},
        draws={INPUT: drawn_hint},
        summary=_SUMMARY,
        identifier=name,
        package=lambda *_: f"T2IAdapter_{portable(name)}.mlpackage",
    )


def _shapes(facts: Facts, config: Section, sizes: Sizes) -> tuple[Shapes, Shapes]:
    """The picture, and features as the blocks of the UNet take them; one for all rows of a batch."""
    check_values(config.values, _SUPPORTED, config.where)
    is_xl = config.values.get("adapter_type") == _XL
    widths, factor = config.items("channels") or _WIDTHS, facts.vae.factor
    if config.values.get("adapter_type") == _LIGHT and widths:
        widths = (*widths, widths[-1])  # diffusers' has one level more than it is told
    _check_base(facts, config, widths, is_xl=is_xl)
    unshuffled = factor * (2 if is_xl else 1)
    height, width = sizes.height * factor, sizes.width * factor
    if height % unshuffled or width % unshuffled:
        raise OptionsError(
            f"{config.where}: expected sides of the picture that {unshuffled} divides, got {width}x{height}"
        )
    features = _features(height // unshuffled, width // unshuffled, len(widths), is_xl=is_xl)
    outputs = {
        f"{ADAPTER_RESIDUAL}{number:02}": (1, channels, *size)
        for number, (channels, size) in enumerate(zip(widths, features, strict=True))
    }
    return {INPUT: (1, config.count("in_channels", 3), height, width)}, outputs


def _features(height: int, width: int, count: int, *, is_xl: bool) -> Iterator[tuple[int, int]]:
    """Heights and widths: halved before each but the first, of SDXL before the third alone."""
    for index in range(count):
        if index == 2 if is_xl else index > 0:
            height, width = -(-height // 2), -(-width // 2)
        yield height, width


def _check_base(facts: Facts, config: Section, widths: tuple[Any, ...], *, is_xl: bool) -> None:
    takes_sizes, blocks = facts.unet.time_ids != "none", list(facts.unet.block_channels)
    check_base(
        facts,
        config.where,
        {
            "adapter_type": ("for SDXL" if is_xl else "for SD", "for SDXL" if takes_sizes else "for SD"),
            "channels": (list(widths), [*blocks, blocks[-1]] if takes_sizes else blocks),
            "downscale_factor": (
                config.count("downscale_factor", 8),
                facts.vae.factor * (2 if takes_sizes else 1),
            ),
        },
    )


def _network(_: Facts, config: Section, __: tuple[str, ...]) -> Network:
    """diffusers' adapter behind its ports."""
    from diffusers.models.adapter import T2IAdapter

    from .modules import AdapterPorts

    known = inspect.signature(T2IAdapter.__init__).parameters
    check_known_options(config.values, known, where=config.where)
    model = on_meta_device(lambda: T2IAdapter.from_config(dict(config.values)), where=config.where)
    return Network(AdapterPorts(model), lambda name: f"adapter.{name}")

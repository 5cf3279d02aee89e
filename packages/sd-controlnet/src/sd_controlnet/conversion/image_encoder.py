"""The CLIP vision model that IP-Adapters look through: a picture to an embedding, and to hidden states.

Source: transformers' ``CLIPVisionModelWithProjection``, as ``encode_image`` of diffusers' pipelines uses it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sd_convert import (
    Checkpoint,
    ComponentKind,
    Facts,
    Network,
    Section,
    Shapes,
    Sizes,
    check_values,
    on_meta_device,
)

from sd_controlnet.errors import ControlNetError

from .base import KINDS

IMAGE_ENCODER: Final = "image_encoder"
PIXELS: Final = "pixel_values"
EMBEDDING: Final = "image_embeds"
HIDDEN_STATES: Final = "hidden_states"
_SUPPORTED: Final[Mapping[str, Collection[Any]]] = {
    "model_type": ("clip_vision_model",),
    "hidden_act": ("quick_gelu", "gelu"),
    "num_channels": (3,),
}
_VISION: Final = re.compile(r"^vision_model\.(vision_model\.)?")
_SUMMARY: Final = "CLIP's vision model: what IP-Adapters see of a picture. https://arxiv.org/abs/2103.00020"
#: transformers' defaults
_PIXELS, _PATCH, _WIDTH, _PROJECTED = 224, 32, 768, 512
_MOST_PIXELS: Final = 2048


@dataclass(frozen=True, slots=True)
class Seen:
    """The sizes of a vision model: pixels along each side, channels and number of its hidden states.

    ``projected``: channels of the embedding.
    """

    side: int
    width: int
    states: int
    projected: int


def seen(config: Section) -> Seen:
    """What a vision model of ``config`` gives.

    Raises:
        sd_convert.UnsupportedArchitectureError: no CLIP vision model, or sizes that none has.
    """
    check_values(config.values, _SUPPORTED, config.where)
    side = config.count("image_size", _PIXELS, most=_MOST_PIXELS)
    patches = side // config.count("patch_size", _PATCH, most=side)
    return Seen(
        side=side,
        width=config.count("hidden_size", _WIDTH),
        states=patches**2 + 1,
        projected=config.count("projection_dim", _PROJECTED),
    )


def image_encoder_kind() -> ComponentKind:
    """The image encoder, whose config and weights a checkpoint has in ``image_encoder``."""
    return ComponentKind(
        name=IMAGE_ENCODER,
        role="vision_encoder",
        folder=IMAGE_ENCODER,
        libraries=("torch.export", "transformers.models.clip.modeling_clip"),
        shapes=_shapes,
        network=_network,
        descriptions={
            PIXELS: "The picture to be like, cut to a square, in CLIP's normalisation",
            EMBEDDING: "The projected embedding of the picture",
            HIDDEN_STATES: "The hidden states before the last layer",
        },
        draws={PIXELS: KINDS["safety_checker"].draws["clip_input"]},
        summary=_SUMMARY,
        identifier=IMAGE_ENCODER,
    )


def _shapes(_: Facts, config: Section, __: Sizes) -> tuple[Shapes, Shapes]:
    found = seen(config)
    outputs = {EMBEDDING: (1, found.projected), HIDDEN_STATES: (1, found.states, found.width)}
    return {PIXELS: (1, 3, found.side, found.side)}, outputs


def _network(_: Facts, config: Section, __: tuple[str, ...]) -> Network:
    """transformers' class on the meta device, in float32 whatever the file was saved in."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from .modules import ImageEncoderPorts

    known = {key: value for key, value in config.values.items() if key not in ("dtype", "torch_dtype")}
    model = on_meta_device(
        lambda: CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(known, attn_implementation="sdpa")),
        where=config.where,
    )
    # transformers 5 dropped a second ``vision_model.`` for a while; files may be of either kind
    is_nested = any(name.startswith("vision_model.vision_model.") for name in model.state_dict())
    prefix = "vision_model.vision_model." if is_nested else "vision_model."

    def rename(name: str) -> str | None:
        if name.endswith("position_ids"):  # a constant 0, 1, 2, ... that old versions of transformers saved
            return None
        return "encoder." + _VISION.sub(prefix, name)

    return Network(ImageEncoderPorts(model), rename)


def image_encoder_place(
    checkpoint: Checkpoint, adapter: str | Path, given: str | Path | None
) -> tuple[str | Path, str]:
    """Where the image encoder of ``adapter`` is: a folder or hub id, and a folder in it.

    Raises:
        ControlNetError: none is given, and none lies beside the adapter or in the checkpoint.
    """
    if given is not None:
        return _split(given, IMAGE_ENCODER)
    if not Path(adapter).expanduser().exists():
        repository, inside = _split(adapter, "")
        if inside:
            return repository, str(PurePosixPath(inside).parent / IMAGE_ENCODER)
    places = [Path(adapter).expanduser().parent, checkpoint.folder]
    for place in places:
        if (place / IMAGE_ENCODER / "config.json").is_file():
            return place / IMAGE_ENCODER, IMAGE_ENCODER
    raise ControlNetError(
        f"expected an image encoder for {adapter}: the folder or hub id of a CLIP vision model, or "
        f"{IMAGE_ENCODER} beside the adapter, got none; most adapters "
        "are for h94/IP-Adapter/models/image_encoder"
    )


def _split(source: str | Path, default: str) -> tuple[str | Path, str]:
    """``organisation/name/folder/in/it`` as the repository and the folder; other forms with ``default``."""
    organisation, *rest = str(source).split("/")
    if Path(source).expanduser().exists() or len(rest) < 2 or not organisation.strip("."):
        return source, default
    return f"{organisation}/{rest[0]}", "/".join(rest[1:])

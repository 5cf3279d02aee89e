"""Another VAE in place of a checkpoint's own.

A folder or repository in diffusers format, or a single file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sd_convert.errors import NotACheckpointError, UnsupportedArchitectureError
from sd_convert.facts.vae import SCALING_FACTOR

from .checkpoint import Checkpoint, Config, Request
from .single_file.detect import Place
from .single_file.source import InSingleFile, original_tensors
from .single_file.vae import DIFFUSERS_MARK, vae_config
from .sources import Files, Source
from .tensors import TensorEntry
from .weights import open_weights

_TINY: Final = "encoder.layers.0.weight"
_PLACES: Final = (
    Place("vae", "first_stage_model.", "vae"),
    Place("vae", "vae.", "vae"),
    Place("vae", "", "vae"),
)
_RESNET: Final = re.compile(
    r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.resnets\.(\d+)\.conv2\.weight", re.ASCII
)


def with_vae(
    checkpoint: Checkpoint, config: Config, source: Source, request: Request, *, variant: str
) -> Checkpoint:
    """``checkpoint`` with the halves of another VAE as its own, as far as its components were asked for."""
    halves = {component for component, folder in request.chosen().items() if folder == "vae"}
    opened = {*checkpoint.components, *halves}
    sources = {folder: s for folder, s in checkpoint.sources.items() if folder != "vae"}
    notes = tuple(note for note in checkpoint.notes if "VAE" not in note)
    return replace(
        checkpoint,
        networks={c: folder for c, folder in request.folders.items() if c in opened},
        configs={**checkpoint.configs, "vae": config},
        sources={**sources, "vae": source} if halves else sources,
        variants={**checkpoint.variants, "vae": variant},
        notes=notes,
    )


def read_vae_file(file: Path, base: Config | None) -> tuple[Config, Source, str]:
    """The same of a single file: a VAE alone, in either layout, or one inside a checkpoint.

    ``base``: the config of the VAE whose place it takes; the latents mean the same, so do the factors.

    Raises:
        NotACheckpointError: there is no VAE in it.
        UnsupportedArchitectureError: it is of another kind.
    """
    entries = open_weights([file]).entries
    if _TINY in entries:
        return _tiny_config(entries, file), Files((file,)), ""
    if any(name.startswith(DIFFUSERS_MARK) for name in entries):
        return _with_factor(_diffusers_config(entries, file), base), Files((file,)), ""
    for place in _PLACES:
        part = original_tensors(entries, place) if place.prefix else entries
        if "decoder.conv_in.weight" in part or "encoder.conv_in.weight" in part:
            source = InSingleFile(file, replace(place, layout="vae"))
            config = _with_factor(vae_config(part, where=str(file)), base)
            source.open()
            return config, source, ""
    raise NotACheckpointError(
        f"{file}: expected a VAE (encoder.conv_in.weight, decoder.conv_in.weight), got "
        f"{', '.join(list(entries)[:3]) or 'no tensors'}"
    )


def _with_factor(config: dict[str, Any], base: Config | None) -> dict[str, Any]:
    return {**config, "scaling_factor": (base or {}).get("scaling_factor", SCALING_FACTOR)}


def _diffusers_config(entries: Mapping[str, TensorEntry], file: Path) -> dict[str, Any]:
    """From the shapes of both halves under diffusers' names; the decoder's blocks run the other way."""
    half = "decoder.up" if "decoder.conv_in.weight" in entries else "encoder.down"
    channels: dict[int, int] = {}
    layers: set[int] = set()
    for name, entry in entries.items():
        if (match := _RESNET.fullmatch(name)) and match[1] == half:
            channels[int(match[2])] = entry.shape[0] if entry.shape else 0
            layers.add(int(match[3]))
    conv_in = entries.get("decoder.conv_in.weight") or entries.get("encoder.conv_out.weight")
    if not channels or conv_in is None or len(conv_in.shape) != 4:
        raise UnsupportedArchitectureError(f"{file}: expected the VAE of Stable Diffusion, got another")
    widths = [width for _, width in sorted(channels.items(), reverse=half == "decoder.up")]
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": len(layers) - (half == "decoder.up"),
        "latent_channels": conv_in.shape[1] if half == "decoder.up" else conv_in.shape[0] // 2,
        "mid_block_add_attention": _has(entries, ".attentions.0."),
        "use_quant_conv": "quant_conv.weight" in entries or not _has(entries, "encoder."),
        "use_post_quant_conv": "post_quant_conv.weight" in entries or not _has(entries, "decoder."),
    }


def _has(names: Collection[str], part: str) -> bool:
    return any(part in name for name in names)


def _tiny_config(entries: Mapping[str, TensorEntry], file: Path) -> dict[str, Any]:
    """diffusers' AutoencoderTiny of TAESD's shape.

    Another is refused when its weights are held against it.
    """
    last = entries.get("decoder.layers.0.weight")
    if last is None or len(last.shape) != 4:
        raise UnsupportedArchitectureError(f"{file}: expected both halves of TAESD, got one")
    return {"_class_name": "AutoencoderTiny", "latent_channels": last.shape[1], "scaling_factor": 1.0}

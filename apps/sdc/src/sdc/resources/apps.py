"""What apps take a folder of compiled models for: the rules by which they recognise one, in one place.

Source: Mochi Diffusion's ``SDModel.swift`` and ``SDControlNet.swift``: all comes from ``metadata.json``.
Guernika reads the metadata that converters write into the models; it is not asked here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sdc.resources.names import SUFFIX, ResourcesError

#: The first of these that is there is looked at.
_DENOISERS: Final = ("Unet", "UnetChunk1", "ControlledUnet", "ControlledUnetChunk1")
_EINSUM: Final = "Ios16.einsum"
_LARGEST: Final = 1 << 26  # bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """A model as an app lists it; ``size`` is (width, height), None where the app lets people choose."""

    attention: Literal["split_einsum", "original"]
    family: Literal["sd", "sdxl"]
    size: tuple[int, int] | None
    takes_controlnets: bool


def as_apps_see(folder: Path) -> Seen:
    """What the folder is taken for.

    Raises:
        ResourcesError: apps would not list it.
    """
    denoiser = next((name for name in _DENOISERS if (folder / f"{name}{SUFFIX}").is_dir()), None)
    if denoiser is None:
        raise ResourcesError(f"expected one of {', '.join(_DENOISERS)} in {folder}, got none")
    said = model_metadata(folder / f"{denoiser}{SUFFIX}")
    names = {one["name"] for one in said["inputSchema"]}
    return Seen(
        attention="split_einsum" if _EINSUM in said["mlProgramOperationTypeHistogram"] else "original",
        family="sdxl" if {"time_ids", "text_embeds"} <= names else "sd",
        size=_size(folder / f"VAEEncoder{SUFFIX}"),
        takes_controlnets=any((folder / f"ControlledUnet{end}{SUFFIX}").is_dir() for end in ("", "Chunk1")),
    )


def model_metadata(compiled: Path) -> Mapping[str, Any]:
    """The only object of ``metadata.json``.

    Raises:
        ResourcesError: it is not what Core ML's compiler writes.
    """
    file = compiled / "metadata.json"
    try:
        if file.stat().st_size > _LARGEST:
            raise ResourcesError(f"{file}: expected at most {_LARGEST} bytes, got {file.stat().st_size}")
        (said,) = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(said["mlProgramOperationTypeHistogram"], dict) and isinstance(
            said["inputSchema"], list
        ):
            return dict(said)
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        if isinstance(error, ResourcesError):
            raise
    raise ResourcesError(f"{file}: expected the metadata of one compiled ML Program, got something else")


def _size(encoder: Path) -> tuple[int, int] | None:
    if not encoder.is_dir():
        return None
    first = model_metadata(encoder)["inputSchema"][0]
    *_, height, width = json.loads(first["shape"])
    return int(width), int(height)

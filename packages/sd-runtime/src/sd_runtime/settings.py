"""What decides a picture beside the bundle: a caller's options, and the settings that they come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from sd_runtime.noise import Rng

if TYPE_CHECKING:
    from PIL.Image import Image

    from sd_runtime.pipeline import Pipeline

#: What is drawn from: ``image-to-image`` needs no UNet of its own, the other two beside text do.
Mode: TypeAlias = Literal["text-to-image", "image-to-image", "inpainting", "instruct-pix2pix"]
Size: TypeAlias = tuple[int, int]


class SamplingOptions(TypedDict, total=False):
    """The keyword arguments of :meth:`Pipeline.settings`, which documents them and holds their defaults."""

    negative_prompt: str
    seed: int
    num_inference_steps: int | None
    guidance_scale: float | None
    scheduler: str | None
    rng: Rng
    image: Image | str | Path | None
    mask: Image | str | Path | None
    strength: float | None
    image_guidance_scale: float | None
    original_size: Size | None
    crop_top_left: Size | None
    target_size: Size | None
    aesthetic_score: float | None
    negative_aesthetic_score: float | None
    refiner: Pipeline | None
    refiner_start: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """Everything that, with the bundle, decides a picture; None for what plays no part in it.

    ``width`` and ``height`` are in pixels; ``original_size``, ``crop_top_left`` and ``target_size`` are
    (height, width). ``schedule_type`` is the web UI's name for the spacing of noise levels, where the bundle
    asks for one that it knows. Given pictures are known by the sha256 of their pixels at the model's size, a
    refiner by its model's identifier.
    """

    prompt: str
    negative_prompt: str
    seed: int
    rng: Rng
    scheduler: str
    num_inference_steps: int
    guidance_scale: float
    width: int
    height: int
    model: str
    engine: str
    precision: str
    schedule_type: str | None = None
    mode: Mode = "text-to-image"
    image_sha256: str | None = None
    mask_sha256: str | None = None
    strength: float | None = None
    image_guidance_scale: float | None = None
    original_size: Size | None = None
    crop_top_left: Size | None = None
    target_size: Size | None = None
    aesthetic_score: float | None = None
    negative_aesthetic_score: float | None = None
    refiner: str | None = None
    refiner_start: float | None = None

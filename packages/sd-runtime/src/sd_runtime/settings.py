"""Everything that, with the bundle, decides a picture: what a request comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sd_runtime.noise import Rng

Size: TypeAlias = tuple[int, int]
#: How weights are written into prompts; plain ones have none.
PromptSyntax: TypeAlias = Literal["a1111"]
#: Pixels to the left, at the top, to the right and at the bottom.
Margins: TypeAlias = tuple[int, int, int, int]
#: What becomes of a picture that the safety checker flags.
SafetyAction: TypeAlias = Literal["black", "blur", "report"]
#: ``absent``: the bundle has no safety checker; ``off``: it was not asked.
SafetyStatus: TypeAlias = Literal["passed", "flagged", "absent", "off"]


@dataclass(frozen=True, slots=True)
class SafetyReport:
    """What the safety checker said of a picture; ``action`` and ``adjustment`` are None where none ran.

    ``scores``, one for each concept, are above 0 where it is found; None where the checker gives none.
    """

    status: SafetyStatus
    action: SafetyAction | None = None
    adjustment: float | None = None
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """A network that steered the denoiser, with ``scale``, from ``start`` to ``end`` of the steps.

    Hint and mask are known by the sha256 of what the network was given. ``mode`` is the kind of the hint of a
    union ControlNet.
    """

    component: str
    hint_sha256: str
    scale: float
    start: float
    end: float
    guess_mode: bool
    mask_sha256: str | None
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """A textual inversion that was added: what prompts call it, and the digest of its file."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """Everything that, with the bundle, decides a picture; None for what plays no part in it.

    ``mode`` is the name of the task: ``text-to-image``, ``image-to-image``, ``inpainting``,
    ``instruct-pix2pix``, or that of one from outside. ``width`` and ``height`` are in pixels;
    ``original_size``, ``crop_top_left`` and ``target_size`` are (height, width). ``schedule_type`` is the web
    UI's name for the spacing of noise levels, where it knows one. ``spacing``, ``timesteps`` and ``sigmas``
    are what was asked for in place of the bundle's own; ``recipe``, where some of the others come from. Given
    pictures are known by the sha256 of their pixels at the model's size, a refiner by its model's identifier.
    ``controls`` are what steered, where it says so of itself. ``guidance_method`` and ``guidance_rescale``
    are how the two predictions are joined, ``guidance_start`` and ``guidance_end`` where in the steps.
    ``prompt_syntax`` is that of both prompts, None for plain ones. ``safety`` is what the safety checker
    said, if one ran. ``variation_seed`` is that of the noise towards which ``variation_strength`` turns.
    ``outpaint`` is by how many pixels a given picture grew: left, top, right and bottom. ``hires_scale`` is
    how much larger the picture is than ``width`` and ``height`` where a second pass drew over it, with
    ``hires_steps`` and ``hires_strength``, after ``hires_upscaler``. ``clip_skip`` is the layer of the text
    encoders that was read, from the end; ``embeddings`` are those that were added to them. ``mask_blur`` is
    the deviation of the mask's edge in pixels, ``mask_content`` what the masked part started from,
    ``padding_mask_crop`` how many pixels around it were seen, where it was drawn alone.
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
    spacing: str | None = None
    timesteps: tuple[int, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    eta: float | None = None
    mu: float | None = None
    recipe: str | None = None
    mode: str = "text-to-image"
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
    controls: tuple[ControlSettings, ...] | None = None
    prompt_syntax: PromptSyntax | None = None
    safety: SafetyReport | None = None
    variation_seed: int | None = None
    variation_strength: float | None = None
    outpaint: Margins | None = None
    guidance_method: str | None = None
    guidance_rescale: float | None = None
    guidance_start: float | None = None
    guidance_end: float | None = None
    hires_scale: float | None = None
    hires_strength: float | None = None
    hires_steps: int | None = None
    hires_upscaler: str | None = None
    clip_skip: int | None = None
    embeddings: tuple[EmbeddingSettings, ...] | None = None
    mask_blur: float | None = None
    mask_content: str | None = None
    padding_mask_crop: int | None = None

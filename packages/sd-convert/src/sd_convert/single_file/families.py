"""What a single file does not say, by family: the values with which each generation was published.

Sources: the configs of stable-diffusion-v1-5, stabilityai's stable-diffusion-2 and 2-1, and
stable-diffusion-xl-base-1.0 and -refiner-1.0 in diffusers format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_PNDM: Final[Mapping[str, Any]] = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
}
_EULER: Final[Mapping[str, Any]] = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}


@dataclass(frozen=True, slots=True)
class Standard:
    """``encoders``: each text encoder's width, and the token that pads its prompts."""

    pipeline: str
    sample_size: int
    scaling_factor: float
    scheduler: Mapping[str, Any]
    encoders: Mapping[str, tuple[int, str]]


FAMILIES: Final[Mapping[str, Standard]] = {
    "sd1": Standard("StableDiffusion", 64, 0.18215, _PNDM, {"text_encoder": (768, "<|endoftext|>")}),
    "sd2": Standard("StableDiffusion", 64, 0.18215, _PNDM, {"text_encoder": (1024, "!")}),
    "sdxl": Standard(
        "StableDiffusionXL",
        128,
        0.13025,
        _EULER,
        {"text_encoder": (768, "<|endoftext|>"), "text_encoder_2": (1280, "!")},
    ),
    "sdxl-refiner": Standard("StableDiffusionXL", 128, 0.13025, _EULER, {"text_encoder_2": (1280, "!")}),
}

_ENCODER_CLASSES: Final = {
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}

#: Latent pixels of SD 2 trained with v-prediction, 768 pixels of the image.
SD2_V_SAMPLE_SIZE: Final = 96


def scheduler_config(family: str, prediction_type: str, *, zero_terminal_snr: bool) -> dict[str, Any]:
    """The scheduler's config in diffusers' words."""
    config = {**FAMILIES[family].scheduler, "prediction_type": prediction_type}
    if zero_terminal_snr:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config


def model_index(family: str, channels: int) -> dict[str, Any]:
    """The ``model_index.json`` of a pipeline of ``family`` with a UNet of so many input channels."""
    standard = FAMILIES[family]
    ending = {8: "InstructPix2Pix", 9: "Inpaint"}.get(channels, "Img2Img" if "refiner" in family else "")
    index: dict[str, Any] = {
        "_class_name": f"{standard.pipeline}{ending}Pipeline",
        "scheduler": ["diffusers", standard.scheduler["_class_name"]],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    for name in ("text_encoder", "text_encoder_2"):
        known = name in standard.encoders
        index[name] = ["transformers", _ENCODER_CLASSES[name]] if known else [None, None]
    if family.startswith("sdxl"):
        index["force_zeros_for_empty_prompt"] = family == "sdxl"
    if family == "sdxl-refiner":
        index["requires_aesthetics_score"] = True
    return index


def vae_standard() -> dict[str, Any]:
    """The config of the VAE that every family has in common, for files without one."""
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    }


def text_standard(width: int) -> dict[str, Any]:
    """What the UNet's facts need of a text encoder that is not in the file."""
    return {
        "model_type": "clip_text_model",
        "hidden_size": width,
        "projection_dim": width,
        "max_position_embeddings": 77,
    }


def tokenizer_config(pad_token: str, length: int) -> dict[str, Any]:
    """CLIP's ``tokenizer_config.json``: every family has CLIP's vocabulary, and only the padding differs."""
    return {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": pad_token,
        "model_max_length": length,
    }

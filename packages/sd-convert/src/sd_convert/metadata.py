"""What packages say about themselves, in the words that apps and Apple's converter use.

Source: apple/ml-stable-diffusion ``torch2coreml.py`` for the standard fields; the user-defined keys are those
that GuernikaModelConverter writes and apps read.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final, TypedDict

from .checkpoint import Checkpoint
from .component import PortDType, PortSpec
from .facts import is_sdxl, model_version
from .options import ConversionOptions

_LICENSE: Final = "OpenRAIL (https://huggingface.co/spaces/CompVis/stable-diffusion-license)"
_LICENSE_OF_SDXL: Final = (
    "OpenRAIL++-M (https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md)"
)
_DESCRIPTION: Final = (
    "Stable Diffusion generates images conditioned on text {joint} other images as input through the "
    "diffusion process. Please refer to https://arxiv.org/abs/2112.10752 for details."
)
_DESCRIPTIONS: Final = {
    "sample": "The low resolution latent feature maps being denoised through reverse diffusion",
    "timestep": (
        "A value emitted by the associated scheduler object to condition the model on a given noise schedule"
    ),
    "encoder_hidden_states": (
        "Output embeddings from the associated text_encoder model to condition to generated image on text. "
        "A maximum of 77 tokens (~40 words) are allowed. Longer text is truncated. "
        "Shorter text does not reduce computation."
    ),
    "time_ids": (
        "Additional embeddings that if specified are added to the embeddings that are passed along to the "
        "UNet blocks."
    ),
    "text_embeds": (
        "Additional embeddings from text_encoder_2 that if specified are added to the embeddings that are "
        "passed along to the UNet blocks."
    ),
    "timestep_cond": "The embedded guidance scale that a latent consistency model is conditioned on",
    "noise_pred": (
        "Same shape and dtype as the `sample` input. "
        "The predicted noise to facilitate the reverse diffusion (denoising) process"
    ),
    "z": "The denoised latent embeddings from the unet model after the last step of reverse diffusion",
    "image": "Generated image normalized to range [-1, 1]",
    "x": "The input image to base the initial latents on normalized to range [-1, 1]",
    "latent": "The latent embeddings from the unet model from the input image.",
    "input_ids": "The token ids that represent the input text",
    "last_hidden_state": "The token embeddings as encoded by the Transformer model",
    "hidden_embeds": "Hidden states after the encoder layers",
    "pooled_outputs": "The version of the `last_hidden_state` output after pooling",
    "clip_input": (
        "The normalized image input tensor resized to ({height}x{width}) in channels-first (BCHW) format"
    ),
    "images": "Output of the vae_decoder ({height}x{width}) in channels-last (BHWC) format",
    "adjustment": (
        "Bias added to the concept scores to trade off increased recall for reduce precision in the safety "
        "checker classifier"
    ),
    "filtered_images": (
        "Identical to the input `images`. If safety checker detected any sensitive content, the "
        "corresponding image is replaced with a blank image (zeros)"
    ),
    "has_nsfw_concepts": (
        "Indicates whether the safety checker model found any sensitive content in the given image"
    ),
    "concept_scores": (
        "Concept scores are the scores before thresholding at zero yields the `has_nsfw_concepts` output. "
        "These scores can be used to tune the `adjustment` input"
    ),
}

#: What the names of a ControlNet's residuals begin with; a number follows.
RESIDUAL: Final = "additional_residual_"

#: The converter whose port names, layouts and file names packages follow, for apps that look at the key.
LAYOUT_VERSION: Final = {"com.github.apple.ml-stable-diffusion.version": "1.1.0"}


class Metadata(TypedDict):
    """The fields of a :class:`~sd_convert.Component` that say what it is."""

    short_description: str
    version: str
    author: str
    license: str
    user_defined: dict[str, str]


def describe(
    checkpoint: Checkpoint, options: ConversionOptions, *, joint: str = "and/or", **user_defined: str
) -> Metadata:
    """The metadata of a component; ``joint`` is the word by which Apple's UNet description differs."""
    identifier = model_version(checkpoint, options)
    return Metadata(
        short_description=_DESCRIPTION.format(joint=joint),
        version=identifier,
        author=f"Please refer to the Model Card available at huggingface.co/{identifier}",
        license=_LICENSE_OF_SDXL if is_sdxl(checkpoint) else _LICENSE,
        user_defined={
            "identifier": identifier,
            "converter_version": version("sd-convert"),
            "attention_implementation": options.attention_implementation,
            "compute_unit": options.resolved_compute_unit,
            **user_defined,
        },
    )


def port(name: str, shape: tuple[int, ...], dtype: PortDType) -> PortSpec:
    """The port called ``name`` with the description that goes with it; a ControlNet's residuals have none."""
    if name.startswith(RESIDUAL):
        return PortSpec(name, shape, dtype, "")
    height, width = {"clip_input": shape[2:], "images": shape[1:3]}.get(name, (0, 0))
    return PortSpec(name, shape, dtype, _DESCRIPTIONS[name].format(height=height, width=width))

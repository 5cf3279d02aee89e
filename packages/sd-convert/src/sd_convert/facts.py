"""Facts of a checkpoint that several stages need, each read from its config in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .checkpoint import Checkpoint
from .errors import IncompleteCheckpointError, OptionsError, UnsupportedArchitectureError
from .options import ConversionOptions

_DEFAULT_BLOCKS: Final = (
    "CrossAttnDownBlock2D",
    "CrossAttnDownBlock2D",
    "CrossAttnDownBlock2D",
    "DownBlock2D",
)


def model_version(checkpoint: Checkpoint, options: ConversionOptions) -> str:
    """The name that files and metadata carry."""
    return options.model_version or checkpoint.name


def package_name(version: str, component: str) -> str:
    """``Stable_Diffusion_version_<version>_<component>.mlpackage``, the name that the ecosystem knows."""
    return f"Stable_Diffusion_version_{version.replace('/', '_')}_{component}.mlpackage"


def prediction_type(checkpoint: Checkpoint) -> str:
    """What the UNet predicts: ``epsilon`` (diffusers' default), ``v_prediction`` or ``sample``."""
    return _choice(
        checkpoint, "scheduler", "prediction_type", "epsilon", ("epsilon", "v_prediction", "sample")
    )


def vae_factor(checkpoint: Checkpoint) -> int:
    """Pixels of the image per pixel of the latents, along each side."""
    blocks: Sequence[int] = checkpoint.config("vae").get("block_out_channels", (64,))
    return int(2 ** (len(blocks) - 1))


def vae_scaling_factor(checkpoint: Checkpoint) -> float:
    """What latents are multiplied by before diffusion; diffusers' default is SD 1.x's own."""
    return float(checkpoint.config("vae").get("scaling_factor", 0.18215))


def latent_channels(checkpoint: Checkpoint) -> int:
    """Channels of the latents, as the VAE has them."""
    return int(checkpoint.config("vae").get("latent_channels", 4))


def latent_size(checkpoint: Checkpoint, options: ConversionOptions) -> tuple[int, int]:
    """Height and width of the latents: the options', else the UNet's ``sample_size``.

    Raises:
        IncompleteCheckpointError: neither says it, or there is no unet/config.json.
        OptionsError: the UNet halves the latents more often than the size allows.
    """
    height, width = _configured_size(checkpoint, options)
    factor = _unet_factor(checkpoint)
    for name, size in (("latent_height", height), ("latent_width", width)):
        if size % factor:
            raise OptionsError(
                f"{name}: expected a multiple of {factor} (what the UNet halves the latents to), got {size}"
            )
    return height, width


def _unet_factor(checkpoint: Checkpoint) -> int:
    blocks: Sequence[str] = checkpoint.configs.get("unet", {}).get("down_block_types", _DEFAULT_BLOCKS)
    return int(2 ** (len(blocks) - 1))


def _configured_size(checkpoint: Checkpoint, options: ConversionOptions) -> tuple[int, int]:
    size = checkpoint.configs.get("unet", {}).get("sample_size")
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    height, width = options.latent_height or height, options.latent_width or width
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise IncompleteCheckpointError(
            f"{checkpoint.name}/unet/config.json: sample_size: expected a size in latent pixels, "
            f"got {size!r}; give latent_height and latent_width"
        )
    return height, width


def _choice(checkpoint: Checkpoint, folder: str, key: str, default: str, choices: tuple[str, ...]) -> str:
    value = checkpoint.config(folder).get(key, default)
    if value not in choices:
        raise UnsupportedArchitectureError(
            f"{checkpoint.name}/{folder}: {key}: expected one of {', '.join(choices)}, got {value!r}"
        )
    return str(value)

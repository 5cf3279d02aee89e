"""Facts of a checkpoint that several stages need, each read from its config in one place."""

from __future__ import annotations

from typing import Any, Final, Literal, cast

from sd_runtime import PredictionType

from .checkpoint import Checkpoint
from .errors import IncompleteCheckpointError, OptionsError, UnsupportedArchitectureError
from .options import ConversionOptions

# diffusers' own defaults, for configs that leave the key out
_DEFAULT_UNET_BLOCKS: Final = 4
_DEFAULT_VAE_BLOCKS: Final = 1
_DEFAULT_LATENT_CHANNELS: Final = 4
_DEFAULT_SCALING_FACTOR: Final = 0.18215
_DEFAULT_TRAIN_TIMESTEPS: Final = 1000

#: The port of the timestep is float16, which has every whole number up to this one.
_MOST_TRAIN_TIMESTEPS: Final = 2048


def model_version(checkpoint: Checkpoint, options: ConversionOptions) -> str:
    """The name that files and metadata carry."""
    return options.model_version or checkpoint.name


def package_name(version: str, component: str) -> str:
    """``Stable_Diffusion_version_<version>_<component>.mlpackage``, the name that the ecosystem knows."""
    return f"Stable_Diffusion_version_{version.replace('/', '_')}_{component}.mlpackage"


def family(checkpoint: Checkpoint) -> Literal["sd1", "sd2"]:
    """Whether the UNet is of SD 1.x or of SD 2.x, which projects with linear layers, not convolutions."""
    return "sd2" if checkpoint.config("unet").get("use_linear_projection", False) else "sd1"


def prediction_type(checkpoint: Checkpoint) -> PredictionType:
    """What the UNet predicts, as the scheduler's config says; ``epsilon`` is diffusers' default."""
    value = checkpoint.config("scheduler").get("prediction_type", "epsilon")
    if value not in ("epsilon", "v_prediction", "sample"):
        raise _unexpected(
            checkpoint, "scheduler", "prediction_type", "epsilon, v_prediction or sample", value
        )
    return cast(PredictionType, value)


def train_timesteps(checkpoint: Checkpoint) -> int:
    """Number of steps of the noise schedule that the UNet was trained with."""
    value = checkpoint.config("scheduler").get("num_train_timesteps", _DEFAULT_TRAIN_TIMESTEPS)
    if type(value) is not int or not 1 <= value <= _MOST_TRAIN_TIMESTEPS:
        expected = f"a number up to {_MOST_TRAIN_TIMESTEPS}"
        raise _unexpected(checkpoint, "scheduler", "num_train_timesteps", expected, value)
    return value


def vae_factor(checkpoint: Checkpoint) -> int:
    """Pixels of the image per pixel of the latents, along each side."""
    return _halvings(checkpoint, "vae", "block_out_channels", _DEFAULT_VAE_BLOCKS)


def vae_scaling_factor(checkpoint: Checkpoint) -> float:
    """What latents are multiplied by before diffusion."""
    return _number(checkpoint, "scaling_factor", _DEFAULT_SCALING_FACTOR)


def vae_shift_factor(checkpoint: Checkpoint) -> float:
    """What is taken from latents before they are scaled; SD 1.x has none."""
    return _number(checkpoint, "shift_factor", 0.0)


def latent_channels(checkpoint: Checkpoint) -> int:
    """Channels of the latents, as the VAE has them."""
    return int(_number(checkpoint, "latent_channels", _DEFAULT_LATENT_CHANNELS))


def latent_size(checkpoint: Checkpoint, options: ConversionOptions) -> tuple[int, int]:
    """Height and width of the latents: the options', else the UNet's ``sample_size``.

    Raises:
        IncompleteCheckpointError: neither says it, or there is no unet/config.json.
        OptionsError: the UNet halves the latents more often than the size allows.
    """
    height, width = _configured_size(checkpoint, options)
    factor = _halvings(checkpoint, "unet", "down_block_types", _DEFAULT_UNET_BLOCKS)
    for name, size in (("latent_height", height), ("latent_width", width)):
        if size % factor:
            raise OptionsError(
                f"{name}: expected a multiple of {factor}, by which the UNet divides the latents, got {size}"
            )
    return height, width


def _configured_size(checkpoint: Checkpoint, options: ConversionOptions) -> tuple[int, int]:
    size = checkpoint.config("unet").get("sample_size")
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    height, width = options.latent_height or height, options.latent_width or width
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise IncompleteCheckpointError(
            f"{checkpoint.name}/unet/config.json: sample_size: expected a size in latent pixels, "
            f"got {size!r}; give latent_height and latent_width"
        )
    return height, width


def _halvings(checkpoint: Checkpoint, folder: str, key: str, default: int) -> int:
    """By how much a network with these blocks divides each side: every block but the last halves it."""
    blocks = checkpoint.config(folder).get(key)
    if blocks is None:
        return int(2 ** (default - 1))
    if not isinstance(blocks, list) or not blocks:
        raise _unexpected(checkpoint, folder, key, "a list of blocks", blocks)
    return int(2 ** (len(blocks) - 1))


def _number(checkpoint: Checkpoint, key: str, default: float) -> float:
    value = checkpoint.config("vae").get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unexpected(checkpoint, "vae", key, "a number", value)
    return float(value)


def _unexpected(
    checkpoint: Checkpoint, folder: str, key: str, expected: str, value: Any
) -> UnsupportedArchitectureError:
    return UnsupportedArchitectureError(
        f"{checkpoint.name}/{folder}: {key}: expected {expected}, got {value!r:.200}"
    )

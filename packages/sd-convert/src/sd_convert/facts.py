"""Facts of a checkpoint that several stages need, each read from its config in one place."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from sd_bundle import Distillation, Encodes, Family, PredictionType, Task, TimeIds

from .architecture import text_width
from .checkpoint import TOKENIZERS, Checkpoint
from .errors import IncompleteCheckpointError, OptionsError, UnsupportedArchitectureError
from .options import ConversionOptions

# diffusers' own defaults, for configs that leave the key out
_DEFAULT_VAE_BLOCKS: Final = 1
_DEFAULT_LATENT_CHANNELS: Final = 4
_DEFAULT_SCALING_FACTOR: Final = {"AutoencoderKL": 0.18215, "AutoencoderTiny": 1.0}
_DEFAULT_TINY_STAGES: Final = 4
_DEFAULT_TOKENS: Final = 77
_DEFAULT_PROJECTION: Final = 512
_DEFAULT_TRAIN_TIMESTEPS: Final = 1000

#: The port of the timestep is float16, which has every whole number up to this one.
_MOST_TRAIN_TIMESTEPS: Final = 2048


#: What no file name has on every system; a bundle's manifest refuses it.
_UNPORTABLE: Final = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


def model_version(checkpoint: Checkpoint, options: ConversionOptions) -> str:
    """The name that files and metadata carry."""
    return options.model_version or checkpoint.name


def package_name(version: str, component: str) -> str:
    """``Stable_Diffusion_version_<version>_<component>.mlpackage``, the name that the ecosystem knows."""
    return f"Stable_Diffusion_version_{_UNPORTABLE.sub('_', version)}_{component}.mlpackage"


def family(checkpoint: Checkpoint) -> Family:
    """Of which generation the UNet is.

    SDXL's takes sizes and a pooled text beside the prompt, the refiner's an aesthetic score instead of the
    last size; SD 2.x projects with linear layers where SD 1.x has convolutions.
    """
    time_ids = time_ids_of(checkpoint)
    if time_ids != "none":
        return "sdxl" if time_ids == "size" else "sdxl-refiner"
    return "sd2" if checkpoint.config("unet").get("use_linear_projection", False) else "sd1"


def is_sdxl(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint is of SDXL, base or refiner, by the networks that its index lists."""
    return checkpoint.config("model_index").get("text_encoder_2") not in (None, [None, None])


def task(checkpoint: Checkpoint) -> Task:
    """What the UNet sees beside the noisy latents: nothing, mask and masked picture, or a picture.

    Raises:
        UnsupportedArchitectureError: a number of channels that no task has.
    """
    unet = checkpoint.config("unet")
    latent, channels = unet.get("out_channels", 4), unet.get("in_channels", 4)
    tasks: dict[int, Task] = {
        latent: "text-to-image",
        2 * latent: "instruct-pix2pix",
        2 * latent + 1: "inpainting",
    }
    if channels not in tasks:
        raise _unexpected(checkpoint, "unet", "in_channels", " or ".join(map(str, tasks)), channels)
    return tasks[channels]


def time_ids_of(checkpoint: Checkpoint) -> TimeIds:
    """What the UNet's ``time_ids`` are, by how many numbers its embedding leaves room for.

    Raises:
        UnsupportedArchitectureError: sizes that contradict each other.
    """
    unet = checkpoint.config("unet")
    if unet.get("addition_embed_type") != "text_time":
        return "none"
    width, each = unet.get("projection_class_embeddings_input_dim"), unet.get("addition_time_embed_dim")
    if type(width) is not int or type(each) is not int or each < 1:
        raise _unexpected(checkpoint, "unet", "projection_class_embeddings_input_dim", "a width", width)
    pooled = pooled_width(checkpoint)
    kinds: dict[int, TimeIds] = {pooled + 6 * each: "size", pooled + 5 * each: "aesthetic_score"}
    if width not in kinds:
        expected = f"{pooled} for the text and 5 or 6 times {each}"
        raise _unexpected(checkpoint, "unet", "projection_class_embeddings_input_dim", expected, width)
    return kinds[width]


def pooled_width(checkpoint: Checkpoint) -> int:
    """Channels of SDXL's pooled text, as the second text encoder projects it."""
    value = checkpoint.config("text_encoder_2").get("projection_dim", _DEFAULT_PROJECTION)
    if type(value) is not int or value < 1:
        raise _unexpected(checkpoint, "text_encoder_2", "projection_dim", "a number of channels", value)
    return value


def zeroes_empty_negative(checkpoint: Checkpoint) -> bool:
    """Whether an empty negative prompt means zeros: SDXL's default in diffusers."""
    if not is_sdxl(checkpoint):
        return False
    return bool(checkpoint.config("model_index").get("force_zeros_for_empty_prompt", True))


def guidance_width(checkpoint: Checkpoint) -> int | None:
    """Channels of the embedded guidance scale that a latent consistency model takes; None for others."""
    value = checkpoint.config("unet").get("time_cond_proj_dim")
    if value is not None and (type(value) is not int or value < 1):
        raise _unexpected(checkpoint, "unet", "time_cond_proj_dim", "a number of channels", value)
    return value


def distillation(checkpoint: Checkpoint) -> Distillation | None:
    """``lcm`` for latent consistency models: they embed the guidance scale, or name their scheduler."""
    scheduler = checkpoint.configs.get("scheduler", {}).get("_class_name")
    return "lcm" if guidance_width(checkpoint) is not None or scheduler == "LCMScheduler" else None


def text_encoders(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The text encoders that the checkpoint lists, in the order in which their outputs are joined."""
    index = checkpoint.config("model_index")
    return tuple(name for name in TOKENIZERS if index.get(name) not in (None, [None, None]))


def text_widths(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Channels of each text encoder's hidden states; nothing if one has no config."""
    names = text_encoders(checkpoint)
    widths = [checkpoint.configs.get(name, {}).get("hidden_size") for name in names]
    known = tuple(width for width in widths if type(width) is int)
    return known if len(known) == len(names) else ()


def unet_text_width(checkpoint: Checkpoint) -> int:
    """Channels of the hidden states that the UNet takes."""
    return text_width(checkpoint.config("unet"), where=f"{checkpoint.name}/unet/config.json")


def most_tokens(checkpoint: Checkpoint, text_encoder: str) -> int:
    """Length of the longest prompt that a text encoder has positions for."""
    config = checkpoint.configs.get(text_encoder, {})
    value = config.get("max_position_embeddings", _DEFAULT_TOKENS)
    if type(value) is not int or value < 1:
        raise _unexpected(checkpoint, text_encoder, "max_position_embeddings", "a number of tokens", value)
    return value


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


def vae_kind(checkpoint: Checkpoint) -> str:
    """The class of the VAE, ``AutoencoderKL`` or ``AutoencoderTiny``."""
    return str(checkpoint.config("vae").get("_class_name", "AutoencoderKL"))


def encodes(checkpoint: Checkpoint) -> Encodes:
    """What the VAE's encoder returns."""
    return "latents" if vae_kind(checkpoint) == "AutoencoderTiny" else "moments"


def vae_factor(checkpoint: Checkpoint) -> int:
    """Pixels of the image per pixel of the latents, along each side."""
    if vae_kind(checkpoint) != "AutoencoderTiny":
        return _halvings(checkpoint, "block_out_channels", _DEFAULT_VAE_BLOCKS)
    factor, other = (
        _halvings(checkpoint, f"{half}_block_out_channels", _DEFAULT_TINY_STAGES)
        for half in ("encoder", "decoder")
    )
    if factor != other:
        raise _unexpected(checkpoint, "vae", "decoder_block_out_channels", "as many as the encoder's", other)
    return factor


def vae_scaling_factor(checkpoint: Checkpoint) -> float:
    """What latents are multiplied by before diffusion."""
    return _number(checkpoint, "scaling_factor", _DEFAULT_SCALING_FACTOR.get(vae_kind(checkpoint), 1.0))


def vae_shift_factor(checkpoint: Checkpoint) -> float:
    """What is taken from latents before they are scaled; Stable Diffusion 1, 2 and XL have none."""
    return _number(checkpoint, "shift_factor", 0.0)


def latent_channels(checkpoint: Checkpoint) -> int:
    """Channels of the latents, as the VAE has them."""
    return int(_number(checkpoint, "latent_channels", _DEFAULT_LATENT_CHANNELS))


def latent_size(checkpoint: Checkpoint, options: ConversionOptions) -> tuple[int, int]:
    """Height and width of the latents: the options', else the UNet's ``sample_size``.

    Raises:
        IncompleteCheckpointError: neither says it, or there is no unet/config.json.
    """
    size = checkpoint.config("unet").get("sample_size")
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    height, width = options.latent_height or height, options.latent_width or width
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise IncompleteCheckpointError(
            f"{checkpoint.name}/unet/config.json: sample_size: expected a size in latent pixels, "
            f"got {size!r}; give latent_height and latent_width"
        )
    return height, width


def text_tokens(checkpoint: Checkpoint, options: ConversionOptions) -> int:
    """Tokens that the UNet attends to: the options', else as many as a text encoder takes at once.

    Raises:
        OptionsError: more than a text encoder takes, and not a whole number of times as many.
    """
    most = most_tokens(checkpoint, (text_encoders(checkpoint) or ("text_encoder",))[-1])
    asked = options.text_token_sequence_length or most
    if asked > most and asked % most:
        raise OptionsError(
            f"text_token_sequence_length: expected at most {most}, or a multiple of it, got {asked}"
        )
    return asked


def _halvings(checkpoint: Checkpoint, key: str, default: int) -> int:
    """By how much a VAE with these blocks divides each side: every block but the last halves it."""
    blocks = checkpoint.config("vae").get(key)
    if blocks is None:
        return int(2 ** (default - 1))
    if not isinstance(blocks, list) or not blocks:
        raise _unexpected(checkpoint, "vae", key, "a list of blocks", blocks)
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

"""Checkpoints of real sizes with random fp16 weights, written one tensor at a time.

    uv run python tools/bench_checkpoint.py sdxl FOLDER

``sd15`` is Stable Diffusion 1.5 (2.1 GB), ``sdxl`` Stable Diffusion XL base (6.9 GB): the architectures of
their published configs. ``tiny`` is the first in miniature, to try the benchmarks themselves.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

_CLIP_L: Final = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "projection_dim": 768,
}  # fmt: skip
_BIG_G: Final = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "hidden_act": "gelu", "projection_dim": 1280,
}  # fmt: skip
_VAE: Final = {
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
}  # fmt: skip
_SD15: Final = {
    "text_encoder": ("CLIPTextModel", _CLIP_L),
    "unet": (
        "UNet2DConditionModel",
        {
            "sample_size": 64, "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
    ),
    "vae": ("AutoencoderKL", {**_VAE, "sample_size": 512}),
}  # fmt: skip
_SDXL: Final = {
    "text_encoder": ("CLIPTextModel", _CLIP_L),
    "text_encoder_2": ("CLIPTextModelWithProjection", _BIG_G),
    "unet": (
        "UNet2DConditionModel",
        {
            "sample_size": 128, "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
            "attention_head_dim": [5, 10, 20], "transformer_layers_per_block": [1, 2, 10],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "use_linear_projection": True, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
        },
    ),
    "vae": ("AutoencoderKL", {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025}),
}  # fmt: skip
_TINY: Final = {
    "text_encoder": (
        "CLIPTextModel",
        {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "hidden_act": "quick_gelu", "projection_dim": 32,
        },
    ),
    "unet": (
        "UNet2DConditionModel",
        {
            "sample_size": 8, "block_out_channels": [32, 64], "cross_attention_dim": 32,
            "attention_head_dim": 4, "layers_per_block": 1,
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        },
    ),
    "vae": (
        "AutoencoderKL",
        {
            "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
            "block_out_channels": [32, 32], "layers_per_block": 1, "latent_channels": 4, "sample_size": 16,
        },
    ),
}  # fmt: skip
#: By name: the pipeline's class, and each network's class and config.
MODELS: Final[Mapping[str, tuple[str, Mapping[str, tuple[str, Mapping[str, Any]]]]]] = {
    "sd15": ("StableDiffusionPipeline", _SD15),
    "sdxl": ("StableDiffusionXLPipeline", _SDXL),
    "tiny": ("StableDiffusionPipeline", _TINY),
}
_SCHEDULER: Final = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "skip_prk_steps": True, "steps_offset": 1,
}  # fmt: skip


def write_checkpoint(model: str, folder: Path) -> None:
    """Write the checkpoint of ``model`` (``sd15``, ``sdxl`` or ``tiny``) into ``folder``."""
    from demo_checkpoint.tokenizer import write_tokenizer

    pipeline, parts = MODELS[model]
    index: dict[str, Any] = {"_class_name": pipeline, "scheduler": ["diffusers", "PNDMScheduler"]}
    for name, (kind, options) in parts.items():
        (folder / name).mkdir(parents=True)
        network = _on_meta(kind, options)
        is_clip = kind.startswith("CLIP")
        if is_clip:
            network.config.save_pretrained(folder / name)
        else:
            network.save_config(folder / name)
        stem = "model" if is_clip else "diffusion_pytorch_model"
        _write_weights(folder / name / f"{stem}.fp16.safetensors", network)
        index[name] = ["transformers" if is_clip else "diffusers", kind]
        if is_clip:
            tokenizer = name.replace("text_encoder", "tokenizer")
            write_tokenizer(folder / tokenizer)
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(_SCHEDULER))
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


def _on_meta(kind: str, options: Mapping[str, Any]) -> Any:
    import diffusers
    import torch
    import transformers

    with torch.device("meta"):
        if kind.startswith("CLIP"):
            return getattr(transformers, kind)(transformers.CLIPTextConfig(**options))
        return getattr(diffusers, kind)(**options)


def _write_weights(path: Path, network: Any) -> None:
    """Weights as wide as their inputs make sensible, biases zero, norms one; numbers repeat after 8 MB."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = np.random.default_rng(0).standard_normal(2**22).astype(np.float32)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            _write_tensor(file, name, shape, noise)


def _write_tensor(file: Any, name: str, shape: tuple[int, ...], noise: np.ndarray[Any, Any]) -> None:
    count = math.prod(shape)
    if len(shape) < 2:
        file.write(np.full(count, float(not name.endswith("bias")), np.float16).tobytes())
        return
    piece = (noise / math.sqrt(count / shape[0])).astype(np.float16)
    for start in range(0, count, piece.size):
        file.write(piece[: count - start].tobytes())


if __name__ == "__main__":
    write_checkpoint(sys.argv[1], Path(sys.argv[2]))

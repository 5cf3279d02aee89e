"""A tiny Stable Diffusion checkpoint with random weights, made by diffusers and transformers themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference"


@dataclass(frozen=True)
class TinyModels:
    """The networks, float32 with values that float16 holds, and how to save them as a checkpoint."""

    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL

    def save(
        self,
        folder: Path,
        *,
        dtype: torch.dtype = torch.float16,
        variant: str | None = "fp16",
        shard: str = "1GB",
    ) -> Path:
        """Write the weights next to whatever ``folder`` has already, and the small files."""
        for name in ("text_encoder", "unet", "vae"):
            model = deepcopy(getattr(self, name)).to(dtype)
            model.save_pretrained(folder / name, variant=variant, max_shard_size=shard)
        _save_small_files(folder)
        return folder


def _save_small_files(folder: Path) -> None:
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True, exist_ok=True)
    letters = [chr(number) for number in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tokenizer / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "bos_token": tokens[-2],
                "eos_token": tokens[-1],
                "pad_token": tokens[-1],
                "model_max_length": 77,
            }
        )
    )
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30.2",
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture(scope="session")
def tiny_models() -> TinyModels:
    """Networks of SD 1.x's kinds of blocks, fewer and narrower, with other numbers of groups."""
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=190,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=188,
        eos_token_id=189,
        pad_token_id=189,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=16,
    )
    return TinyModels(*(model.half().float().eval() for model in (CLIPTextModel(text), unet, vae)))


@pytest.fixture(scope="session")
def _tiny_fp16(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture
def tiny(_tiny_fp16: Path, tmp_path: Path) -> Path:
    """A fresh copy of the checkpoint with one fp16 variant, to use or to damage."""
    return Path(shutil.copytree(_tiny_fp16, tmp_path / "tiny"))


@pytest.fixture
def edit_config(tiny: Path) -> Callable[..., Path]:
    """``edit_config("unet", key=value)`` changes a config of ``tiny`` and returns its path."""

    def edit(folder: str, **values: Any) -> Path:
        path = tiny / folder / ("scheduler_config.json" if folder == "scheduler" else "config.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return tiny

    return edit


@pytest.fixture(scope="session")
def reference() -> Path:
    """Checkpoints with what Apple's converter made of them; not part of the repository."""
    if not REFERENCE.is_dir():
        pytest.skip("the reference packages are not here")
    return REFERENCE

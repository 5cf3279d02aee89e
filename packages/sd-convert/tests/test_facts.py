"""What configs say, and what they leave to the defaults of diffusers and transformers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL, AutoencoderTiny, PNDMScheduler, UNet2DConditionModel
from sd_convert import CheckpointError, UnsupportedArchitectureError, open_checkpoint
from sd_convert.facts import Section, read_facts
from sd_convert.facts.text import text_facts
from sd_convert.facts.unet import unet_facts
from sd_convert.facts.vae import vae_facts
from sd_convert.families import FAMILIES
from transformers import CLIPTextConfig, CLIPVisionConfig


def defaults(kind: type) -> dict[str, Any]:
    return {name: one.default for name, one in inspect.signature(kind.__init__).parameters.items()}


def test_an_empty_config_of_a_unet_is_diffusers_defaults() -> None:
    theirs = defaults(UNet2DConditionModel)
    facts = unet_facts(Section("x/unet", {}), pooled_width=lambda: pytest.fail("not asked for"))
    assert facts.task.channels(facts.channels) == theirs["in_channels"]
    assert facts.channels == theirs["out_channels"]
    assert facts.text_width == theirs["cross_attention_dim"]
    assert facts.block_channels == theirs["block_out_channels"]
    assert facts.layers == (theirs["layers_per_block"],) * len(theirs["block_out_channels"])
    assert facts.linear_projection == theirs["use_linear_projection"]
    assert (facts.time_ids, facts.guidance_width, facts.sample_size) == ("none", None, None)


@pytest.mark.parametrize(
    ("kind", "blocks"),
    [(AutoencoderKL, "block_out_channels"), (AutoencoderTiny, "encoder_block_out_channels")],
)
def test_an_empty_config_of_an_autoencoder_is_diffusers_defaults(kind: type, blocks: str) -> None:
    theirs, facts = defaults(kind), vae_facts(Section("x/vae", {"_class_name": kind.__name__}))
    assert facts.channels == theirs["latent_channels"]
    assert facts.scaling_factor == theirs["scaling_factor"]
    assert facts.factor == 2 ** (len(theirs[blocks]) - 1)


def test_an_empty_config_of_a_text_encoder_is_transformers_defaults() -> None:
    theirs, facts = CLIPTextConfig(), text_facts("text_encoder_2", Section("x", {}))
    assert (facts.tokens, facts.width) == (theirs.max_position_embeddings, theirs.hidden_size)
    assert (facts.layers, facts.pooled_width) == (theirs.num_hidden_layers, theirs.projection_dim)
    assert (facts.vocabulary, facts.end_token) == (theirs.vocab_size, theirs.eos_token_id)


def test_what_else_a_checkpoint_may_leave_out(edit_config: Callable[..., Path]) -> None:
    facts = read_facts(open_checkpoint(edit_config("scheduler")))
    theirs = defaults(PNDMScheduler)
    assert facts.train_timesteps == theirs["num_train_timesteps"]
    assert facts.prediction_type == theirs["prediction_type"]
    assert facts.checked_pixels == CLIPVisionConfig().image_size
    assert (facts.family, facts.text_width) == (FAMILIES["sd1"], 32)


@pytest.mark.parametrize(
    ("folder", "values", "said"),
    [
        ("unet", {"out_channels": "4"}, "unet: out_channels: expected a whole number, got '4'"),
        ("unet", {"block_out_channels": []}, "block_out_channels: expected a list"),
        (
            "unet",
            {"layers_per_block": [1, 2, 3]},
            "layers_per_block: expected a number, or one for each of 2",
        ),
        ("unet", {"cross_attention_dim": [32, 64]}, "cross_attention_dim: expected one number of channels"),
        ("unet", {"time_cond_proj_dim": 0}, "time_cond_proj_dim: expected a whole number"),
        ("vae", {"scaling_factor": True}, "vae: scaling_factor: expected a number, got True"),
        ("vae", {"latent_channels": 4.5}, "latent_channels: expected a whole number"),
        ("text_encoder", {"max_position_embeddings": -1}, "text_encoder: max_position_embeddings: expected"),
        (
            "scheduler",
            {"num_train_timesteps": 5000},
            "num_train_timesteps: expected a whole number up to 2048",
        ),
    ],
)
def test_what_is_no_fact(
    folder: str, values: dict[str, Any], said: str, edit_config: Callable[..., Path]
) -> None:
    with pytest.raises(UnsupportedArchitectureError, match=said):
        read_facts(open_checkpoint(edit_config(folder, **values)))


def test_a_config_that_is_missing(tiny: Path) -> None:
    (tiny / "vae" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"expected vae/config\.json, got none"):
        read_facts(open_checkpoint(tiny, components=["unet"]))

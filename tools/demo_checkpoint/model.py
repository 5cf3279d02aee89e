"""The demo checkpoint's architecture: SD 1.x in miniature, of diffusers' and transformers' own classes."""

from __future__ import annotations

from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from sdc.demo.shapes import SIZE
from transformers import CLIPTextConfig, CLIPTextModel

TEXT_WIDTH = 96


def new_vae() -> AutoencoderKL:
    """An AutoencoderKL with SD's eightfold reduction and four latent channels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
    )


def new_unet() -> UNet2DConditionModel:
    """A UNet2DCondition over 16x16 latents; group counts as in SD, so that Apple's converter takes it too."""
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=4,
        out_channels=4,
        # Attention over 8x8 tokens only: at 16x16 it doubles the time of a step and the shapes are large.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=32,
    )


def new_text_encoder(vocabulary: int, bos: int, eos: int) -> CLIPTextModel:
    """A CLIP text encoder of two layers."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=TEXT_WIDTH,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=eos,
            hidden_act="quick_gelu",
        )
    )


def new_scheduler() -> PNDMScheduler:
    """SD 1.x's noise schedule; v-prediction, because large flat areas are decided at the noisiest steps."""
    return PNDMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
        timestep_spacing="leading",
    )

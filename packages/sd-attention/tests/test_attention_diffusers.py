"""Whole models of diffusers, tiny and random, equal themselves after a rewrite."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from sd_attention import (
    IMPLEMENTATIONS,
    NothingReplacedError,
    feed_forward,
    layer_norm,
    linear_to_conv,
    on_bsc,
    opaque,
    projected_attention,
    rewrite,
    split_einsum_v2,
)
from sd_attention.diffusers import attention

diffusers = pytest.importorskip("diffusers")

ATTENTIONS = {name: on_bsc(attend) for name, attend in IMPLEMENTATIONS.items()} | {
    "V2_IN_FIVES": on_bsc(partial(split_einsum_v2, chunk_size=5)),
    "opaque": opaque,
}
BLOCKS = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
}


def unet():
    up = ("UpBlock2D", "CrossAttnUpBlock2D")
    model = diffusers.UNet2DConditionModel(sample_size=6, up_block_types=up, **BLOCKS)
    keys = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    inputs = {
        "sample": torch.randn(2, 4, 6, 10),
        "timestep": torch.tensor(7),
        "encoder_hidden_states": torch.randn(2, 7, 12),
    }
    return model, [inputs, inputs | {"encoder_attention_mask": keys}]


def controlnet():
    model = diffusers.ControlNetModel(conditioning_embedding_out_channels=(4, 4), **BLOCKS)
    inputs = {
        "sample": torch.randn(2, 4, 6, 10),
        "timestep": torch.tensor(7),
        "encoder_hidden_states": torch.randn(2, 7, 12),
        "controlnet_cond": torch.randn(2, 3, 12, 20),
    }
    return model, [inputs]


def sd3():
    model = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=3,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=8,
        pooled_projection_dim=6,
        out_channels=4,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    inputs = {
        "hidden_states": torch.randn(2, 4, 6, 8),
        "encoder_hidden_states": torch.randn(2, 7, 12),
        "pooled_projections": torch.randn(2, 6),
        "timestep": torch.tensor([3, 500]),
    }
    return model, [inputs]


def vae():
    model = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    return model, [{"sample": torch.randn(2, 3, 6, 10)}]


def with_ip_adapters():
    """A UNet that attends to the tokens of two images with one adapter, and to one image with another."""
    model, (inputs, _) = unet()
    projections = [
        {"proj.weight": torch.randn(4 * 12, 6), "proj.bias": torch.randn(48), "norm.weight": torch.ones(12)}
        | {"norm.bias": torch.zeros(12)}
        for _ in range(2)
    ]
    attentions = [name for name in model.attn_processors if "attn2" in name]
    widths = {name: dict(model.named_modules())[name.removesuffix(".processor")] for name in attentions}
    keys = {
        f"{2 * place + 1}.to_{kind}_ip.weight": torch.randn(widths[name].to_q.out_features, 12)
        for place, name in enumerate(attentions)
        for kind in "kv"
    }
    model._load_ip_adapter_weights(
        [{"image_proj": projection, "ip_adapter": keys} for projection in projections],
        low_cpu_mem_usage=False,
    )
    for processor in (model.attn_processors[name] for name in attentions):
        processor.scale = [0.4, 1.3]
    images = [torch.randn(2, 2, 6), torch.randn(2, 1, 6)]
    return model, [inputs | {"added_cond_kwargs": {"image_embeds": images}}]


#: What makes a model and its inputs, and how many attentions it has.
MODELS = {"unet": (unet, 8), "controlnet": (controlnet, 4), "sd3": (sd3, 4), "vae": (vae, 2)}
MODELS["ip_adapters"] = (with_ip_adapters, 8)


def model_called(name):
    torch.manual_seed(0)
    model, inputs = MODELS[name][0]()
    for parameter in model.parameters():  # fresh ones have zeros in places, where errors would hide
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval(), inputs


def outputs(model, inputs):
    with torch.no_grad():
        result = model(**inputs, return_dict=False)
    return [x for part in result for x in (part if isinstance(part, list | tuple) else [part])]


@pytest.mark.parametrize("attend", ATTENTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_the_rewritten_model_equals_the_original(name, attend):
    model, inputs = model_called(name)
    report = rewrite(model, [attention(ATTENTIONS[attend])])
    assert len(report.replaced) == MODELS[name][1], report
    assert report.kept == ()
    for each in inputs:
        torch.testing.assert_close(outputs(report.module, each), outputs(model, each), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_state_dicts_go_both_ways_and_every_rule_at_once_is_exact(name):
    model, (inputs, *_) = model_called(name)
    rules = [attention(ATTENTIONS["V2_IN_FIVES"]), feed_forward(), layer_norm(), linear_to_conv()]
    ours = rewrite(model, rules).module
    assert torch.nn.Linear not in {type(module) for module in ours.modules()}
    torch.testing.assert_close(outputs(ours, inputs), outputs(model, inputs), rtol=1e-4, atol=1e-4)
    assert list(ours.state_dict()) == list(model.state_dict())
    copy.deepcopy(ours).load_state_dict(model.state_dict(), strict=True)
    copy.deepcopy(model).load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize("attend", ["SPLIT_EINSUM", "opaque"])
def test_projections_of_image_tokens_are_rewritten_with_those_of_the_text(attend):
    model, (inputs,) = model_called("ip_adapters")
    report = rewrite(model, [projected_attention(ATTENTIONS[attend])])
    assert (len(report.replaced), report.kept) == (8, ())
    assert list(report.module.state_dict()) == list(model.state_dict())
    expected = outputs(model, inputs)
    torch.testing.assert_close(outputs(report.module, inputs), expected, rtol=1e-4, atol=1e-4)
    again = rewrite(report.module, [projected_attention(ATTENTIONS["SPLIT_EINSUM_V2"])]).module
    torch.testing.assert_close(outputs(again, inputs), expected, rtol=1e-4, atol=1e-4)


def test_each_row_of_a_batch_may_have_its_own_scales():
    model, _ = model_called("ip_adapters")
    module = next(each for name, each in model.named_modules() if name.endswith("attn2"))
    ours = rewrite(module, [projected_attention(ATTENTIONS["SPLIT_EINSUM"])]).module
    x, text = torch.randn(2, 5, module.to_q.in_features), torch.randn(2, 7, 12)
    tokens, scales = [torch.randn(2, 4, 12), torch.randn(2, 3, 12)], torch.tensor([[0.5, 0.0], [0.0, 2.0]])
    found = ours(x, (text, tokens, scales))
    for row in range(2):
        module.processor.scale = scales[row].tolist()
        expected = module(x, (text, [each[:, None] for each in tokens]))[row]
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


def test_an_unfused_processor_is_refused_with_what_to_do():
    model, _ = model_called("unet")
    model.set_attn_processor(diffusers.models.attention_processor.AttnProcessor())
    with pytest.raises(
        NothingReplacedError, match=r"its processor AttnProcessor does not call .* AttnProcessor2_0"
    ):
        rewrite(model, [attention(opaque)])


def test_masks_are_seen():
    model, (plain, masked) = model_called("unet")
    ours = rewrite(model, [attention(ATTENTIONS["V2_IN_FIVES"])]).module
    assert not torch.allclose(outputs(ours, plain)[0], outputs(ours, masked)[0], atol=1e-3)

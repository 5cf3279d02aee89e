"""Whole models of transformers, tiny and random, equal themselves after a rewrite."""

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
    rewrite,
    split_einsum,
    split_einsum_v2,
)
from sd_attention.transformers import attention

pytestmark = pytest.mark.long

transformers = pytest.importorskip("transformers")

TOKENS = 11
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**SMALL, "vocab_size": 50}
IMAGE = {**SMALL, "image_size": 12, "patch_size": 4}
#: model, configuration, and its options; the last ones are here to see that the rule knows no names.
MODELS = {
    "bert": ("BertModel", "BertConfig", TEXT),
    "distilbert": (
        "DistilBertModel",
        "DistilBertConfig",
        {"vocab_size": 50, "dim": 16, "n_heads": 4, "n_layers": 2},
    ),
    "clip_text": ("CLIPTextModel", "CLIPTextConfig", {**TEXT, "eos_token_id": 49}),
    "clip_vision": ("CLIPVisionModel", "CLIPVisionConfig", IMAGE),
    "vit": ("ViTModel", "ViTConfig", IMAGE),
    "roberta": ("RobertaModel", "RobertaConfig", {**TEXT, "pad_token_id": 0}),
    "gpt2": ("GPT2Model", "GPT2Config", {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4}),
    "llama": ("LlamaModel", "LlamaConfig", {**TEXT, "num_key_value_heads": 2}),
    "siglip_vision": ("SiglipVisionModel", "SiglipVisionConfig", IMAGE),
}
ATTENTIONS = {name: on_bsc(attend) for name, attend in IMPLEMENTATIONS.items()} | {
    "V2_IN_FOURS": on_bsc(partial(split_einsum_v2, chunk_size=4)),
    "opaque": opaque,
}


def model_called(name, **options):
    kind, configuration, values = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, configuration)(**values, **options)
    model = getattr(transformers, kind)(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def inputs_of(name, *, masked=False):
    generator = torch.Generator().manual_seed(1)
    if MODELS[name][2] is IMAGE:
        return {"pixel_values": torch.randn(2, 3, 12, 12, generator=generator)}
    ids = torch.randint(1, 49, (2, TOKENS), generator=generator)
    if not masked:
        return {"input_ids": ids}
    return {"input_ids": ids, "attention_mask": (torch.arange(TOKENS) < torch.tensor([[TOKENS], [4]])).long()}


def hidden(model, inputs):
    return model(**inputs).last_hidden_state


@pytest.mark.parametrize("attend", ATTENTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_the_rewritten_model_equals_the_original(name, attend):
    model = model_called(name)
    report = rewrite(model, [attention(ATTENTIONS[attend])])
    assert len(report.replaced) == 2, report
    assert report.kept == ()
    with torch.no_grad():
        for masked in (False, True):
            inputs = inputs_of(name, masked=masked)
            visible = inputs.get("attention_mask", torch.ones(1)).bool()
            ours, theirs = hidden(report.module, inputs), hidden(model, inputs)
            if masked and "attention_mask" in inputs:
                ours, theirs = ours[visible], theirs[visible]
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_state_dicts_go_both_ways_and_every_rule_at_once_is_exact(name):
    model = model_called(name)
    rules = [attention(ATTENTIONS["V2_IN_FOURS"]), feed_forward(), layer_norm(), linear_to_conv()]
    report = rewrite(model, rules)
    kinds = {type(module) for module in report.module.modules()}
    assert torch.nn.Linear not in kinds
    assert torch.nn.LayerNorm not in kinds
    with torch.no_grad():
        inputs = inputs_of(name, masked=True)
        torch.testing.assert_close(hidden(report.module, inputs), hidden(model, inputs), rtol=1e-4, atol=1e-4)
    fresh = copy.deepcopy(report.module)
    assert list(model.state_dict()) == list(fresh.state_dict())
    fresh.load_state_dict(model.state_dict(), strict=True)
    copy.deepcopy(model).load_state_dict(fresh.state_dict(), strict=True)


@pytest.mark.parametrize("name", ["distilbert", "clip_text", "llama"])
def test_gradients_are_those_of_the_original(name):
    model = model_called(name)
    ours = rewrite(model, [attention(ATTENTIONS["V2_IN_FOURS"])]).module
    inputs, parameters = inputs_of(name, masked=True), list(model.parameters())
    gradients = [
        torch.autograd.grad(hidden(m, inputs)[:, 0].square().mean(), parameters, allow_unused=True)
        for m in (ours, model)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_training_with_dropout_runs():
    model = rewrite(model_called("distilbert"), [attention(on_bsc(split_einsum))]).module.train()
    first, second = (hidden(model, inputs_of("distilbert")) for _ in range(2))
    assert not torch.equal(first, second)
    first.sum().backward()


def test_generation_with_a_cache():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**TEXT, num_key_value_heads=2, eos_token_id=None, bos_token_id=1)
    model = transformers.LlamaForCausalLM(config).eval()
    ours = rewrite(model, [attention(on_bsc(split_einsum))]).module
    ids = torch.tensor([[1, 5, 7]])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(ours.generate(ids, **options), model.generate(ids, **options))


def test_another_attention_implementation_is_refused_with_what_to_do():
    with pytest.raises(NothingReplacedError, match="expected attn_implementation='sdpa', got 'eager'"):
        rewrite(model_called("bert", attn_implementation="eager"), [attention(opaque)])

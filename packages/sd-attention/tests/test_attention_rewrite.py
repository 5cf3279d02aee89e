"""A rewritten model computes what it did, says what was done to it, and exports attention as one node."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sd_attention
import torch
from sd_attention import (
    NothingReplacedError,
    ProjectedAttention,
    Refusal,
    Replacement,
    on_bsc,
    opaque,
    projected_attention,
    rewrite,
    split_einsum,
)
from torch import nn


class PlainAttention(nn.Module):
    """An independent attention layer, on torch's own function."""

    def __init__(self, channels: int, context: int, heads: int, **extras: object) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_out = nn.Linear(channels, channels, bias=False), nn.Linear(channels, channels)
        self.to_k, self.to_v = nn.Linear(context, channels), nn.Linear(context, channels)
        for name, value in extras.items():
            setattr(self, name, value)

    def forward(self, x, encoder_hidden_states=None, attention_mask=None):
        y = x if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            t.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for t in (self.to_q(x), self.to_k(y), self.to_v(y))
        )
        output = nn.functional.scaled_dot_product_attention(q, k, v, attention_mask)
        return self.to_out(output.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, **extras: object) -> None:
        super().__init__()
        self.attn1, self.attn2 = PlainAttention(12, 12, 3), PlainAttention(12, 8, 2, **extras)
        self.linear = nn.Linear(12, 12)

    def forward(self, x, context, mask=None):
        x = x + self.attn1(x)
        return self.linear(x + self.attn2(x, encoder_hidden_states=context, attention_mask=mask))


@pytest.mark.parametrize("attend", [opaque, on_bsc(split_einsum)])
@pytest.mark.parametrize("masked", [False, True])
def test_a_rewritten_model_computes_the_same(attend, masked):
    torch.manual_seed(0)
    model, x, context = Block(), torch.randn(2, 5, 12), torch.randn(2, 7, 8)
    mask = (torch.randn(2, 1, 5, 7) > 0).logical_or(torch.eye(5, 7, dtype=torch.bool)) if masked else None
    report = rewrite(model, [projected_attention(attend)])
    assert report.replaced == ("attn1", "attn2")
    torch.testing.assert_close(report.module(x, context, mask), model(x, context, mask))


def test_the_original_stays_as_it_was_and_shares_its_parameters():
    model = Block().eval()
    report = rewrite(model, [projected_attention()])
    assert isinstance(model.attn1, PlainAttention)
    assert isinstance(report.module.attn1, ProjectedAttention)
    assert not report.module.attn1.training
    ours, theirs = dict(report.module.named_parameters()), dict(model.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(ours[name] is theirs[name] for name in theirs)


def test_in_place_rewrites_the_model_itself():
    model = Block()
    assert rewrite(model, [projected_attention()], in_place=True).module is model
    assert isinstance(model.attn2, ProjectedAttention)


@pytest.mark.parametrize(
    ("extras", "reason"),
    [
        ({"group_norm": nn.GroupNorm(1, 12)}, "it has group_norm"),
        ({"residual_connection": True}, "it has residual_connection"),
        ({"scale": 1.0}, "scales scores by 1.0"),
        ({"rescale_output_factor": 2.0}, "rescales its output"),
        (
            {"to_q": nn.Linear(12, 11), "to_k": nn.Linear(8, 11), "to_v": nn.Linear(8, 11)},
            "11] channels for 2 heads",
        ),
        ({"to_k": nn.Conv1d(8, 12, 1)}, "to_k is a Conv1d"),
        ({"to_v": nn.Linear(8, 6)}, "[12, 12, 6] channels"),
    ],
)
def test_attention_that_does_more_is_kept_and_the_report_says_why(extras, reason):
    report = rewrite(Block(**extras), [projected_attention()])
    assert report.replaced == ("attn1",)
    assert [path for path, _ in report.kept] == ["attn2"]
    assert reason in report.kept[0][1]
    assert f"kept attn2: {report.kept[0][1]}" in str(report)


def test_replacing_nothing_is_an_error_that_says_what_was_refused():
    with pytest.raises(NothingReplacedError, match=r"kept 0: it has norm_q"):
        rewrite(nn.Sequential(PlainAttention(8, 8, 2, norm_q=nn.LayerNorm(4))), [projected_attention()])
    with pytest.raises(NothingReplacedError):
        rewrite(nn.Sequential(nn.Linear(2, 2)), [projected_attention()])


def test_rules_are_tried_in_order_and_a_replacement_beats_a_refusal():
    def refuse(module):
        return Refusal("never") if isinstance(module, nn.ReLU) else None

    def swap(module):
        return Replacement(nn.GELU()) if isinstance(module, nn.ReLU) else None

    report = rewrite(nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU())), [refuse, swap])
    assert report.replaced == ("0", "1.0")
    assert report.kept == ()


def test_exported_attention_is_one_node_on_tensors_without_memory():
    with torch.device("meta"):
        model, x, context = Block().eval(), torch.empty(2, 5, 12), torch.empty(2, 7, 8)
    program = torch.export.export(rewrite(model, [projected_attention()]).module, (x, context), strict=False)
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count("sd_attention.attention.default") == 2
    assert not [target for target in targets if "softmax" in target or "matmul" in target]


def test_the_operator_satisfies_torchs_own_checks():
    q, k = torch.randn(1, 3, 4), torch.randn(1, 5, 4)
    opaque(q, k, k, None, 2)
    torch.library.opcheck(
        torch.ops.sd_attention.attention.default,
        (q, k, k, torch.zeros(1, 1, 3, 5), 2),
        test_utils=["test_schema", "test_faketensor"],
    )


def test_public_names():
    assert all(hasattr(sd_attention, name) for name in sd_attention.__all__)


def test_the_readme_runs():
    pytest.importorskip("transformers")
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    exec(compile(block, "README.md", "exec"), {})  # noqa: S102

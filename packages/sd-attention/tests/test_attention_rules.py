"""Rules for torch's own layers: what is replaced computes the same, and state dicts go both ways."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_attention import (
    IMPLEMENTATIONS,
    AttentionShapeError,
    ChannelLayerNorm,
    FeedForward,
    MultiheadAttention,
    NothingReplacedError,
    PointwiseConv,
    UnsupportedCallError,
    feed_forward,
    fused_attention,
    layer_norm,
    linear_to_conv,
    multihead_attention,
    on_bsc,
    opaque,
    rewrite,
    split_einsum,
    split_einsum_v2,
)
from torch import nn

ATTEND = on_bsc(split_einsum)
EVERY_RULE = [multihead_attention(ATTEND), feed_forward(), layer_norm(), linear_to_conv()]


def rewritten(module, *rules):
    """The rewritten module, once state dicts were seen to go both ways."""
    module = module.double()
    result = rewrite(module, rules).module
    ours, theirs = result.state_dict(), module.state_dict()
    assert {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in theirs.items()}
    copy.deepcopy(result).load_state_dict(theirs, strict=True)
    copy.deepcopy(module).load_state_dict(ours, strict=True)
    return result


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@given(
    leading=st.lists(st.integers(1, 4), max_size=4),
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    bias=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_linear_and_layer_norm_on_any_leading_axes(leading, sizes, bias):
    linear, norm = nn.Linear(*sizes, bias=bias), nn.LayerNorm(sizes[0], bias=bias)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = normal(*leading, sizes[0])
    close(rewritten(linear, linear_to_conv())(x), linear(x))
    close(rewritten(norm, layer_norm())(x), norm(x))


def test_channels_first_layout():
    x = normal(2, 6, 1, 5)
    bsc = x.squeeze(2).transpose(1, 2)
    for layer, rule in [(nn.Linear(6, 3), linear_to_conv), (nn.LayerNorm(6), layer_norm)]:
        ours = rewritten(layer, rule("BC1S"))(x)
        close(ours.squeeze(2).transpose(1, 2), layer(bsc))


def test_layer_norm_scales_before_it_shifts_even_by_zero_and_without_parameters():
    norm = nn.LayerNorm(4)
    nn.init.zeros_(norm.weight)
    nn.init.ones_(norm.bias)
    close(rewritten(norm, layer_norm())(normal(3, 4)), torch.ones(3, 4, dtype=torch.float64))
    plain, x = nn.LayerNorm(4, elementwise_affine=False, eps=0.1), normal(3, 4)
    close(rewritten(plain, layer_norm())(x), plain(x))


@pytest.mark.parametrize(
    ("module", "rule", "reason"),
    [
        (nn.LayerNorm((2, 3)), layer_norm(), "norms 2 axes at once"),
        (nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)), linear_to_conv(), "parameters are computed"),
        (nn.MultiheadAttention(4, 2, add_bias_kv=True), multihead_attention(ATTEND), "keys of its own"),
        (nn.MultiheadAttention(4, 2, add_zero_attn=True), multihead_attention(ATTEND), "keys of its own"),
        (
            type("Scaled", (nn.Linear,), {"forward": lambda _, x: x})(2, 2),
            linear_to_conv(),
            "Scaled has a forw",
        ),
    ],
)
def test_what_would_change_is_refused(module, rule, reason):
    with pytest.raises(NothingReplacedError, match=reason):
        rewrite(module, [rule])


def test_a_module_with_hooks_is_kept():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].register_forward_hook(lambda *_: None)
    report = rewrite(model, [linear_to_conv()])
    assert report.replaced == ("1",)
    assert report.kept == (("0", "it has hooks, which its replacement would not run"),)


@st.composite
def calls(draw):
    """A torch.nn.MultiheadAttention with the arguments of a call."""
    heads, batch = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    channels, lengths = heads * draw(st.integers(1, 4)), (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    batch_first, apart = draw(st.booleans()), draw(st.booleans())
    widths = {"kdim": 5, "vdim": 3} if apart else {}
    torch.manual_seed(draw(st.integers(0, 2**31)))
    module = nn.MultiheadAttention(
        channels, heads, bias=draw(st.booleans()), batch_first=batch_first, **widths
    )
    shapes = [
        (batch, lengths[0], channels),
        (batch, lengths[1], 5 if apart else channels),
        (batch, lengths[1], 3 if apart else channels),
    ]
    tensors = [normal(*shape) for shape in shapes]
    tensors = tensors if batch_first else [x.transpose(0, 1) for x in tensors]
    floats = draw(st.booleans())
    masks = {}
    if draw(st.booleans()):
        shape = draw(st.sampled_from([lengths, (batch * heads, *lengths)]))
        masks["attn_mask"] = normal(*shape)
    if draw(st.booleans()):
        masks["key_padding_mask"] = normal(batch, lengths[1])
    if not floats:  # True is hidden here; the first key never is, as torch has NaN where all are
        masks = {name: (x > 0).index_fill(-1, torch.tensor(0), False) for name, x in masks.items()}
    return module.double(), tensors, masks, draw(st.booleans()), draw(st.booleans())


@given(call=calls())
@settings(max_examples=60, deadline=None)
def test_multihead_attention(call):
    module, tensors, masks, need_weights, averaged = call
    ours = rewritten(module, multihead_attention(ATTEND))
    options = {**masks, "need_weights": need_weights, "average_attn_weights": averaged}
    output, weights = ours(*tensors, **options)
    expected, expected_weights = module(*tensors, **options)
    close(output, expected)
    assert (weights is None) == (expected_weights is None)
    if weights is not None:
        close(weights, expected_weights)


def test_multihead_attention_without_a_batch_and_its_gradients():
    module, x = nn.MultiheadAttention(6, 2), normal(5, 6)
    ours = rewritten(module, multihead_attention(ATTEND))
    output, weights = ours(x, x, x)
    expected, expected_weights = module(x, x, x)
    close(output, expected)
    close(weights, expected_weights)
    gradients = [torch.autograd.grad(y.square().sum(), list(module.parameters())) for y in (output, expected)]
    for mine, theirs in zip(*gradients, strict=True):
        close(mine, theirs)


def test_multihead_attention_says_what_it_cannot_do():
    module = MultiheadAttention(nn.MultiheadAttention(4, 2, batch_first=True), ATTEND)
    x = torch.randn(1, 3, 4)
    with pytest.raises(UnsupportedCallError, match="expected attn_mask with is_causal"):
        module(x, x, x, is_causal=True)
    with pytest.raises(AttentionShapeError, match=r"got \[1, 1, 1, 7\]"):
        module(x, x, x, key_padding_mask=torch.zeros(1, 7, dtype=torch.bool))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")  # torch's own fast path
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_whole_torch_encoder_in_training_and_on_its_fast_path(implementation):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, activation="gelu")
    model = nn.TransformerEncoder(layer, 2).double()
    attend = on_bsc(IMPLEMENTATIONS[implementation])
    report = rewrite(model, [multihead_attention(attend), *EVERY_RULE[1:]])
    assert {"", "layers.1.self_attn", "layers.0.linear1", "layers.1.norm2"} <= set(report.replaced)
    assert report.kept == ()
    x, padding = normal(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    close(report.module(x, src_key_padding_mask=padding), model(x, src_key_padding_mask=padding))
    model.eval(), report.module.eval()
    with torch.inference_mode():
        ours = report.module(x, src_key_padding_mask=padding)
        theirs = model(x, src_key_padding_mask=padding)
    close(ours[~padding], theirs[~padding])
    model.load_state_dict(report.module.state_dict(), strict=True)


class GEGLU(nn.Module):
    """As diffusers has it, in its own words."""

    def __init__(self, width, inner):
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x):
        hidden, gate = self.proj(x).tensor_split(2, -1)
        return nn.functional.gelu(gate) * hidden


class Block(nn.Module):
    def __init__(self, *net):
        super().__init__()
        self.net = nn.ModuleList(net)

    def forward(self, x):
        for layer in self.net:
            x = layer(x)
        return x


Block.__name__ = "FeedForward"


def test_feed_forward_blocks():
    x = normal(2, 5, 4)
    blocks = [
        Block(GEGLU(4, 6), nn.Dropout(0.1), nn.Linear(6, 3)),
        nn.Sequential(nn.Linear(4, 6), nn.GELU("tanh"), nn.Dropout(0.1), nn.Linear(6, 4)),
    ]
    for block in blocks:
        ours = rewritten(block.eval(), feed_forward())
        close(ours(x), block(x))
        axes_first = rewritten(block, feed_forward("BC1S"))(x.transpose(1, 2).unsqueeze(2))
        close(axes_first.squeeze(2).transpose(1, 2), block(x))
    assert isinstance(rewritten(blocks[0], feed_forward()), FeedForward)


def test_other_sequences_are_left_alone():
    model = nn.Sequential(
        nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Conv1d(2, 2, 1), nn.GELU())
    )
    with pytest.raises(NothingReplacedError):
        rewrite(model, [feed_forward()])


class Fused(nn.Module):
    """Rotated queries, shared key heads, a scale, a mask or causality: whatever torch's call can do."""

    def __init__(self, **options):
        super().__init__()
        self.to_qkv = nn.Linear(8, 16)
        self.options = options

    def forward(self, x, mask=None):
        q, k, v = self.to_qkv(x).split([8, 4, 4], -1)
        q = q.unflatten(-1, (4, 2)).transpose(1, 2)
        k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in (k, v))
        options = {**self.options, "enable_gqa": True}
        return nn.functional.scaled_dot_product_attention(q.flip(-1), k, v, attn_mask=mask, **options)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}])
@pytest.mark.parametrize("mask", [None, (1, 5), (5, 1), (5, 5), (4, 5, 5), (2, 1, 5, 1)])
def test_fused_calls_of_any_form(options, mask):
    if mask and "is_causal" in options:
        pytest.skip("torch refuses the two together")
    module, x = Fused(**options).double(), normal(2, 5, 8)
    mask = None if mask is None else normal(*mask)
    for attend in (ATTEND, on_bsc(split_einsum_v2), opaque):
        ours = rewrite(module, [fused_attention(attend)]).module
        close(ours(x, mask), module(x, mask))


def test_fused_calls_without_heads_and_with_dropout():
    class Headless(nn.Module):
        def forward(self, x, mask, dropout):
            return nn.functional.scaled_dot_product_attention(x, x, x, mask, dropout)

    ours, x, mask = rewrite(Headless(), [fused_attention(ATTEND)]).module, normal(2, 5, 8), normal(2, 5, 5)
    close(ours(x, mask, 0.0), Headless()(x, mask, 0.0))
    assert not torch.equal(ours(x, mask, 0.5), ours(x, mask, 0.0))
    with pytest.raises(UnsupportedCallError, match=r"\(B, N, Q, D\) or \(B, Q, D\), got \[5, 8\]"):
        ours(x[0], None, 0.0)
    exported = rewrite(Headless(), [fused_attention(opaque)]).module
    with pytest.raises(UnsupportedCallError, match=r"got 0.5: call eval\(\) first"):
        exported(x, mask, 0.5)


def test_two_differently_rewritten_models_and_their_original_live_together():
    seen = []

    def counting(q, k, v, mask, heads, *, dropout=0.0):
        seen.append(heads)
        return ATTEND(q, k, v, mask, heads, dropout=dropout)

    model, x = nn.Sequential(Fused()).double(), normal(2, 5, 8)
    counted = rewrite(model, [fused_attention(counting)]).module
    other = rewrite(counted, [fused_attention(ATTEND)]).module
    expected = model(x)
    close(other(x), expected)
    assert seen == []
    close(counted(x), expected)
    assert seen == [4]
    assert type(model[0]) is Fused
    assert isinstance(counted[0], Fused)
    for again in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):  # noqa: S301 - our own bytes
        close(again(x), expected)
        assert list(again.state_dict()) == list(model.state_dict())


def test_a_module_that_attends_some_other_way_says_so():
    class Sometimes(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x) if x.ndim == 4 else x

    module = rewrite(Sometimes(), [fused_attention(ATTEND)]).module
    module(torch.randn(1, 2, 3, 4))
    with pytest.raises(UnsupportedCallError, match="expected Sometimes to call torch's scaled_dot_product"):
        module(torch.randn(3))


def test_a_shared_module_is_replaced_once():
    linear = nn.Linear(3, 3)
    model = nn.Sequential(linear, nn.Sequential(linear), nn.Linear(3, 3))
    ours = rewritten(model, linear_to_conv())
    assert ours[0] is ours[1][0]
    assert isinstance(ours[0], PointwiseConv)


def test_the_model_itself_may_be_replaced_in_place_or_not():
    norm = nn.LayerNorm(3)
    for in_place in (False, True):
        report = rewrite(norm, [layer_norm()], in_place=in_place)
        assert isinstance(report.module, ChannelLayerNorm)
        assert report.replaced == ("",)


def test_fused_attention_exports():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Fused()

        def forward(self, x):
            return self.inner(x)

    x = torch.randn(2, 5, 8)
    for attend, expected in [(opaque, "sd_attention.attention"), (ATTEND, "einsum")]:
        module = rewrite(Attends(), [fused_attention(attend)]).module.eval()
        program = torch.export.export(module, (x,), strict=False)
        targets = [str(node.target) for node in program.graph.nodes]
        assert any(expected in target for target in targets)
        assert not any("scaled_dot_product" in target for target in targets)
        torch.testing.assert_close(program.module()(x), module(x))

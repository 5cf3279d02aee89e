"""Every implementation equals torch's own attention, whatever the lengths, heads, masks and chunks."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_attention import (
    CHUNK_SIZE,
    IMPLEMENTATIONS,
    AttentionShapeError,
    causal_mask,
    combine_masks,
    key_padding_mask,
    on_bsc,
    original,
    sdpa,
    split_einsum,
    split_einsum_v2,
)
from torch.nn.functional import scaled_dot_product_attention

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
V2_IN_FOURS = partial(split_einsum_v2, chunk_size=4)
ALL = [*IMPLEMENTATIONS.values(), V2_IN_FOURS]
NAMES = [*IMPLEMENTATIONS, "V2_IN_FOURS"]


@st.composite
def masks(draw, batch, heads, queries, keys, normal):
    """Each kind of mask, over all that it may broadcast."""
    kind = draw(
        st.sampled_from(["none", "boolean", "additive", "infinite", "causal", "padding", "both", "2d"])
    )
    sizes = [draw(st.sampled_from([1, size])) for size in (batch, heads, queries)]
    boolean = normal(*sizes, keys) > 0
    causal, padding = causal_mask(queries, keys), key_padding_mask(normal(batch, keys) > -0.5)
    return {
        "none": None,
        "boolean": boolean,
        "additive": normal(*sizes, keys),
        "infinite": normal(*sizes, keys).masked_fill(boolean, -torch.inf),
        "causal": causal,
        "padding": padding,
        "both": combine_masks(combine_masks(causal, padding), normal(1, heads, queries, keys)),
        "2d": boolean[0, 0],
    }[kind]


@st.composite
def problems(draw):
    """q, k, v in BC1S, a mask or None, heads."""
    batch, heads = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    width, width_of_values = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    queries, keys = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    mask = draw(masks(batch, heads, queries, keys, normal))
    q, k = normal(batch, heads * width, 1, queries), normal(batch, heads * width, 1, keys)
    return q, k, normal(batch, heads * width_of_values, 1, keys), mask, heads


def torch_attention(q, k, v, mask, heads):
    q, k, v = (x.squeeze(2).unflatten(1, (heads, -1)).transpose(2, 3) for x in (q, k, v))
    output = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return output.transpose(2, 3).flatten(1, 2).unsqueeze(2)


def close(ours, theirs):
    tolerance = TOLERANCE[theirs.dtype]
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("attention", ALL, ids=NAMES)
@given(problem=problems())
@settings(max_examples=60, deadline=None)
def test_equals_torch(attention, problem):
    before = [x.clone() for x in problem[:3]]
    close(attention(*problem), torch_attention(*problem))
    assert all(torch.equal(x, y) for x, y in zip(before, problem[:3], strict=True)), "inputs were changed"


@given(problem=problems(), chunk_size=st.integers(1, 13))
@settings(max_examples=60, deadline=None)
def test_any_chunk_size_equals_torch_in_both_layouts(problem, chunk_size):
    q, k, v, mask, heads = problem
    attention = partial(split_einsum_v2, chunk_size=chunk_size)
    expected = torch_attention(*problem)
    close(attention(*problem), expected)
    bsc = on_bsc(attention)(*(x.squeeze(2).transpose(1, 2) for x in (q, k, v)), mask, heads)
    close(bsc, expected.squeeze(2).transpose(1, 2))


@pytest.mark.parametrize("attention", ALL, ids=NAMES)
@given(problem=problems())
@settings(max_examples=25, deadline=None)
def test_gradients_equal_those_of_torch(attention, problem):
    *tensors, mask, heads = problem
    weight = torch.linspace(-1, 1, problem[2].shape[1] * problem[0].shape[3], dtype=tensors[0].dtype)

    def gradients(attend):
        leaves = [x.detach().requires_grad_() for x in tensors]
        output = attend(*leaves, mask, heads)
        return torch.autograd.grad((output * weight.reshape(output.shape[1:])).sum(), leaves)

    for ours, theirs in zip(gradients(attention), gradients(torch_attention), strict=True):
        assert ours.isfinite().all()
        close(ours, theirs)


@pytest.mark.parametrize("length", [1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2304])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_lengths_around_a_chunk_and_768_pixels(length, dtype):
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(1, 8, 1, n, generator=generator, dtype=dtype) for n in (length, 77, 77))
    mask = torch.randn(1, 1, length, 77, generator=generator, dtype=dtype)
    for problem in [(q, k, v, mask, 2), (q, k, v, None, 2), (q, q, q, None, 2)]:
        close(split_einsum_v2(*problem), torch_attention(*problem))


def test_gradients_by_finite_differences():
    q, k, v = (torch.randn(1, 4, 1, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    for attention in ALL:
        assert torch.autograd.gradcheck(lambda *x, f=attention: f(*x, causal_mask(3, 3), 2), (q, k, v))


def test_an_additive_mask_learns():
    q, bias = torch.randn(1, 4, 1, 9, dtype=torch.float64), torch.randn(1, 2, 9, 9, dtype=torch.float64)
    bias.requires_grad_()
    expected = torch.autograd.grad(torch_attention(q, q, q, bias, 2).square().sum(), bias)[0]
    for attention in ALL:
        close(torch.autograd.grad(attention(q, q, q, bias, 2).square().sum(), bias)[0], expected)


@pytest.mark.parametrize("attention", ALL, ids=NAMES)
@pytest.mark.parametrize(
    "blind", [torch.zeros(1, 1, 1, 4, dtype=torch.bool), torch.full((1, 1, 1, 4), -torch.inf)]
)
def test_a_query_that_sees_nothing_gets_zeros_and_gives_none(attention, blind):
    q, k = torch.randn(1, 8, 1, 3, requires_grad=True), torch.randn(1, 8, 1, 4, requires_grad=True)
    output = attention(q, k, k, blind, 2)
    assert torch.equal(output, torch.zeros(1, 8, 1, 3))
    for gradient in torch.autograd.grad(output.sum(), (q, k)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("attention", ALL, ids=NAMES)
def test_dropout_keeps_the_mean_and_is_off_unless_asked_for(attention):
    torch.manual_seed(0)
    q, v = torch.randn(1, 2, 1, 400), torch.ones(1, 2, 1, 400)
    dropped = attention(q, q, v, None, 2, dropout=0.5)
    assert dropped.std() > 0.01
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)
    close(attention(q, q, v, None, 2), v)


def test_on_bsc_only_moves_axes():
    q, k, v = torch.randn(2, 5, 6), torch.randn(2, 7, 6), torch.randn(2, 7, 6)
    bc1s = [x.transpose(1, 2).unsqueeze(2) for x in (q, k, v)]
    expected = split_einsum(*bc1s, None, 3).squeeze(2).transpose(1, 2)
    assert torch.equal(on_bsc(split_einsum)(q, k, v, None, 3), expected)


def test_half_precision_keeps_its_dtype_under_a_mask_of_another():
    q, mask = torch.randn(1, 4, 1, 5).half(), torch.full((5, 5), torch.finfo(torch.float32).min).triu(1)
    expected = torch_attention(*[q.float()] * 3, mask, 2)
    for attention in ALL:
        output = attention(q, q, q, mask, 2)
        assert output.dtype == torch.float16
        torch.testing.assert_close(output.float(), expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("q", "k", "v", "mask", "heads", "said"),
    [
        ((2, 6, 5), (2, 6, 5), (2, 6, 5), None, 2, r"expected q \(B, C, 1, Q\)"),
        ((2, 6, 1, 5), (2, 6, 1, 4), (2, 6, 1, 5), None, 2, "k and v of one length"),
        ((2, 6, 1, 5), (1, 6, 1, 4), (1, 6, 1, 4), None, 2, "q with the B and C of k"),
        ((2, 6, 1, 5), (2, 6, 1, 5), (2, 6, 1, 5), None, 4, "divide C = 6, E = 6, got 4"),
        ((2, 6, 1, 5), (2, 6, 1, 5), (2, 5, 1, 5), None, 2, "divide C = 6, E = 5, got 2"),
        ((2, 6, 1, 5), (2, 6, 1, 5), (2, 6, 1, 5), None, 0, "got 0"),
        ((2, 6, 1, 5), (2, 6, 1, 4), (2, 6, 1, 4), (1, 1, 5, 1), 2, r"got \[1, 1, 5, 1\]"),
        ((2, 6, 1, 5), (2, 6, 1, 4), (2, 6, 1, 4), (4, 4), 2, r"\(2, 2, 5, 4\), got \[4, 4\]"),
        ((2, 6, 1, 5), (2, 6, 1, 4), (2, 6, 1, 4), (2, 5, 4), 2, r"got \[2, 5, 4\]"),
        ((2, 6, 1, 5), (2, 6, 1, 4), (2, 6, 1, 4), (1, 3, 5, 4), 2, r"got \[1, 3, 5, 4\]"),
    ],
)
@pytest.mark.parametrize("attention", ALL, ids=NAMES)
def test_shapes_that_do_not_fit_are_refused(attention, q, k, v, mask, heads, said):
    with pytest.raises(AttentionShapeError, match=said):
        attention(*(torch.zeros(s) for s in (q, k, v)), None if mask is None else torch.zeros(mask), heads)


def test_other_refusals():
    q = torch.zeros(1, 4, 1, 3)
    with pytest.raises(AttentionShapeError, match=r"got torch\.int64"):
        original(q, q, q, torch.ones(3, 3, dtype=torch.int64), 2)
    with pytest.raises(AttentionShapeError, match="positive chunk size, got 0"):
        split_einsum_v2(q, q, q, None, 2, chunk_size=0)
    with pytest.raises(AttentionShapeError, match=r"padding mask \(B, S\), got \[3\]"):
        key_padding_mask(torch.ones(3))


def test_masks_combine_as_both_let_through():
    causal, padding = causal_mask(3, 3), key_padding_mask(torch.tensor([[1, 1, 0]]))
    both = combine_masks(causal, padding)
    assert both.tolist() == [[[[True, False, False], [True, True, False], [True, True, False]]]]
    assert combine_masks(None, causal) is causal
    assert combine_masks(causal, None) is causal
    added = combine_masks(both, torch.ones(1, 1, 3, 3))
    assert torch.equal(added, torch.ones(3, 3).masked_fill(~both, -torch.inf))


def test_the_fused_call_has_no_scale():
    q = torch.randn(1, 4, 1, 3)

    class Attend(torch.nn.Module):
        def forward(self, q):
            return sdpa(q, q, q, None, 2)

    (call,) = [
        node
        for node in torch.export.export(Attend(), (q,), strict=False).graph.nodes
        if "scaled_dot_product_attention" in str(node.target)
    ]
    assert "scale" not in call.kwargs
    assert len(call.args) <= 5

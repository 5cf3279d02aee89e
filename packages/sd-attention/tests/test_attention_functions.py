"""Every implementation equals torch's own attention, whatever the lengths, heads and masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_attention import IMPLEMENTATIONS, AttentionShapeError, on_bsc, original, split_einsum
from torch.nn.functional import scaled_dot_product_attention

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@st.composite
def problems(draw):
    """q, k, v in BC1S, a mask or None, heads."""
    batch, heads, width = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 9))
    queries, keys = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    q, k, v = (normal(batch, heads * width, 1, length) for length in (queries, keys, keys))
    mask = None
    kind = draw(st.sampled_from(["none", "boolean", "additive"]))
    if kind != "none":
        full = (batch, heads, queries)
        mask = normal(*(draw(st.sampled_from([1, size])) for size in full), keys)
        mask = mask > 0 if kind == "boolean" else mask
    return q, k, v, mask, heads


def torch_attention(q, k, v, mask, heads):
    q, k, v = (x.squeeze(2).unflatten(1, (heads, -1)).transpose(2, 3) for x in (q, k, v))
    output = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return output.transpose(2, 3).flatten(1, 2).unsqueeze(2)


@pytest.mark.parametrize("name", sorted(IMPLEMENTATIONS))
@given(problem=problems())
@settings(max_examples=80, deadline=None)
def test_equals_torch(name, problem):
    q = problem[0]
    before = [x.clone() for x in problem[:3]]
    ours = IMPLEMENTATIONS[name](*problem)
    tolerance = TOLERANCE[q.dtype]
    torch.testing.assert_close(ours, torch_attention(*problem), rtol=tolerance, atol=tolerance)
    assert all(torch.equal(x, y) for x, y in zip(before, problem[:3], strict=True)), "inputs were changed"


@pytest.mark.parametrize("attention", [original, split_einsum])
@pytest.mark.parametrize(
    "blind", [torch.zeros(1, 1, 1, 4, dtype=torch.bool), torch.full((1, 1, 1, 4), -torch.inf)]
)
def test_a_query_that_sees_nothing_gets_zeros(attention, blind):
    q = torch.randn(1, 8, 1, 3)
    k = torch.randn(1, 8, 1, 4)
    assert torch.equal(attention(q, k, k, blind, 2), torch.zeros(1, 8, 1, 3))


def test_gradients_flow_through_both():
    q, k, v = (torch.randn(1, 4, 1, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    for attention in IMPLEMENTATIONS.values():
        assert torch.autograd.gradcheck(lambda *x, f=attention: f(*x, None, 2), (q, k, v))


def test_on_bsc_only_moves_axes():
    q, k, v = torch.randn(2, 5, 6), torch.randn(2, 7, 6), torch.randn(2, 7, 6)
    bc1s = [x.transpose(1, 2).unsqueeze(2) for x in (q, k, v)]
    expected = split_einsum(*bc1s, None, 3).squeeze(2).transpose(1, 2)
    assert torch.equal(on_bsc(split_einsum)(q, k, v, None, 3), expected)


@pytest.mark.parametrize(
    ("q", "k", "v", "mask", "heads", "said"),
    [
        ((2, 6, 5), (2, 6, 5), (2, 6, 5), None, 2, r"expected q \(B, C, 1, Q\)"),
        ((2, 6, 1, 5), (2, 6, 1, 4), (2, 6, 1, 5), None, 2, "k and v of one shape"),
        ((2, 6, 1, 5), (1, 6, 1, 4), (1, 6, 1, 4), None, 2, "q with their B and C"),
        ((2, 6, 1, 5), (2, 6, 1, 5), (2, 6, 1, 5), None, 4, "divide C = 6, got 4"),
        ((2, 6, 1, 5), (2, 6, 1, 5), (2, 6, 1, 5), None, 0, "divide C = 6, got 0"),
        ((2, 6, 1, 5), (2, 6, 1, 4), (2, 6, 1, 4), (1, 1, 5, 1), 2, r"got \[1, 1, 5, 1\]"),
        ((2, 6, 1, 5), (2, 6, 1, 4), (2, 6, 1, 4), (5, 4), 2, r"\(2, 2, 5, 4\), got \[5, 4\]"),
        ((2, 6, 1, 5), (2, 6, 1, 4), (2, 6, 1, 4), (1, 3, 5, 4), 2, r"got \[1, 3, 5, 4\]"),
    ],
)
@pytest.mark.parametrize("attention", [original, split_einsum])
def test_shapes_that_do_not_fit_are_refused(attention, q, k, v, mask, heads, said):
    with pytest.raises(AttentionShapeError, match=said):
        attention(*(torch.zeros(s) for s in (q, k, v)), None if mask is None else torch.zeros(mask), heads)

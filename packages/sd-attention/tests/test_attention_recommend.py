"""Recommendations stay within their budgets, chunk only where it pays, and say why."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sd_attention import (
    ATTENTION_TARGETS,
    RecommendationError,
    original,
    recommend,
    recommend_levels,
    recommended,
)

SIZES = st.integers(1, 40_000)


@given(tokens=SIZES, keys=SIZES, heads=st.integers(1, 40), target=st.sampled_from(sorted(ATTENTION_TARGETS)))
def test_scores_stay_within_the_budget_where_a_chunk_can_do_that(tokens, keys, heads, target):
    place = ATTENTION_TARGETS[target]
    choice = recommend(tokens, heads, 64, target, keys=keys)
    smallest = min(32, tokens) * keys * place.itemsize
    assert choice.score_bytes <= max(place.score_budget, smallest)
    if choice.implementation == "SPLIT_EINSUM_V2":
        assert choice.chunk_size == tokens or choice.chunk_size % 32 == 0
        assert choice.chunk_size <= min(tokens, 512)
        assert tokens * keys * place.itemsize > place.score_budget, "a chunk that does not pay"
    assert place.name in choice.reason


@pytest.mark.parametrize(
    ("tokens", "keys", "target", "expected"),
    [
        (4096, None, "CPU_AND_NE", ("SPLIT_EINSUM_V2", 512, 4 * 2**20)),
        (4096, 77, "CPU_AND_NE", ("SPLIT_EINSUM", None, 4096 * 77 * 2)),
        (1024, None, "CPU_AND_NE", ("SPLIT_EINSUM", None, 2 * 2**20)),
        (9216, None, "CPU_AND_NE", ("SPLIT_EINSUM_V2", 448, 448 * 9216 * 2)),
        (4096, None, "CPU_AND_GPU", ("ORIGINAL", None, 8 * 4096**2 * 2)),
        (16384, None, "CPU_AND_GPU", ("SPLIT_EINSUM", None, 16384**2 * 2)),
        (4096, None, "CPU_AND_GPU_IOS18", ("SDPA", None, 0)),
        (4096, None, "TORCH", ("SDPA", None, 0)),
    ],
)
def test_known_sizes(tokens, keys, target, expected):
    choice = recommend(tokens, 8, 40, target, keys=keys)
    assert (choice.implementation, choice.chunk_size, choice.score_bytes) == expected


def test_the_reason_has_the_numbers_and_the_limit_of_the_neural_engine():
    choice = recommend(4096, 8, 40, "CPU_AND_NE")
    assert choice.reason == (
        "the scores of a head are 32 MiB, above the 8 MiB that CPU_AND_NE takes well; of 512 queries 4 MiB"
    )
    assert "longer than 16384" in recommend(20_000, 8, 40, "CPU_AND_NE", keys=77).reason
    assert "longer than" not in recommend(16_384, 8, 40, "CPU_AND_NE", keys=77).reason


def test_levels_of_stable_diffusion_at_768_pixels():
    levels = recommend_levels(96, 96, [(8, 40), (8, 80), (8, 160), (8, 160)], "CPU_AND_NE", batch=1)
    assert [level.tokens for level in levels] == [9216, 2304, 576, 144]
    assert [level.self_attention.implementation for level in levels] == [
        *["SPLIT_EINSUM_V2"] * 2,
        *["SPLIT_EINSUM"] * 2,
    ]
    assert {level.cross_attention.implementation for level in levels} == {"SPLIT_EINSUM"}


def test_levels_without_attention_are_left_out():
    (level,) = recommend_levels(5, 7, [None, (2, 4)], "CPU_AND_GPU")
    assert (level.tokens, level.heads, level.head_dim) == (3 * 4, 2, 4)


def test_a_budget_of_ones_own_is_kept_and_exact():
    target = dataclasses.replace(ATTENTION_TARGETS["CPU_AND_NE"], score_budget=4000, itemsize=8)
    q, k = torch.randn(1, 6, 1, 70, dtype=torch.float64), torch.randn(1, 6, 1, 11, dtype=torch.float64)
    choice = recommend(70, 3, 2, target, keys=11)
    assert (choice.implementation, choice.chunk_size) == ("SPLIT_EINSUM_V2", 32)
    expected = original(q, k, k, None, 3)
    torch.testing.assert_close(choice.attention(q, k, k, None, 3), expected)
    torch.testing.assert_close(recommended(target)(q, k, k, None, 3), expected)


@pytest.mark.parametrize("name", sorted(ATTENTION_TARGETS))
def test_recommended_attention_is_exact(name):
    q = torch.randn(2, 6, 1, 30, dtype=torch.float64)
    torch.testing.assert_close(recommended(name)(q, q, q, None, 3), original(q, q, q, None, 3))


def test_refusals():
    with pytest.raises(RecommendationError, match=r"expected one of CPU_AND_NE, .*, got 'NPU'"):
        recommend(1, 1, 1, "NPU")
    with pytest.raises(RecommendationError, match="expected one of"):
        recommended("NPU")
    with pytest.raises(RecommendationError, match="heads: expected a positive size, got 0"):
        recommend(1, 0, 1, "CPU_AND_NE")

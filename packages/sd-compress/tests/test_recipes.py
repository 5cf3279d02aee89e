"""Recipes as files: round trips, what is wrong with malformed ones, and Apple's."""

import json

import numpy as np
import pytest
from compressing import program, use
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_compress import (
    Joint,
    Keep,
    Linear,
    Palettize,
    PerBlock,
    PerChannel,
    PerGroupedChannel,
    PerTensor,
    Prune,
    Recipe,
    RecipeError,
    Selection,
    apple_recipe,
    check_patterns,
    compress,
    format_apple_recipe,
    format_recipe,
    parse_apple_recipe,
    parse_recipe,
    read_any_recipe,
    read_recipe,
    uniform_recipe,
    with_schemes,
)

SIZES = st.integers(1, 512)
AXES = st.none() | st.integers(0, 3)
BITS = st.sampled_from([1, 2, 3, 4, 6, 8])
PLAIN = st.builds(Palettize, BITS, st.just(PerTensor()) | st.builds(PerGroupedChannel, SIZES, AXES))
PALETTES = st.builds(
    Palettize, BITS, st.builds(PerGroupedChannel, SIZES, AXES), st.booleans(), st.integers(1, 8)
)
LINEAR = st.builds(
    Linear,
    st.sampled_from(["int8", "uint8", "int4", "uint4"]),
    st.sampled_from(["symmetric", "asymmetric"]),
    st.just(PerTensor()) | st.builds(PerChannel, AXES) | st.builds(PerBlock, SIZES),
)
SHARES = st.floats(0, 0.99)
PRUNE = st.builds(Prune, SHARES) | st.integers(1, 6).map(lambda n: Prune(n_m=(n, n + 2)))
SCHEMES = st.just(Keep()) | PLAIN | PALETTES | LINEAR | PRUNE | st.builds(Joint, PRUNE, PLAIN | LINEAR)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=12), SCHEMES, max_size=4))
def test_what_is_written_is_read(schemes):
    assert parse_recipe(format_recipe(Recipe(schemes))) == Recipe(schemes)


def test_defaults_are_left_out():
    weights = json.loads(format_recipe(Recipe({"w": Palettize(6)})))["weights"]
    assert weights == {"w": {"method": "palettize", "nbits": 6}}


def document(**fields):
    return json.dumps({"format": "sd-compress recipe", "version": 1, "weights": {}, **fields})


MALFORMED = {
    "not json": ("{", "expected a JSON document"),
    "twice": ('{"format": 1, "format": 2}', "every key once"),
    "a list": ("[]", "expected an object, got list"),
    "another format": (document(format="x"), "format: expected 'sd-compress recipe', got 'x'"),
    "a later version": (document(version=2), "version: expected 1, got 2"),
    "an unknown field": (document(more=1), r"got \['more'\]"),
    "weights of none": (document(weights=[]), "weights: expected schemes by the names of weights"),
    "no method": (document(weights={"w": {}}), r"weights\['w'\].method: expected one of keep, palettize"),
    "no object": (document(weights={"w": 6}), r"weights\['w'\]: expected an object with a method, got 6"),
    "no bits": (document(weights={"w": {"method": "palettize"}}), r"expected the fields \['nbits'\]"),
    "five bits": (
        document(weights={"w": {"method": "palettize", "nbits": 5}}),
        r"'w'\].nbits: expected one of",
    ),
    "bits as text": (
        document(weights={"w": {"method": "palettize", "nbits": "6"}}),
        "nbits: expected one of",
    ),
    "a list of bits": (
        document(weights={"w": {"method": "palettize", "nbits": [6]}}),
        "nbits: expected one of",
    ),
    "an unknown dtype": (
        document(weights={"w": {"method": "linear", "dtype": "int3"}}),
        "dtype: expected one of",
    ),
    "another granularity": (
        document(weights={"w": {"method": "palettize", "nbits": 6, "granularity": "per_block"}}),
        "granularity: expected one of per_tensor, per_grouped_channel, got 'per_block'",
    ),
    "groups of nothing": (
        document(
            weights={
                "w": {
                    "method": "palettize",
                    "nbits": 6,
                    "granularity": "per_grouped_channel",
                    "group_size": 0,
                }
            }
        ),
        "group_size: expected a positive integer, got 0",
    ),
    "all pruned": (
        document(weights={"w": {"method": "prune", "sparsity": 1}}),
        "sparsity: expected 0 to less",
    ),
    "nothing pruned": (
        document(weights={"w": {"method": "prune"}}),
        "sparsity: expected either sparsity or n_m",
    ),
    "four of two": (document(weights={"w": {"method": "prune", "n_m": [4, 2]}}), "n_m: expected"),
    "half a joint": (
        document(weights={"w": {"method": "joint", "prune": {}}}),
        "expected the fields prune and",
    ),
    "pruned twice": (
        document(weights={"w": {"method": "joint", "prune": {"sparsity": 0.5}, "then": {"method": "keep"}}}),
        "then: expected the method palettize or linear, got 'keep'",
    ),
    "a method of two": (document(weights={"w": {"method": ["keep"]}}), "method: expected one of"),
    "true bits": (document(weights={"w": {"method": "palettize", "nbits": True}}), "nbits"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_said(name):
    text, expected = MALFORMED[name]
    with pytest.raises(RecipeError, match=expected):
        parse_recipe(text)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "recipe.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"recipe\.json: expected a recipe, got"):
        read_recipe(path)


@pytest.fixture
def made():
    large, random = np.zeros((64, 64), np.float16), np.random.default_rng(0)
    return program(
        {
            "down_blocks_0_attn_to_q_weight_to_fp16": random.standard_normal((64, 64)).astype(np.float16),
            "down_blocks_0_conv_weight_to_fp16": np.zeros((64, 32, 3, 3), np.float16),
            "small_weight_to_fp16": np.zeros((8, 8), np.float16),
            "table_to_fp16": (large, use("gather", "table_to_fp16", "x")),
            "bias_to_fp16": (np.zeros(4096, np.float16), use("conv", "bias_to_fp16", "bias")),
        }
    )


def test_what_is_selected(made):
    layers = ["down_blocks_0_attn_to_q_weight_to_fp16", "down_blocks_0_conv_weight_to_fp16"]
    assert list(uniform_recipe(made, Palettize(6)).schemes) == layers
    chosen = {
        Selection(names=("*attn*",)): layers[:1],
        Selection(without=("*attn*",)): layers[1:],
        Selection(kinds=("gather",)): ["table_to_fp16"],
        Selection(fewest_elements=0): [*layers, "small_weight_to_fp16"],
        Selection(fewest_elements=10_000): layers[1:],
    }
    for selection, names in chosen.items():
        assert list(uniform_recipe(made, Palettize(6), selection).schemes) == names


def test_other_schemes_for_some(made):
    recipe = uniform_recipe(made, Palettize(6))
    changed = with_schemes(recipe, {"down*": Linear(), "*to_q*": Keep()})
    assert list(changed.schemes.values()) == [Keep(), Linear()]
    with pytest.raises(RecipeError, match="patterns that names of weights match, got 'up\\*'"):
        check_patterns(["down*", "up*"], [made])


def test_a_recipe_of_another_model_lists_every_name(made):
    with pytest.raises(RecipeError, match="got 2 others of 3: 'x', 'y'; is the recipe that of another model"):
        compress(
            made, Recipe({"x": Keep(), "down_blocks_0_conv_weight_to_fp16": Palettize(4), "y": Palettize(2)})
        )


APPLE = {
    "model_version": "org/model",
    "baselines": {"original": 80.0},
    "recipes": {
        "recipe_4.50_bit_mixedpalette": {"down_blocks.0.attn.to_q": 4, "down_blocks.0.conv": 16},
        "recipe_2.00_bit_mixedpalette": {"down_blocks.0.attn.to_q": 2},
    },
}


def test_a_recipe_of_apple(made, tmp_path):
    path = tmp_path / "apple.json"
    path.write_text(json.dumps(APPLE))
    recipe = read_any_recipe(path, "recipe_4.50_bit_mixedpalette")(made)
    assert recipe.schemes == {
        "down_blocks_0_attn_to_q_weight_to_fp16": Palettize(4),
        "down_blocks_0_conv_weight_to_fp16": Keep(),
    }
    modules = {one: one.removesuffix("_weight_to_fp16").replace("_", ".", 3) for one in recipe.schemes}
    text = format_apple_recipe(recipe, modules, name="ours", model_version="org/model")
    bits = json.loads(text)["recipes"]["ours"]
    assert list(bits.values()) == [4, 16]
    assert apple_recipe(made, parse_apple_recipe(text)) == recipe


BAD_APPLE = {
    "several": (APPLE, None, "expected the name of one of 2 recipes: recipe_4.50"),
    "another": (APPLE, "x", "expected one of the recipes recipe_4.50.*, got 'x'"),
    "bits": ({"recipes": {"r": {"a": 5, "b": 4, "c": "6"}}}, None, "bits among .*, got a: 5, c: '6'"),
    "empty": ({"recipes": {}}, None, "or Apple's with recipes, got neither"),
    "no bits": ({"recipes": {"r": []}}, None, "expected bits by module"),
}


@pytest.mark.parametrize("name", BAD_APPLE)
def test_a_malformed_recipe_of_apple(tmp_path, name):
    content, chosen, expected = BAD_APPLE[name]
    path = tmp_path / "apple.json"
    path.write_text(json.dumps(content))
    with pytest.raises(RecipeError, match=expected):
        read_any_recipe(path, chosen)


def test_modules_of_another_model_are_listed(made):
    bits = {"down_blocks.0.attn.to_q": 4, "up.0": 4, "up.1": 2}
    with pytest.raises(
        RecipeError, match=r"got 2 others of 3: up\.0, up\.1; is the recipe that of another model"
    ):
        apple_recipe(made, bits)

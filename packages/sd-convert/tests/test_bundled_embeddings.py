"""LoRA files that bring embeddings along: the same checkpoint as with both given apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sd_convert import (
    Checkpoint,
    ConversionOptions,
    Embedding,
    Lora,
    UnsupportedArchitectureError,
    convert,
    open_checkpoint,
)
from sd_tokenize import ClipTokenizer
from torch import Tensor

WIDTH, VOCABULARY = 32, 190
TABLE = "embeddings.token_embedding.weight"


def lora(folder: Path, tensors: dict[str, Tensor], *, name: str = "lora") -> Lora:
    """A LoRA of one layer, and ``tensors`` beside it."""
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    torch.manual_seed(0)
    parts = {
        f"{layer}.lora_up.weight": torch.randn(64, 2, 1, 1),
        f"{layer}.lora_down.weight": torch.randn(2, 64, 1, 1),
    }
    save_file(parts | tensors, folder / f"{name}.safetensors")
    return Lora(folder / f"{name}.safetensors")


def table(checkpoint: Checkpoint) -> Any:
    weights = checkpoint.weights("text_encoder")
    return weights[next(name for name in weights if name.endswith(TABLE))]


@pytest.mark.parametrize("part", ["string_to_param.*", "clip_l", "emb_params"])
@pytest.mark.parametrize("name", ["style", "style.v1.5", "<my-style>"])
def test_vectors_and_words(part: str, name: str, tiny: Path, tmp_path: Path) -> None:
    vectors = torch.randn(2, WIDTH)
    file = lora(tmp_path, {f"bundle_emb.{name}.{part}": vectors})
    save_file({"emb_params": vectors}, tmp_path / "apart.safetensors")
    apart = open_checkpoint(
        tiny,
        loras=[lora(tmp_path, {}, name="plain")],
        embeddings=[Embedding(name, tmp_path / "apart.safetensors")],
    )
    bundled = open_checkpoint(tiny, loras=[file])
    np.testing.assert_array_equal(table(bundled)[VOCABULARY:], vectors)
    assert bundled.made_files == apart.made_files
    assert bundled.configs == apart.configs
    for component in ("unet", "text_encoder"):
        theirs, ours = apart.weights(component), bundled.weights(component)
        assert set(theirs) == set(ours)
        for tensor in theirs:
            if not tensor.endswith("position_ids"):
                np.testing.assert_array_equal(ours[tensor], theirs[tensor])
    (note,) = bundled.notes
    assert repr(name) in note
    assert "prompts may use" in note


def test_what_else_the_web_ui_saves(tiny: Path, tmp_path: Path) -> None:
    extra = {"string_to_token.*": torch.tensor(265), "string_to_param.*": torch.ones(1, WIDTH)}
    file = lora(tmp_path, {f"bundle_emb.style.{name}": tensor for name, tensor in extra.items()})
    np.testing.assert_array_equal(
        table(open_checkpoint(tiny, loras=[file]))[VOCABULARY:], np.ones((1, WIDTH))
    )


def test_a_bundle_knows_the_word(tiny: Path, tmp_path: Path) -> None:
    file = lora(tmp_path, {"bundle_emb.style.clip_l": torch.ones(2, WIDTH)})
    checkpoint = open_checkpoint(tiny, loras=[file])
    bundle = convert(checkpoint, tmp_path / "b", ConversionOptions(components=("text_encoder",))).bundle
    ids = ClipTokenizer.from_folder(bundle / "tokenizer").encode("a style").ids
    assert ids[2:4] == (VOCABULARY, VOCABULARY + 1)


def test_the_embedding_that_was_given_by_itself_counts(tiny: Path, tmp_path: Path) -> None:
    file = lora(tmp_path, {"bundle_emb.style.clip_l": torch.ones(2, WIDTH)})
    save_file({"emb_params": torch.zeros(1, WIDTH)}, tmp_path / "own.safetensors")
    checkpoint = open_checkpoint(
        tiny, loras=[file], embeddings=[Embedding("style", tmp_path / "own.safetensors")]
    )
    np.testing.assert_array_equal(table(checkpoint)[VOCABULARY:], np.zeros((1, WIDTH)))
    assert "gives way" in checkpoint.notes[0]


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"bundle_emb.style.clip_l": torch.ones(1, 768)}, "Stable Diffusion 1"),
        ({"bundle_emb.style.clip_g": torch.ones(1, WIDTH)}, "expected vectors for text_encoder"),
        ({"bundle_emb.my style.clip_l": torch.ones(1, WIDTH)}, "without spaces"),
        ({"bundle_emb.a.clip_l": torch.ones(1, WIDTH)}, "no token yet"),
    ],
)
def test_one_that_cannot_be_used_is_left_out_with_a_note(
    tensors: dict[str, Tensor], why: str, tiny: Path, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(tiny, loras=[lora(tmp_path, tensors)])
    assert table(checkpoint).shape == (VOCABULARY, WIDTH)
    before = open_checkpoint(tiny).weights("unet")["mid_block.attentions.0.proj_in.weight"]
    assert np.any(checkpoint.weights("unet")["mid_block.attentions.0.proj_in.weight"] != before)
    (note,) = checkpoint.notes
    assert "is not used" in note
    assert why in note
    assert "\n" not in note


def test_two_loras_and_one_twice(tiny: Path, tmp_path: Path) -> None:
    first = lora(tmp_path, {"bundle_emb.style.clip_l": torch.ones(1, WIDTH)}, name="a")
    tensors = {
        "bundle_emb.style.clip_l": torch.zeros(1, WIDTH),
        "bundle_emb.other.clip_l": torch.zeros(1, WIDTH),
    }
    second = lora(tmp_path, tensors, name="b")
    checkpoint = open_checkpoint(tiny, loras=[first, first, second])
    np.testing.assert_array_equal(table(checkpoint)[VOCABULARY:, 0], [1, 0])
    said = [(note.split("'")[1], "is added" in note) for note in checkpoint.notes]
    assert sorted(said) == [("other", True), ("style", False), ("style", True)]


def test_without_a_text_encoder_nothing_is_said(tiny: Path, tmp_path: Path) -> None:
    file = lora(tmp_path, {"bundle_emb.style.clip_l": torch.ones(1, WIDTH)})
    assert open_checkpoint(tiny, components=["unet"], loras=[file]).notes == ()


def test_what_is_no_embedding(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedArchitectureError, match=r"bundle_emb\.style"):
        open_checkpoint(tiny, loras=[lora(tmp_path, {"bundle_emb.style": torch.ones(1)})])

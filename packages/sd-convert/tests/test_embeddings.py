"""Embeddings as tokens: ids, vectors, and hidden states against transformers with the same tokens added."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sd_convert import (
    Checkpoint,
    CheckpointError,
    CheckpointNotFoundError,
    Component,
    ConversionOptions,
    Embedding,
    OptionsError,
    UnsafeWeightsError,
    WeightsMismatchError,
    build_component,
    convert,
    open_checkpoint,
)
from sd_mil import MLModel
from sd_tokenize import ClipTokenizer
from transformers import CLIPTextModel, CLIPTokenizer

WIDTH, VOCABULARY = 32, 190


def write(folder: Path, tensor: torch.Tensor, *, key: str = "emb_params", name: str = "style") -> Embedding:
    file = folder / f"{name}.safetensors"
    save_file({key: tensor}, file)
    return Embedding(name, file)


def bundle_tokenizer(checkpoint: Checkpoint, folder: Path) -> ClipTokenizer:
    """What a bundle of the checkpoint would have."""
    folder.mkdir(exist_ok=True)
    for file in checkpoint.tokenizers["tokenizer"]:
        shutil.copy(file, folder)
    for path, content in checkpoint.made_files.items():
        if path.startswith("tokenizer/"):
            (folder / Path(path).name).write_bytes(content)
    return ClipTokenizer.from_folder(folder)


@pytest.mark.parametrize("key", ["emb_params", "<my-token>"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_vectors_are_below_the_table(key: str, dtype: torch.dtype, tiny: Path, tmp_path: Path) -> None:
    vectors = torch.randn(3, WIDTH).to(dtype)
    checkpoint = open_checkpoint(tiny, embeddings=[write(tmp_path, vectors, key=key)])
    name = next(n for n in checkpoint.weights("text_encoder") if n.endswith("token_embedding.weight"))
    table = checkpoint.weights("text_encoder")[name]
    assert table.shape == (VOCABULARY + 3, WIDTH)
    assert checkpoint.config("text_encoder")["vocab_size"] == VOCABULARY + 3
    np.testing.assert_array_equal(table[:VOCABULARY], open_checkpoint(tiny).weights("text_encoder")[name])
    np.testing.assert_array_equal(table[VOCABULARY:], vectors.float())


def test_one_vector_alone_and_several_embeddings(tiny: Path, tmp_path: Path) -> None:
    embeddings = [
        write(tmp_path, torch.randn(2, WIDTH), name="style"),
        write(tmp_path, torch.randn(WIDTH), name="<cat-toy>"),
    ]
    checkpoint = open_checkpoint(tiny, embeddings=embeddings)
    tokenizer = bundle_tokenizer(checkpoint, tmp_path / "tokenizer")
    assert tokenizer.encode("style <cat-toy>").ids[1:4] == (VOCABULARY, VOCABULARY + 1, VOCABULARY + 2)


def run(component: Component, ids: list[int]) -> Any:
    state = {
        name: torch.from_numpy(np.array(component.weights[name], np.float32))
        for name in component.module.state_dict()
    }
    component.module.load_state_dict(state, assign=True)
    with torch.no_grad():
        return component.module(torch.tensor([ids], dtype=torch.float32))


@pytest.mark.parametrize("legacy", [False, True])
def test_hidden_states_are_those_of_transformers(
    legacy: bool, tiny: Path, tiny_models: Any, tmp_path: Path, edit_config: Any
) -> None:
    vectors = torch.randn(2, WIDTH).half().float()
    if legacy:  # as the configs of SD 1.5 and SDXL have it: the highest id ends the prompt
        edit_config("text_encoder", eos_token_id=2)
    checkpoint = open_checkpoint(tiny, embeddings=[write(tmp_path, vectors)])
    ours = bundle_tokenizer(checkpoint, tmp_path / "tokenizer")
    theirs = CLIPTokenizer.from_pretrained(str(tiny / "tokenizer"))
    theirs.add_tokens(["style", "style_1"])
    ids = theirs("a style b", padding="max_length", max_length=77, truncation=True).input_ids
    both = theirs("a style style_1 b", padding="max_length", max_length=77, truncation=True).input_ids
    assert list(ours.encode("a style b").ids) == both != ids
    model = CLIPTextModel.from_pretrained(tiny / "text_encoder", variant="fp16", dtype=torch.float32).eval()
    model.resize_token_embeddings(VOCABULARY + 2, mean_resizing=False)
    model.get_input_embeddings().weight.data[VOCABULARY:] = vectors
    encoder = getattr(model, "text_model", model)
    encoder.eos_token_id = VOCABULARY - 1
    with torch.no_grad():
        expected = model(torch.tensor([both]))
    hidden, pooled = run(build_component("text_encoder", checkpoint, ConversionOptions()), both)
    torch.testing.assert_close(hidden, expected.last_hidden_state, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pooled, expected.pooler_output, rtol=1e-4, atol=1e-4)


def test_a_bundle_with_the_token(tiny: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny, embeddings=[write(tmp_path, torch.randn(2, WIDTH))])
    options = ConversionOptions(components=("text_encoder",))
    bundle = convert(checkpoint, tmp_path / "bundle", options).bundle
    ids = ClipTokenizer.from_folder(bundle / "tokenizer").encode("a style b").ids
    model = MLModel(next(bundle.rglob("*text_encoder.mlpackage")), "reference")
    got = model.predict({"input_ids": np.array([ids], np.float32)})
    hidden, _ = run(build_component("text_encoder", checkpoint, options), list(ids))
    np.testing.assert_allclose(got["last_hidden_state"], hidden.numpy(), atol=2e-2)


def test_added_tokens_decoder_and_tokenizer_json(tiny: Path, tmp_path: Path) -> None:
    folder = tiny / "tokenizer"
    vocabulary = json.loads((folder / "vocab.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    decoder = {
        str(vocabulary[config[role]]): {"content": config[role]} for role in ("bos_token", "eos_token")
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"added_tokens_decoder": decoder}))
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
    checkpoint = open_checkpoint(tiny, embeddings=[write(tmp_path, torch.randn(1, WIDTH))])
    tokenizer = bundle_tokenizer(checkpoint, tmp_path / "both")
    assert tokenizer.encode("style").ids[1] == VOCABULARY
    (tmp_path / "both" / "vocab.json").unlink()
    assert ClipTokenizer.from_folder(tmp_path / "both").encode("style").ids[1] == VOCABULARY


def test_names_that_cannot_be(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="without spaces"):
        Embedding("my style", tmp_path)
    with pytest.raises(OptionsError, match="no token yet, got '!'"):
        open_checkpoint(tiny, embeddings=[write(tmp_path, torch.randn(1, WIDTH), name="!")])
    two, one = write(tmp_path, torch.randn(2, WIDTH)), write(tmp_path, torch.randn(WIDTH), name="style_1")
    with pytest.raises(OptionsError, match="differ in more than a number"):
        open_checkpoint(tiny, embeddings=[two, one])
    with pytest.raises(OptionsError, match="each name once"):
        open_checkpoint(tiny, embeddings=[two, two])


def test_files_that_do_not_fit(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatchError, match=r"of 32 numbers .* got \[2, 768\].*Stable Diffusion 1"):
        open_checkpoint(tiny, embeddings=[write(tmp_path, torch.randn(2, 768))])
    save_file({"clip_g": torch.zeros(1, 8), "x": torch.zeros(1)}, tmp_path / "xl.safetensors")
    with pytest.raises(WeightsMismatchError, match=r"vectors for text_encoder \(clip_l"):
        open_checkpoint(tiny, embeddings=[Embedding("xl", tmp_path / "xl.safetensors")])
    (tmp_path / "old.pt").write_bytes(b"x")
    with pytest.raises(UnsafeWeightsError, match="can run code"):
        open_checkpoint(tiny, embeddings=[Embedding("old", tmp_path / "old.pt")])
    with pytest.raises(CheckpointNotFoundError, match="nowhere"):
        open_checkpoint(tiny, embeddings=[Embedding("old", tmp_path / "nowhere")])
    vocabulary = json.loads((tiny / "tokenizer" / "vocab.json").read_text())
    (tiny / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary | {"extra": VOCABULARY}))
    with pytest.raises(CheckpointError, match="has vectors, 190, got 191"):
        open_checkpoint(tiny, embeddings=[write(tmp_path, torch.randn(2, WIDTH))])


def test_without_the_text_encoder_nothing_happens(tiny: Path, tmp_path: Path) -> None:
    embedding = write(tmp_path, torch.randn(2, WIDTH))
    checkpoint = open_checkpoint(tiny, components=["unet"], embeddings=[embedding])
    assert not checkpoint.made_files
    opened = open_checkpoint(tiny, embeddings=[embedding])
    assert opened.digest("text_encoder") != open_checkpoint(tiny).digest("text_encoder")
    assert opened.digest("unet") == open_checkpoint(tiny).digest("unet")

"""T5's ids against transformers, on a unigram model trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_tokenize import T5Tokenizer, TokenizerError

CORPUS = [
    "a photo of a cat on a mat, by night",
    "photographs of catalogues; an atoll at noon",
    "Ein Bild von einem schönen Garten",
    "the quick brown fox jumps over the lazy dog 0123456789",
] * 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As transformers saves it."""
    # before release 5, T5Tokenizer took no vocabulary, and needed sentencepiece
    transformers = pytest.importorskip("transformers", minversion="5")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=special, unk_token=special[2], show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    vocabulary = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["vocab"]]
    path = tmp_path_factory.mktemp("t5")
    transformers.T5Tokenizer(vocab=vocabulary, extra_ids=4).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return pytest.importorskip("transformers").T5Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def ours(folder: Path) -> T5Tokenizer:
    return T5Tokenizer.from_folder(folder)


TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=40),
    st.lists(
        st.sampled_from([*CORPUS[0].split(), " ", "  ", "\n", "ö", "</s>", "<pad>", "<extra_id_1>"])
    ).map(" ".join),
)


@settings(max_examples=150)
@given(TEXTS, st.integers(1, 24))
def test_ids_are_those_of_transformers(ours: T5Tokenizer, theirs: Any, text: str, length: int) -> None:
    expected = theirs(text, padding="max_length", max_length=length, truncation=True).input_ids
    assert list(ours.encode(text, length=length).ids) == expected


def test_what_is_cut_is_said(ours: T5Tokenizer) -> None:
    whole = ours.encode("a photo of a cat")
    assert (len(whole.ids), whole.truncated, whole.ids[-1]) == (256, "", ours.pad_id)
    count = whole.ids.index(ours.eos_id)
    cut = ours.encode("a photo of a cat zebra", length=count + 1)
    assert cut.ids == whole.ids[: count + 1]
    assert cut.truncated == "zebra"


def test_what_is_no_t5_is_refused(folder: Path, tmp_path: Path, ours: T5Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"expected tokenizer\.json"):
        T5Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(TokenizerError, match="Unigram"):
        T5Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": 3}}')
    with pytest.raises(TokenizerError, match="expected a tokenizer in"):
        T5Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<end>"}}')
    with pytest.raises(TokenizerError, match="'<end>' in the vocabulary"):
        T5Tokenizer.from_folder(tmp_path)
    with pytest.raises(TokenizerError, match="lone surrogate"):
        ours.encode("a\ud800")
    with pytest.raises(TokenizerError, match="at least 1"):
        ours.encode("a", length=0)

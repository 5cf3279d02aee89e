"""Errors of a tokenizer are one line, short, and typed, whatever a file or a library holds."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_tokenize import ClipTokenizer, TokenizerError


@pytest.fixture
def folder(tmp_path):
    tokens = ["a</w>", "b", "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    return tmp_path


def test_a_library_that_does_not_load(folder, monkeypatch):
    ClipTokenizer.from_folder(folder)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(TokenizerError, match="expected the library tokenizers to load"):
        ClipTokenizer.from_folder(folder)


@pytest.mark.parametrize("merge", ["x" * 5000 + " y", "x" * 5000, "\x1b[31mx \x07y"])
def test_what_a_file_holds_is_quoted_shortly(folder, merge):
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merge}\n")
    with pytest.raises(TokenizerError) as caught:
        ClipTokenizer.from_folder(folder)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


@given(st.text(max_size=3000))
def test_messages_are_printable(text):
    said = str(TokenizerError(text))
    assert said.isprintable()
    if len(text) < 600 and text.isprintable():
        assert said == text

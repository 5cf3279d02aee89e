"""Numbers of any size and kind in a tokenizer's files are a TokenizerError or are understood."""

import json

import pytest
from sd_tokenize import ClipTokenizer, TokenizerError

LONG = "9" * 5000


def folder_with(tmp_path, **files):
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    for name, text in files.items():
        (tmp_path / f"{name}.json").write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", ["vocab", "tokenizer_config", "special_tokens_map", "added_tokens"])
def test_a_number_of_thousands_of_digits(tmp_path, name):
    with pytest.raises(TokenizerError, match=f"{name}.json"):
        ClipTokenizer.from_folder(folder_with(tmp_path, **{name: f'{{"model_max_length": {LONG}}}'}))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "-1", "1.5"])
def test_lengths_that_are_none(tmp_path, number):
    with pytest.raises(TokenizerError, match="model_max_length"):
        ClipTokenizer.from_folder(folder_with(tmp_path, tokenizer_config=f'{{"model_max_length": {number}}}'))

from __future__ import annotations

import itertools
import json
import runpy
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_tokenize import ClipTokenizer, TokenizerError, Tokens, files

START, END = "<|startoftext|>", "<|endoftext|>"
LETTERS = "abcdefghijklmnopqrstuvwxyz,'!0123456789"


def write(folder: Path, **replaced: object) -> Path:
    """A tokenizer folder of a few letters; ``replaced`` gives other contents by file name, None for none."""
    tokens = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "ca", "cat</w>", START, END]
    contents: dict[str, object] = {
        "vocab.json": {token: index for index, token in enumerate(tokens)},
        "merges.txt": "#version: 0.2\nc a\nca t</w>\n",
        "tokenizer_config.json": {"model_max_length": 8},
        **{name.replace("__", "."): content for name, content in replaced.items()},
    }
    for name, content in contents.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif content is not None:
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ClipTokenizer:
    return ClipTokenizer.from_folder(write(tmp_path_factory.mktemp("tokenizer")))


def test_start_tokens_end_padding(tokenizer: ClipTokenizer) -> None:
    cat = tokenizer.encode("cat").ids[1]
    pads = (tokenizer.pad_id,) * 5
    assert tokenizer.encode("cat").ids == (tokenizer.bos_id, cat, tokenizer.eos_id, *pads)
    assert tokenizer.encode("Cat  CAT\tcat").ids[1:4] == (cat, cat, cat)
    assert tokenizer.encode("").ids == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, *pads)


@pytest.mark.parametrize(
    ("prompt", "cut"),
    [
        ("cat " * 6, ""),
        ("cat " * 6 + "and a DOG, ", "and a DOG,"),
        ("CAT  cat\tcat cat cat cat  cat", "cat"),
        ("abcdefgHIJ", "gHIJ"),
        ("a'b'c'd", "d"),
    ],
)
def test_what_is_cut_is_said_in_the_users_own_words(tokenizer: ClipTokenizer, prompt: str, cut: str) -> None:
    tokens = tokenizer.encode(prompt)
    assert tokens.truncated == cut
    assert (tokens.ids[-1] == tokenizer.eos_id) or not cut


@given(st.text(LETTERS + LETTERS.upper() + " \t\n.é", max_size=40))
def test_the_cut_text_is_the_end_of_the_prompt(tokenizer: ClipTokenizer, prompt: str) -> None:
    tokens = tokenizer.encode(prompt)
    assert len(tokens.ids) == tokenizer.max_length
    assert tokens.ids[0] == tokenizer.bos_id
    assert tokenizer.eos_id in tokens.ids
    assert prompt.rstrip().endswith(tokens.truncated)


def test_half_a_surrogate_pair_is_refused(tokenizer: ClipTokenizer) -> None:
    with pytest.raises(TokenizerError, match="surrogate at position 0"):
        tokenizer.encode("\ud83d cat")


def test_length_is_clips_where_it_is_not_set(tmp_path: Path) -> None:
    assert ClipTokenizer.from_folder(write(tmp_path, tokenizer_config__json=None)).max_length == 77
    unset = {"model_max_length": 1e30}  # transformers' way to say so
    assert ClipTokenizer.from_folder(write(tmp_path, tokenizer_config__json=unset)).max_length == 77


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        ({"vocab__json": None}, "vocab.json and merges.txt, or tokenizer.json"),
        ({"merges__txt": None}, r"readable file .*merges.txt"),
        ({"vocab__json": '{"a": 0, '}, "JSON in .*vocab.json"),
        ({"vocab__json": "[" * 100_000}, "JSON in .*vocab.json"),
        ({"vocab__json": b"\xff\xfe"}, "UTF-8"),
        ({"vocab__json": []}, "JSON object in .*vocab.json, got list"),
        ({"vocab__json": {}}, "token: id in vocab.json"),
        ({"vocab__json": {"a": -1}}, r"token id in \[0, 2\*\*31\)"),
        ({"vocab__json": {"a": True}}, "token id"),
        ({"vocab__json": {"a": 1, "b": 1}}, "one token per id"),
        (
            {"vocab__json": {"c": 0, "a": 1, "ca": 2, "t</w>": 3, "cat</w>": 4, END: 5}},
            r"bos_token '<\|startoftext",
        ),
        ({"merges__txt": "#version: 0.2\nc a t\n"}, "merges.txt, line 2"),
        ({"merges__txt": "#version: 0.2\nc a\nca\n"}, "merges.txt, line 3"),
        ({"merges__txt": "#version: 0.2\nz z\n"}, "merges of tokens in the vocabulary"),
        ({"tokenizer_config__json": {"pad_token": "<pad>"}}, "pad_token '<pad>'"),
        ({"tokenizer_config__json": {"pad_token": 7}}, "pad_token, got 7"),
        ({"tokenizer_config__json": {"pad_token": {"content": "!", "lstrip": "no"}}}, "pad_token"),
        ({"tokenizer_config__json": {"padding_side": "left"}}, "padding_side 'right'"),
        ({"tokenizer_config__json": {"model_max_length": 1}}, "model_max_length of at least 2"),
        ({"tokenizer_config__json": {"model_max_length": "77"}}, "model_max_length"),
        ({"tokenizer_config__json": {"added_tokens_decoder": []}}, "added_tokens_decoder"),
        ({"tokenizer_config__json": {"added_tokens_decoder": {"9": "<style>"}}}, "added token '<style>'"),
        ({"added_tokens__json": {"<style>": 49408}}, "added token '<style>'"),
        ({"special_tokens_map__json": "null"}, "JSON object in .*special_tokens_map.json"),
        ({"vocab__json": None, "tokenizer__json": {"model": {"type": "Unigram"}}}, "BPE"),
        (
            {"vocab__json": None, "tokenizer__json": {"model": {"type": "BPE", "vocab": {"a": 0}}}},
            "list of merges",
        ),
        ({"tokenizer__json": {"added_tokens": 3}}, "list of added tokens"),
    ],
)
def test_malformed_folders_are_refused(tmp_path: Path, replaced: dict, said: str) -> None:
    with pytest.raises(TokenizerError, match=said):
        ClipTokenizer.from_folder(write(tmp_path, **replaced))


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no such folder"):
        ClipTokenizer.from_folder(tmp_path / "nowhere")


def test_files_are_measured_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 100)
    with pytest.raises(TokenizerError, match=r"at most 100 bytes in .*vocab.json"):
        ClipTokenizer.from_folder(write(tmp_path))


def test_the_readme_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    block = tmp_path / "readme.py"
    block.write_text(readme.split("```python\n")[1].split("```")[0])
    runpy.run_path(str(block))
    assert capsys.readouterr().out == "(190, 189, 105, 189, 105)\nCAT, cat\n"


def test_a_window_of_another_length(tokenizer: ClipTokenizer) -> None:
    cat = tokenizer.encode("cat").ids[1]
    assert tokenizer.encode("cat cat", length=3) == Tokens((tokenizer.bos_id, cat, tokenizer.eos_id), "cat")
    longer = tokenizer.encode("cat", length=11)
    assert longer.ids == (*tokenizer.encode("cat").ids, *[tokenizer.pad_id] * 3)
    assert tokenizer.encode("cat", length=2).truncated == "cat"
    with pytest.raises(TokenizerError, match="length of at least 2"):
        tokenizer.encode("cat", length=1)


@given(st.text("abct ,'1", max_size=60), st.integers(1, 4), st.integers(3, 12))
def test_windows_hold_the_whole_prompt_in_order(
    tokenizer: ClipTokenizer, text: str, count: int, length: int
) -> None:
    windows = tokenizer.windows(text, count=count, length=length)
    assert [len(window.ids) for window in windows] == [length] * count
    assert all(window.truncated == "" for window in windows[:-1])
    room = length - 2
    whole = tokenizer.encode(text, length=count * room + 2)
    ends = [window.ids.index(tokenizer.eos_id) for window in windows]
    content = [token for window, end in zip(windows, ends, strict=True) for token in window.ids[1:end]]
    assert tuple(content) == whole.ids[1 : 1 + len(content)]
    assert windows[-1].truncated == whole.truncated
    filled = [end - 1 for end in ends]
    assert all(after == 0 or before == room for before, after in itertools.pairwise(filled))


@pytest.mark.parametrize("way", ["encode", "windows", "weighted_windows"])
def test_what_one_thread_reads_all_read(way: str, tmp_path: Path) -> None:
    """One tokenizer, in its first use: prompts of other lengths, truncation and weights at once."""
    prompts = [f"{'cat ' * count}, (cat:1.{count}) ca{count}" for count in range(16)]

    def read(tokenizer: ClipTokenizer, prompt: str) -> object:
        return (
            tokenizer.encode(prompt) if way == "encode" else list(getattr(tokenizer, way)(prompt, count=30))
        )

    expected = [read(ClipTokenizer.from_folder(write(tmp_path)), prompt) for prompt in prompts]
    assert len(set(map(repr, expected))) == len(prompts)
    shared, barrier = ClipTokenizer.from_folder(tmp_path), threading.Barrier(16)
    with ThreadPoolExecutor(16, initializer=barrier.wait) as pool:
        assert list(pool.map(lambda prompt: read(shared, prompt), prompts * 8)) == expected * 8

"""Prompt weights against a transcription of the web UI's own code."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_tokenize import ClipTokenizer, Part, TokenizerError, parse_emphasis

re_attention = re.compile(
    r"\\\(|\\\)|\\\[|\\]|\\\\|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|]|[^\\()\[\]:]+|:", re.X
)
re_break = re.compile(r"\s*\bBREAK\b\s*", re.S)


def parse_prompt_attention(text: str) -> list[list]:
    """modules/prompt_parser.py of AUTOMATIC1111/stable-diffusion-webui."""
    res: list[list] = []
    round_brackets: list[int] = []
    square_brackets: list[int] = []

    def multiply_range(start_position: int, multiplier: float) -> None:
        for p in range(start_position, len(res)):
            res[p][1] *= multiplier

    for m in re_attention.finditer(text):
        text, weight = m.group(0), m.group(1)
        if text.startswith("\\"):
            res.append([text[1:], 1.0])
        elif text == "(":
            round_brackets.append(len(res))
        elif text == "[":
            square_brackets.append(len(res))
        elif weight is not None and round_brackets:
            multiply_range(round_brackets.pop(), float(weight))
        elif text == ")" and round_brackets:
            multiply_range(round_brackets.pop(), 1.1)
        elif text == "]" and square_brackets:
            multiply_range(square_brackets.pop(), 1 / 1.1)
        else:
            for i, part in enumerate(re.split(re_break, text)):
                if i > 0:
                    res.append(["BREAK", -1])
                res.append([part, 1.0])
    for pos in round_brackets:
        multiply_range(pos, 1.1)
    for pos in square_brackets:
        multiply_range(pos, 1 / 1.1)
    if len(res) == 0:
        res = [["", 1.0]]
    i = 0
    while i + 1 < len(res):
        if res[i][1] == res[i + 1][1]:
            res[i][0] += res[i + 1][0]
            res.pop(i + 1)
        else:
            i += 1
    return res


def tokenize_line(parsed: list[list], encode, comma: int, room: int) -> list[list[tuple[int, float]]]:
    """``tokenize_line`` of modules/sd_hijack_clip.py, chunks not padded."""
    chunks: list[list[tuple[int, float]]] = []
    chunk: list[tuple[int, float]] = []
    last_comma = -1
    for text, weight in parsed:
        if text == "BREAK" and weight == -1:
            chunks.append(chunk)
            chunk, last_comma = [], -1
            continue
        for token in encode(text):
            if token == comma:
                last_comma = len(chunk)
            elif len(chunk) == room and last_comma != -1 and len(chunk) - last_comma <= 20:
                location = last_comma + 1
                chunks.append(chunk[:location])
                chunk, last_comma = chunk[location:], -1
            if len(chunk) == room:
                chunks.append(chunk)
                chunk, last_comma = [], -1
            chunk.append((token, weight))
    if chunk or not chunks:
        chunks.append(chunk)
    return chunks


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ClipTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = "abcdefghijklmnopqrstuvwxyz,:.()[]\\0123456789"
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return ClipTokenizer.from_folder(folder)


words = st.lists(
    st.sampled_from(["cat", "a ", ", ", "(", ")", "[", "]", ":1.3)", ":.5 )", ":", "\\(", "\\", "x", " "])
).map("".join)


@given(words)
def test_weights_are_those_of_the_web_ui(text: str) -> None:
    assert [[part.text, part.weight] for part in parse_emphasis(text)] == parse_prompt_attention(text)


@given(st.lists(words, min_size=1, max_size=4), st.integers(4, 30))
def test_windows_are_filled_as_the_web_ui_fills_them(
    tokenizer: ClipTokenizer, texts: list[str], room: int
) -> None:
    # Brackets around a BREAK weigh it in the web UI, which takes it for a word then.
    whole = " BREAK ".join(text.translate(str.maketrans("", "", "()[]\\")) + "(b:1.5)" for text in texts)

    def encode(text: str) -> list[int]:
        ids = tokenizer.encode(text, length=500).ids
        return list(ids[1 : ids.index(tokenizer.eos_id)])

    comma = encode(",")[0]
    expected = tokenize_line(parse_prompt_attention(whole), encode, comma, room)
    windows = tokenizer.weighted_windows(whole, count=len(expected) + 1, length=room + 2)
    assert [window.truncated for window in windows] == [""] * len(windows)
    for chunk, window in zip([*expected, []], windows, strict=True):
        rest = room - len(chunk)
        assert window.ids[1 : len(chunk) + 2] == (*(token for token, _ in chunk), tokenizer.eos_id)
        assert window.weights == (1.0, *(weight for _, weight in chunk), *[1.0] * (rest + 1))


def test_what_finds_no_window_is_cut_or_refused(tokenizer: ClipTokenizer) -> None:
    (window,) = tokenizer.weighted_windows("(a b:2) c (d", count=1, length=5)
    assert window.weights == (1.0, 2.0, 2.0, 1.0, 1.0)
    assert window.truncated == "d"
    (kept,) = tokenizer.weighted_windows("a BREAK", count=1, length=5)
    assert kept.ids[1:3] == (tokenizer.encode("a").ids[1], tokenizer.eos_id)
    with pytest.raises(TokenizerError, match=r"for 1 window.*BREAK before window 2"):
        tokenizer.weighted_windows("a BREAK b", count=1, length=5)
    assert tokenizer.weighted_windows("a BREAK b", count=2, length=5)[1].ids[1:3] == (
        tokenizer.encode("b").ids[1],
        tokenizer.eos_id,
    )
    with pytest.raises(TokenizerError, match=r"expected a number as the weight.*'1.2.3'"):
        parse_emphasis("(cat:1.2.3)")


def test_a_break_in_brackets_is_one() -> None:
    assert [part.breaks for part in parse_emphasis("(a BREAK b)")] == [False, True]
    assert parse_emphasis("a BREAK b")[1] == Part("b", 1.0, breaks=True)

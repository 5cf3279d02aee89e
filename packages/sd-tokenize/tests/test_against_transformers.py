"""Ids are transformers': recorded ones, and those of the transformers installed here.

The tokenizer is CLIP's in miniature, written by :func:`write_tokenizer`: the byte alphabet, a few merges, and
the special tokens as three generations of checkpoints declare them. Run this file as a script to record the
fixture anew (needs transformers).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_tokenize import ClipTokenizer

FIXTURE = Path(__file__).parent / "fixtures" / "transformers_ids.json"
REFERENCE = Path(__file__).parents[4] / "shared" / "reference"
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_alphabet() -> list[str]:
    """OpenAI's: printable bytes stand for themselves, "!" first; the others follow from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]


MERGES = [
    *("c a", "ca t</w>", "t h", "th e</w>", "a n", "an d</w>", "o n", "i n", "in g</w>", "d o", "do g</w>"),
    *("r e", "re d</w>", "a a", "aa aa", "l l</w>", "' s</w>", "! !</w>", ", ,</w>", "Ã ©</w>", "ð Ł"),
    *("ðŁ ĺ", "f e</w>", "m a", "ma s", "1 9</w>", "s t", "e r"),
]
TOKENS = [
    *byte_alphabet(),
    *(letter + "</w>" for letter in byte_alphabet()),
    *(merge.replace(" ", "") for merge in MERGES),
    START,
    END,
]
#: How SD 1.x, SD 2.x (no added_tokens_decoder: special_tokens_map.json wins) and SDXL declare the padding.
FLAGS = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
ENDS = {"bos_token": {"content": START, **FLAGS}, "eos_token": {"content": END, **FLAGS}}
CONFIGS = {
    "sd1": ({"model_max_length": 77, "pad_token": END}, {**ENDS, "pad_token": END}),
    "sd2": (
        {
            "model_max_length": 77,
            "pad_token": END,
            "unk_token": {"__type": "AddedToken", **ENDS["eos_token"]},
        },
        {**ENDS, "pad_token": "!"},
    ),
    "sdxl": (
        {
            "model_max_length": 77,
            "pad_token": "!",
            "added_tokens_decoder": {
                "0": {"content": "!", **FLAGS, "normalized": False, "special": True},
                str(TOKENS.index(START)): {**ENDS["bos_token"], "special": True},
                str(TOKENS.index(END)): {**ENDS["eos_token"], "special": True},
            },
        },
        {"pad_token": END},
    ),
}


def fast(transformers):
    """Before release 5, CLIPTokenizer was the slow one, which without ftfy splits words otherwise."""
    return getattr(transformers, "CLIPTokenizerFast", transformers.CLIPTokenizer)


TEXTS = [
    "",
    " ",
    "a cat",
    "A CAT AND the Dog",
    "masterpiece,best quality, cat,,dog",
    "don't I'LL we've it's 'S 'd'm",
    "1980s 19 90 4k ½ ² Ⅷ १२३",
    "café cafe\u0301 naïve Ångström",
    "aaaaaaaaaaaaaaa",
    "日本語 東京 한국어 русский العربية",
    "😀 👩‍👩‍👧 🐈‍⬛ ☃️",
    "tab\there\nline\r\nfeed\x0b\x0cvertical",
    "control\x00\x07\x1f\x7f\ufffd",
    "no\u00a0break\u3000ideographic\u200bzero\u2028line",
    "İstanbul ǅ ß ẞ ﬁ ſ Σς",
    "! !! a!b wow!",
    f"a {END} b {START}",
    f"{START.upper()}",
    "<|x|> (red:1.2) [dog] {cat|dog} <lora:x:1>",
    "\U0001f600\u0301\u0300 e\u0323\u0302",
    "supercalifragilistic" * 12,
    "the red dog and the cat, " * 12,
    "😀" * 40,
    "a" * 5000,
]


def write_tokenizer(folder: Path, kind: str, *, as_json: bool = False) -> Path:
    vocabulary = {token: index for index, token in enumerate(TOKENS)}
    config, special = CONFIGS[kind]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    if as_json:
        model = {"type": "BPE", "vocab": vocabulary, "merges": MERGES}
        (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
    else:
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=[*CONFIGS, "tiny-sd/tokenizer", "tiny-sdxl/tokenizer_2"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    transformers = pytest.importorskip("transformers")
    if request.param in CONFIGS:
        path = write_tokenizer(tmp_path_factory.mktemp("both"), request.param)
    elif (REFERENCE / request.param).is_dir():
        path = REFERENCE / request.param
    else:
        pytest.skip("no reference checkpoints beside this repository")
    return ClipTokenizer.from_folder(path), fast(transformers).from_pretrained(str(path))


def their_ids(tokenizer: object, text: str) -> list[int]:
    return tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids


@pytest.mark.parametrize("kind", CONFIGS)
def test_ids_are_those_recorded_from_transformers(kind: str, tmp_path: Path) -> None:
    tokenizer = ClipTokenizer.from_folder(write_tokenizer(tmp_path, kind))
    for case in json.loads(FIXTURE.read_text()):
        padding = [tokenizer.pad_id] * (77 - len(case[kind]))
        assert list(tokenizer.encode(case["text"]).ids) == case[kind] + padding, case["text"]


def test_padding_is_each_generations_own(tmp_path: Path) -> None:
    pads = {}
    for kind in CONFIGS:
        tokenizer = ClipTokenizer.from_folder(write_tokenizer(tmp_path, kind))
        pads[kind] = tokenizer.pad_id
        assert tokenizer.encode("cat").ids[3:] == (tokenizer.pad_id,) * 74
    assert pads == {"sd1": tokenizer.eos_id, "sd2": 0, "sdxl": 0}


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:20]))
def test_ids_are_those_of_the_transformers_installed_here(both: tuple, text: str) -> None:
    assert list(both[0].encode(text).ids) == their_ids(both[1], text)


#: Characters at which the rules meet: apostrophes, digits, spaces, marks, case, special tokens.
CORNERS = st.lists(
    st.sampled_from([*"aA'st!1,² \t\u0301é日😀İ", "<|", "|>", "endoftext", END, START, "\u200d"])
)


@given(text=st.one_of(st.text(), CORNERS.map("".join)))
@settings(max_examples=300, deadline=None)
def test_any_text_has_the_ids_of_transformers(both: tuple, text: str) -> None:
    assert list(both[0].encode(text).ids) == their_ids(both[1], text)


def test_tokenizer_json_alone_gives_the_same_ids(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    pair = ClipTokenizer.from_folder(write_tokenizer(tmp_path / "a", "sd1"))
    single = ClipTokenizer.from_folder(write_tokenizer(tmp_path / "b", "sd1", as_json=True))
    for text in TEXTS:
        assert pair.encode(text) == single.encode(text)


def test_ids_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "sd1")
    program = (
        "import sys; from sd_tokenize import ClipTokenizer\n"
        "print(ClipTokenizer.from_folder(sys.argv[1]).encode('aaaaaaaaa aaaaaaa').ids)"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2", "3")
    }
    assert printed == {f"{ClipTokenizer.from_folder(tmp_path).encode('aaaaaaaaa aaaaaaa').ids}\n"}


def record() -> None:
    from transformers import CLIPTokenizer

    entries = [{"text": text} for text in TEXTS]
    for kind in CONFIGS:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = CLIPTokenizer.from_pretrained(str(write_tokenizer(Path(folder), kind)))
            for entry in entries:
                entry[kind] = tokenizer(entry["text"], max_length=77, truncation=True).input_ids
    FIXTURE.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    record()

"""Names, prompts and encodings that come from outside are printed as they are, and never stop a command."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sd_mil import (
    Block,
    Description,
    Function,
    Operation,
    Port,
    Program,
    Reference,
    TensorType,
    Variable,
    write_package,
)
from sdc.console import console, progress, styled, table

NAMES = [
    "cat [final].png",
    "a[/b].png".replace("/", "x"),
    ":smile:.png",
    "[bold]x[red].png",
    "[@click=f].png",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_reported_under_its_name(sdc, converted, tmp_path, name):
    done = sdc(
        "generate",
        "a [/red] :cat: circle",
        "-i",
        converted,
        "-o",
        tmp_path / name,
        "--num-inference-steps",
        1,
    )
    assert done.status == 0, done.err
    assert f"wrote {tmp_path / name} (seed 93)" in done.out
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_folder_that_looks_like_a_closing_tag(sdc, converted, tmp_path):
    folder = tmp_path / "a["
    folder.mkdir()
    done = sdc("generate", "a circle", "-i", converted, "-o", folder / "b].png", "--num-inference-steps", 1)
    assert done.status == 0, done.err
    assert f"{folder / 'b].png'} (seed 93)" in done.out


def test_a_name_of_255_bytes(sdc, converted, tmp_path):
    name = "p" * 251 + ".png"
    done = sdc("generate", "a circle", "-i", converted, "-o", tmp_path / name, "--num-inference-steps", 1)
    assert done.status == 0, done.err
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_seeds_past_the_last_are_refused_before_the_first(sdc, converted, tmp_path):
    arguments = ("--seed", 2**32 - 1, "--image-count", 2, "--num-inference-steps", 1)
    done = sdc("generate", "a circle", "-i", converted, "-o", tmp_path / "p.png", *arguments)
    assert done.status != 0
    assert "4294967295" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii"])
def test_narrow_encodings(converted, encoding):
    """As standard output is when it is redirected on Windows."""
    program = Path(sys.executable).parent / "sdc"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([program, "inspect", converted], env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"noise_pred" in done.stdout


#: Erase the screen, retitle the window, go back to the start of the line, turn the direction of writing.
HOSTILE = "[bold]a\x1b[2J\x1b]0;title\x07\rb\x9b31mc\u202ed\x7f:cat:"
SHOWN = r"[bold]a\x1b[2J\x1b]0;title\x07\rb\x9b31mc\u202ed\x7f:cat:"
ACTED_ON = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile(tmp_path):
    """A model of a stranger: names of ports, functions and operations, and metadata."""
    kind = TensorType("fp32", (2,))
    operation = Operation(HOSTILE, "y", {"x": (Reference(HOSTILE),)}, (Variable(f"y{HOSTILE}", kind),))
    block = Block((Variable(HOSTILE, kind),), (operation,), (f"y{HOSTILE}",))
    description = Description(
        (Port(HOSTILE, (2,), "float32", description=HOSTILE),),
        (Port(f"y{HOSTILE}", (2,), "float32"),),
        author=HOSTILE,
        user_defined={HOSTILE: HOSTILE},
    )
    program = Program({"main": Function("main", "CoreML7", block)}, "main")
    return write_package(tmp_path / "m.mlpackage", program, description).path


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect",),
        ("inspect", "--json"),
        ("run",),
        ("run", "--input", f"{HOSTILE}=1"),
        ("--traceback", "run"),
    ],
)
def test_nothing_of_a_model_reaches_the_terminal_as_a_command(sdc, hostile, arguments):
    done = sdc(*arguments, hostile)
    assert not ACTED_ON.search(done.out + done.err)
    if arguments == ("inspect",):
        assert f"→ {SHOWN}" in done.out
        assert f"{SHOWN}: {SHOWN}" in done.out
    if arguments == ("inspect", "--json"):
        assert json.loads(done.out)["inputs"][0]["name"] == HOSTILE


def test_what_the_user_names_is_printed_too(sdc, tmp_path):
    name = HOSTILE.replace("/", "")
    for command in ("inspect", "run", "verify"):
        done = sdc(command, tmp_path / name, *(["--against", tmp_path] if command == "verify" else []))
        assert done.status != 0
        assert not ACTED_ON.search(done.out + done.err)
        assert r"\x1b[2J" in done.err


def test_a_bar_and_a_table(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    rows = table(HOSTILE, title=HOSTILE)
    rows.add_row(HOSTILE)
    console().print(rows)
    console().print(styled(HOSTILE, "bold") + HOSTILE)
    with progress() as bar:
        bar.add_task(HOSTILE)
        bar.refresh()
    captured = capsys.readouterr()
    ours = re.compile(r"\x1b\[(\?25[lh]|[0-9;]*[mAKHG]|2K|1A)|\r")  # what rich itself sends
    for text in (captured.out, captured.err):
        assert not ACTED_ON.search(ours.sub("", text))
        assert "\x1b[2J" not in text
    assert captured.out.count(SHOWN) >= 4
    assert r"[bold]a\x1b[2J" in captured.err  # in columns, so not all of it


def test_a_line_feed_in_a_name_makes_no_second_row(capsys):
    rows = table("name", "dB")
    rows.add_row("unet\nvae_decoder   100.0", "3.0")
    console().print(rows)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "vae_decoder" in line]
    assert line.split() == [r"unet\nvae_decoder", "100.0", "3.0"]

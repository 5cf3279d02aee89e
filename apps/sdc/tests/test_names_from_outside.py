"""Names, prompts and encodings that come from outside are printed as they are, and never stop a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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

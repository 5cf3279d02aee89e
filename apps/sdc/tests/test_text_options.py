"""Textual inversions and the layer to read, by the command line, with the demo bundle as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from sd_runtime import read_settings
from sdc.text_options import files_by_name


def test_a_picture_with_both_and_its_settings_again(sdc: Any, converted: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    from sd_bundle import open_bundle

    encoder = open_bundle(converted).only("text_encoder")
    width = next(port.shape[-1] for port in encoder.outputs if port.name == "last_hidden_state")
    vectors = np.random.default_rng(3).normal(size=(2, width)).astype(np.float16)
    safetensors.save_file({"emb_params": vectors}, tmp_path / "style.safetensors")
    output = tmp_path / "out"
    output.mkdir()
    shared = ("-i", converted, "--num-inference-steps", 1, "--engine", "portable")
    changed = ("--embedding", f"qstyle={tmp_path / 'style.safetensors'}", "--clip-skip", 2)
    done = sdc("generate", "a qstyle circle", "-o", output / "a.png", *shared, *changed)
    assert done.status == 0, done.err
    settings = read_settings(output / "a.png")
    assert settings.clip_skip == 2
    assert [each.name for each in settings.embeddings or ()] == ["qstyle"]
    done = sdc("generate", "--like", output / "a.png", "-o", output / "b.png", *shared)
    assert done.status == 1
    assert "opened with the embedding 'qstyle'" in done.err
    done = sdc("generate", "--like", output / "a.png", "-o", output / "b.png", *shared, *changed[:2])
    assert done.status == 0, done.err
    assert read_settings(output / "b.png") == settings
    (output / "b.png").unlink()

    safetensors.save_file({"emb_params": vectors[:, 1:]}, tmp_path / "narrow.safetensors")
    (tmp_path / "style.pt").write_bytes(b"PK\3\4")
    for file, said in (
        ("narrow.safetensors", f"vectors of {width} numbers for text_encoder"),
        ("style.pt", "a .pt or .bin holds code"),
        ("none.safetensors", "got No such file"),
    ):
        done = sdc("generate", "a", "-o", output / "b.png", *shared, "--embedding", f"q={tmp_path / file}")
        assert done.status == 1
        assert said in done.err, done.err
    done = sdc("generate", "a", "-o", output / "b.png", *shared, "--clip-skip", 99)
    assert done.status == 1
    assert "layers to leave out" in done.err
    assert [path.name for path in output.iterdir()] == ["a.png"]


def test_names_of_embeddings() -> None:
    found = files_by_name(["a=b/c.safetensors", "d/e.safetensors"])
    assert found == {"a": Path("b/c.safetensors"), "e": Path("d/e.safetensors")}
    with pytest.raises(click.BadParameter, match="once"):
        files_by_name(["a=b", "a=c"])

"""Files that a bundle only copies are read before, and are the checkpoint's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sd_convert import (
    CheckpointError,
    ConversionOptions,
    IncompleteCheckpointError,
    convert,
    open_checkpoint,
)

OPTIONS = ConversionOptions(components=("text_encoder",))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def not_text(file: Path) -> None:
    file.write_bytes(b"#version: 0.2\n\xff\xfe a\n")


@pytest.mark.parametrize(
    ("name", "damage"),
    [("vocab.json", Path.unlink), ("vocab.json", cut), ("merges.txt", not_text), ("merges.txt", Path.unlink)],
)
def test_a_download_that_broke_off(
    name: str, damage: Callable[[Path], None], tiny: Path, tmp_path: Path
) -> None:
    damage(tiny / "tokenizer" / name)
    with pytest.raises(IncompleteCheckpointError, match="tokenizer"):
        convert(open_checkpoint(tiny), tmp_path / "bundle", OPTIONS)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["tokenizer/special_tokens_map.json", "scheduler/scheduler_config.json"])
def test_a_link_out_of_the_checkpoint(name: str, tiny: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"unk_token": "<|endoftext|>"}' if "tokenizer" in name else (tiny / name).read_text())
    (tiny / name).unlink(missing_ok=True)
    (tiny / name).symlink_to(secret)
    with pytest.raises(CheckpointError, match="a link that leads out"):
        convert(open_checkpoint(tiny), tmp_path / "bundle", OPTIONS)
    assert not (tmp_path / "bundle").exists()


def test_links_as_the_hub_has_them(tiny: Path, tmp_path: Path) -> None:
    """``snapshots/REVISION/tokenizer/vocab.json`` leads to ``blobs/HASH``."""
    snapshot, blobs = tmp_path / "models--a--b/snapshots/0123", tmp_path / "models--a--b/blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(path for path in sorted(tiny.rglob("*")) if path.is_file()):
        place = snapshot / file.relative_to(tiny)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(file, blobs / f"{number:x}")
        place.symlink_to(os.path.relpath(blobs / f"{number:x}", place.parent))
    convert(open_checkpoint(snapshot), tmp_path / "bundle", OPTIONS)
    assert not (tmp_path / "bundle/tokenizer/vocab.json").is_symlink()

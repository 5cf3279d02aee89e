"""What a manifest promises of a bundle's files is held, and costs nearly nothing the second time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sd_bundle import hashes
from sd_runtime import Bundle, IntegrityError, Pipeline, open_bundle


@pytest.fixture
def home(toy_bundle: Callable[..., Bundle]) -> Path:
    return toy_bundle().path


@pytest.fixture
def use(toy_networks: Any) -> Callable[[Path], None]:
    """Read all of a bundle, as drawing does."""

    def read(path: Path) -> None:
        bundle = open_bundle(path)
        for component in bundle.manifest.components:
            bundle.package(component)
        Pipeline(bundle, toy_networks.open).generate("ab", num_inference_steps=1)

    return read


def flipped(file: Path) -> None:
    """One bit of a file, in the middle; its size and its time stay."""
    status, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("pattern", ["*unet*/Manifest.json", "scheduler/*", "tokenizer/*"])
def test_one_bit(use: Callable[[Path], None], home: Path, pattern: str) -> None:
    flipped(next(file for file in sorted(home.glob(pattern)) if file.is_file()))
    with pytest.raises(IntegrityError, match="sha256"):
        use(home)


def test_one_bit_of_a_bundle_that_was_good(use: Callable[[Path], None], home: Path) -> None:
    """What is remembered of a file is not believed of another one in its place, however alike they look."""
    use(home)
    flipped(next(iter(sorted(home.glob("scheduler/*.json")))))
    with pytest.raises(IntegrityError, match="sha256"):
        use(home)


def test_a_file_is_read_once(
    use: Callable[[Path], None], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    original = hashes._hash
    monkeypatch.setattr(hashes, "_hash", lambda file, spans: (read.append(file), original(file, spans))[1])
    use(home)
    assert read
    read.clear()
    use(home)
    assert read == []

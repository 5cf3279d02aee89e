"""Digests of weights: equal for equal weights, another for any change, and no file read twice."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sd_bundle import FileHashes
from sd_convert.checkpoint.digest import digest
from sd_convert.checkpoint.weights import LazyWeights, open_weights


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16)}, path)
    return path


def test_the_hash_of_a_file_is_its_sha256(file: Path) -> None:
    assert FileHashes()(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_of_a_file_only_the_spans_that_are_asked_for(file: Path) -> None:
    content, spans = file.read_bytes(), ((3, 9), (20, 21))
    expected = hashlib.sha256(content[3:9] + content[20:21]).hexdigest()
    assert FileHashes()(file, spans) == expected
    hashes = FileHashes()
    assert hashes(file) != hashes(file, spans) == expected


def test_what_other_networks_have_in_the_same_file_is_not_read(file: Path) -> None:
    """Of a single file of gigabytes, one part."""
    entries = open_weights([file]).entries
    parts = [LazyWeights({name: entry}) for name, entry in entries.items()]
    before = [digest(part) for part in parts]
    content = bytearray(file.read_bytes())
    content[entries["b"].start] ^= 1
    file.write_bytes(content)
    assert [digest(part) == was for part, was in zip(parts, before, strict=True)] == [
        name != "b" for name in entries
    ]
    asked: list[tuple[int, int]] = []

    class Watching(FileHashes):
        def __call__(self, file: Path, spans: tuple[tuple[int, int], ...] = ()) -> str:
            asked.extend(spans)
            return super().__call__(file, spans)

    entry = entries["a"]
    digest(LazyWeights({"first": entry.part(0, 2), "second": entry.part(1, 2)}), Watching())
    assert asked == [(entry.start, entry.stop)]


def test_a_copy_elsewhere_has_the_same_digest(file: Path) -> None:
    before = digest(open_weights([file]))
    assert digest(open_weights([file.rename(file.with_name("b.safetensors"))])) == before


def test_another_value_name_or_shape_is_another_digest(file: Path) -> None:
    weights = open_weights([file])
    entry = weights.entries["a"]
    digests = {
        digest(weights),
        digest(LazyWeights({"a": entry})),
        digest(LazyWeights({"c": entry})),
        digest(LazyWeights({"a": entry.reshaped((3, 2))})),
        digest(LazyWeights({"a": entry.turned()})),
        digest(LazyWeights({"a": entry.part(0, 2)})),
    }
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert digest(open_weights([file])) not in digests
    assert len(digests) == 6


def test_a_remembered_file_is_not_read_again_until_it_changes(file: Path, tmp_path: Path) -> None:
    memory = tmp_path / "cache" / "hashes.json"
    first = FileHashes(memory)(file)
    status = file.stat()
    assert FileHashes(memory)(file) == first
    memory.write_text(memory.read_text().replace(first, "remembered"))
    assert FileHashes(memory)(file) == "remembered"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # who sets the time back changes the change's
    assert FileHashes(memory)(file) == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "[" * 100_000])
def test_a_damaged_memory_is_as_good_as_none(content: str, file: Path, tmp_path: Path) -> None:
    memory = tmp_path / "hashes.json"
    memory.write_text(content)
    assert FileHashes(memory)(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_memory_that_cannot_be_written_is_no_error(file: Path) -> None:
    assert FileHashes(file / "below" / "a" / "file")(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_parts_and_turned_tensors(file: Path) -> None:
    weights = open_weights([file])
    array, entry = weights["a"], weights.entries["a"]
    np.testing.assert_array_equal(entry.turned().read(), array.T)
    np.testing.assert_array_equal(entry.turned().turned().read(), array)
    np.testing.assert_array_equal(entry.part(1, 2).read(), array[1:])
    np.testing.assert_array_equal(entry.reshaped((6,)).read(), array.reshape(6))

"""Files of any size: what is read into memory has a bound, and what is large and sound is read."""

import json
import os
import shutil
import tracemalloc

import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import PackageError, UnsupportedModelError, read_model
from sd_mil.format.encoding import varint

GIB = 1 << 30


def sparse(path, size, head=b""):
    """A file of so many bytes, of which the disk holds the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head)
    os.truncate(path, size)
    return path


def peak(action):
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(path, match, kind=PackageError):
    def read():
        with pytest.raises(kind, match=match):
            read_model(path)

    assert peak(read) < 1 << 20


@pytest.mark.parametrize(
    "head", [b"", b"\x08\x07", b"\x08\x07\x12\x00"], ids=["zeros", "version", "description"]
)
def test_a_bare_model_larger_than_protobuf_reads(tmp_path, head):
    refused(sparse(tmp_path / "model.mlmodel", 6 * GIB, head), "at most 2147483647 bytes|zeros")


@pytest.mark.parametrize("name", ["Manifest.json", "Data/com.apple.CoreML/model.mlmodel"])
def test_parts_of_a_package(tmp_path, name):
    package = graphs.write(tmp_path)
    content = (package / name).read_bytes()
    sparse(package / name, 6 * GIB, content)
    refused(package, f"at most .* bytes in {name.split('/')[-1]}")


@pytest.mark.parametrize(
    ("name", "head"), [("model.mil", b"program(1.0)\n"), ("coremldata.bin", b"\x01" * 36)]
)
def test_parts_of_a_compiled_model(tmp_path, name, head):
    folder = tmp_path / "model.mlmodelc"
    description = bytes(28) + (7).to_bytes(8, "little") + b"generic" + (7).to_bytes(8, "little") + bytes(32)
    sparse(folder / "coremldata.bin", len(description), b"\x01" + description[1:])
    sparse(folder / name, 6 * GIB, head)
    refused(folder, f"at most .* bytes in {name}")


def test_a_large_neural_network_is_called_by_its_name(tmp_path):
    """Old models hold their weights inside: gigabytes are no reason to say anything else."""
    size = GIB
    head = b"\x08\x01\x12\x00" + varint(500 << 3 | 2) + varint(size)
    refused(
        sparse(tmp_path / "old.mlmodel", len(head) + size, head), "a neural network", UnsupportedModelError
    )


def test_large_models_are_mapped_and_read_the_same(tmp_path, monkeypatch):
    package = graphs.write(tmp_path)
    whole = read_model(package)
    monkeypatch.setattr("sd_mil.format.files._READ_WHOLE_BYTES", 10)
    mapped = read_model(package)
    assert mapped.description == whole.description
    for one, other in zip(mapped.program.operations(), whole.program.operations(), strict=True):
        assert (one.name, one.outputs) == (other.name, other.outputs)
        for key, value in one.attributes.items():
            np.testing.assert_array_equal(value.value, other.attributes[key].value)


@pytest.mark.parametrize("raised", [MemoryError, RecursionError])
def test_what_does_not_fit_is_typed(tmp_path, monkeypatch, raised):
    def read(*_):
        raise raised

    monkeypatch.setattr("sd_mil.format.package.read_specification", read)
    with pytest.raises(PackageError, match=r"too much (memory|nesting)"):
        read_model(graphs.write(tmp_path))


def test_a_manifest_nested_too_deep(tmp_path):
    package = graphs.write(tmp_path)
    (package / "Manifest.json").write_text("[" * 200_000)
    with pytest.raises(PackageError, match="expected JSON"):
        read_model(package)


def test_messages_are_one_short_line(tmp_path):
    package = graphs.write(tmp_path)
    manifest = json.loads((package / "Manifest.json").read_text())
    for entry in manifest["itemInfoEntries"].values():
        entry["path"] = "a\n\x1b[31m" + "b" * 10_000
    (package / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PackageError) as caught:
        read_model(package)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000
    shutil.rmtree(package)

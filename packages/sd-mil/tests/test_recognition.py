"""What a file is, told by its first bytes: files that other libraries write, in every place of a model."""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import mil_graphs as graphs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_mil import PackageError, UnsupportedModelError, read_model, recognise_file
from sd_mil.format.recognition import HEAD_BYTES, recognise

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 2132625894\n"
WEIGHTS = {"a": np.arange(3.0), "b": [1, 2]}


def saved(save, *arguments, **options):
    file = io.BytesIO()
    save(file, *arguments, **options)
    return file.getvalue()


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"x" * 100)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("model.mlmodel")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return file.getvalue()


def safetensors():
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + bytes(4)


FILES = {
    "pointer": (POINTER, "pointer", "git lfs pull"),
    "login page": (b"\n<!DOCTYPE html>\n<html><title>Login</title>" + b"x" * 999, "page", "HTML"),
    "page": (b"\xef\xbb\xbf<HTML lang='en'>" + b"x" * 999, "page", "HTML"),
    "error of a bucket": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "document", "XML"),
    "error of a hub": (b'{"error":"Repository not found"}', "text", "Repository not found"),
    "words": (b"Entry not found", "text", "Entry not found"),
    **{f"pickle {n}": (pickle.dumps(WEIGHTS, protocol=n), "pickle", "pickle") for n in (2, 3, 4, 5)},
    "checkpoint": (zipped("archive/data.pkl"), "pickle", "pickle"),
    "zip": (zipped("model.mlpackage/Manifest.json"), "archive", "unpack"),
    "npz": (saved(np.savez, x=np.zeros(2)), "array", "numpy"),
    "npy": (saved(np.save, np.zeros(2)), "array", "npy"),
    "gzip": (gzip.compress(b"x" * 100), "archive", "gzip"),
    "tar": (tarred(), "archive", "tar"),
    "safetensors": (safetensors(), "weights", "safetensors"),
    "zeros": (bytes(4096), "zeros", "zeros"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_recognised(tmp_path, name):
    content, category, word = FILES[name]
    (tmp_path / "file").write_bytes(content)
    kind = recognise_file(tmp_path / "file")
    assert kind.category == category
    assert word in str(kind)


@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints_of_torch(legacy):
    torch = pytest.importorskip("torch")
    content = saved(
        lambda file: torch.save({"a": torch.ones(3)}, file, _use_new_zipfile_serialization=not legacy)
    )
    assert recognise(content[:HEAD_BYTES]).category == "pickle"


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_pictures(format_):
    image = pytest.importorskip("PIL.Image").new("RGB", (3, 2))
    content = saved(lambda file: image.save(file, format_))
    assert recognise(content[:HEAD_BYTES]).category == "picture"


@pytest.mark.parametrize("producer", [b"", b"pytorch", b"skl2onnx"])
def test_onnx(producer):
    """``ModelProto``: ir_version 8, producer_name, producer_version or graph (field 7)."""
    named = b"\x12" + bytes([len(producer)]) + producer + b"\x1a\x032.1" if producer else b""
    content = b"\x08\x08" + named + b"\x3a\x10" + bytes(16) + b"\x42\x04\x0a\x00\x10\x11"
    assert "ONNX" in str(recognise(content))


PLACES = {
    "bare": "bare.mlmodel",
    "model": "Data/com.apple.CoreML/model.mlmodel",
    "weights": "Data/com.apple.CoreML/weights/weight.bin",
    "manifest": "Manifest.json",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["pointer", "login page", "pickle 4", "checkpoint", "zip", "zeros"])
def test_every_reader_says_what_it_found(tmp_path, name, place):
    content, _, word = FILES[name]
    package = graphs.write(tmp_path)
    (package / PLACES[place]).write_bytes(content)
    with pytest.raises(PackageError, match=word) as caught:
        read_model(package / PLACES[place] if place == "bare" else package)
    assert Path(PLACES[place]).name in str(caught.value)


@pytest.mark.parametrize("name", ["coremldata.bin", "model.mil"])
def test_compiled_models_too(tmp_path, name):
    folder = tmp_path / "m.mlmodelc"
    folder.mkdir()
    head = b"\x01" * 28 + (7).to_bytes(8, "little") + b"generic" + (7).to_bytes(8, "little") + bytes(32)
    (folder / "coremldata.bin").write_bytes(head)
    (folder / "model.mil").write_text("program(1.0)\n{}")
    (folder / name).write_bytes(POINTER)
    with pytest.raises((PackageError, UnsupportedModelError), match=f"{name}, got a Git LFS pointer"):
        read_model(folder)


@given(st.integers(0, 2**20), st.binary(max_size=200))
def test_weight_files_are_nothing_else(count, rest):
    assert recognise(struct.pack("<II", count, 2) + bytes(56) + rest) is None


@given(st.integers(1, 12), st.integers(0, 60), st.text(max_size=40))
def test_models_are_nothing_else(version, inputs, text):
    proto = pytest.importorskip("coremltools.proto.Model_pb2")
    model = proto.Model(specificationVersion=version)
    for index in range(inputs):
        model.description.input.add(name=f"{text}{index}").type.multiArrayType.dataType = 65568
    model.description.metadata.shortDescription = text
    model.mlProgram.version = 1
    assert recognise(model.SerializeToString()[:HEAD_BYTES]) is None


def test_converted_packages_are_nothing_else(reference_packages):
    files = [path for path in reference_packages.rglob("*") if path.suffix in (".mlmodel", ".bin")]
    assert files
    assert [recognise_file(path) for path in files] == [None] * len(files)

"""What a file is that is not what its name says, told by its first bytes.

A clone without git-lfs leaves pointers where weights should be, a browser saves the login page under a
model's name, and checkpoints of other frameworks are given to whatever reads checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Category: TypeAlias = Literal[
    "pointer",
    "page",
    "pickle",
    "archive",
    "model",
    "weights",
    "array",
    "picture",
    "document",
    "text",
    "zeros",
]

#: How many bytes :func:`recognise` looks at; a tar archive says what it is at byte 257.
HEAD_BYTES = 512

_AGAIN = "download it again"
_UNPACK = "unpack it, and give what is in it"
_NO_PICKLE = "pickles can run code and are not opened; get the same weights as safetensors"
_AS_INPUT = "give it as an input, not as a model"
_QUOTED = 40


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file, with its article, and what its owner can do."""

    category: Category
    name: str
    advice: str

    def __str__(self) -> str:
        """As error messages say it: ``a Git LFS pointer …: run `git lfs pull` in its repository``."""
        return f"{self.name}: {self.advice}"


def recognise_file(path: str | os.PathLike[str], *, text: bool = False) -> FileKind | None:
    """What a file is, if it is none of Core ML's: see :func:`recognise`.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return recognise(file.read(HEAD_BYTES), text=text)


def recognise(head: bytes, *, text: bool = False) -> FileKind | None:
    """What a file is whose first ``HEAD_BYTES`` bytes these are; ``text`` where plain text was expected.

    None where they say nothing that is known here: a Core ML model, its weights, or any other binary file.
    """
    tellers = _TELLERS if text else (*_TELLERS, _plain_text)
    return next((kind for tell in tellers if (kind := tell(head)) is not None), None)


_LFS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")


def _lfs_pointer(head: bytes) -> FileKind | None:
    if not head.startswith(_LFS):
        return None
    return FileKind(
        "pointer", "a Git LFS pointer, not the file itself", "run `git lfs pull` in its repository"
    )


def _page(head: bytes) -> FileKind | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return FileKind("page", "an HTML page, as a login or an error leaves it", _AGAIN)
    return FileKind("document", "an XML document", _AGAIN) if text.startswith(b"<?xml") else None


def _pickle(head: bytes) -> FileKind | None:
    if len(head) < 3 or head[0] != 0x80 or not 2 <= head[1] <= 5 or head[2] not in b"\x8a\x95}](cX\x8c":
        return None
    return FileKind(
        "pickle",
        "a Python pickle, as old PyTorch checkpoints are",
        _NO_PICKLE,
    )


def _zip(head: bytes) -> FileKind | None:
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None
    if b".npy" in head:
        return FileKind("array", "an .npz archive of numpy arrays", _AS_INPUT)
    if b".pkl" in head:
        return FileKind(
            "pickle",
            "a PyTorch checkpoint (a pickle in a zip archive)",
            _NO_PICKLE,
        )
    return FileKind("archive", "a zip archive (a packed folder, or a PyTorch pickle)", _UNPACK)


def _onnx(head: bytes) -> FileKind | None:
    """``ModelProto`` begins ir_version, producer_name; Core ML's ``Model``, whose field 2 is a message, not.

    Source: onnx/onnx.proto of onnx/onnx. Fields 3 to 8 of its ``ModelProto`` are none of Core ML's.
    """
    if len(head) < 4 or head[0] != 0x08 or head[1] >= 0x80:
        return None
    rest = head[2:]
    if rest[0] == 0x12:
        producer, rest = rest[2 : 2 + rest[1]], rest[2 + rest[1] :]
        if not producer.isascii() or not producer.decode("ascii").isprintable():
            return None
    if not rest or rest[0] not in (0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42):
        return None
    return FileKind("model", "an ONNX model", "convert it to an ML Program first, with coremltools")


def _safetensors(head: bytes) -> FileKind | None:
    if len(head) < 10 or int.from_bytes(head[:8], "little") > 1 << 32 or head[8:9] != b"{":
        return None
    return FileKind("weights", "weights in the safetensors format", "convert the checkpoint that they are of")


def _plain_text(head: bytes) -> FileKind | None:
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        return None
    line = " ".join(text.split())
    if len(line) < 8 or not line.isprintable():
        return None
    return FileKind("text", f"a text that begins {line[:_QUOTED]!r}", _AGAIN)


def _zeros(head: bytes) -> FileKind | None:
    if len(head) < 64 or any(head):
        return None
    return FileKind("zeros", "zeros, as an interrupted download leaves them", _AGAIN)


_MAGIC: tuple[tuple[int, bytes, Category, str, str], ...] = (
    (0, b"\x1f\x8b\x08", "archive", "a gzip archive", _UNPACK),
    (0, b"BZh", "archive", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\0", "archive", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "archive", "a zstd archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "archive", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "archive", "a rar archive", _UNPACK),
    (257, b"ustar\x00", "archive", "a tar archive", _UNPACK),
    (257, b"ustar  \x00", "archive", "a tar archive", _UNPACK),
    (0, b"GGUF", "weights", "weights in the GGUF format", "get the model in Core ML's format"),
    (0, b"\x89HDF\r\n\x1a\n", "weights", "an HDF5 file, as Keras writes them", "convert it with coremltools"),
    (4, b"TFL3", "model", "a TensorFlow Lite model", "get the model in Core ML's format"),
    (0, b"\x93NUMPY", "array", "an .npy file", _AS_INPUT),
    (0, b"\x89PNG\r\n\x1a\n", "picture", "a PNG picture", _AS_INPUT),
    (0, b"\xff\xd8\xff", "picture", "a JPEG picture", _AS_INPUT),
    (0, b"%PDF-", "document", "a PDF document", _AGAIN),
)


def _magic(head: bytes) -> FileKind | None:
    kinds = (
        FileKind(category, name, advice)
        for at, magic, category, name, advice in _MAGIC
        if head[at:].startswith(magic)
    )
    return next(kinds, None)


#: In this order; what else looks like text comes last.
_TELLERS: tuple[Callable[[bytes], FileKind | None], ...] = (
    _lfs_pointer,
    _page,
    _pickle,
    _zip,
    _magic,
    _onnx,
    _safetensors,
    _zeros,
)

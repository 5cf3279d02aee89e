"""Weights that stay on disk: safetensors files as memory-mapped tensors.

Source: https://github.com/huggingface/safetensors#format. A file is an unsigned 64-bit header length, a JSON
header ``{name: {dtype, shape, data_offsets}}`` and the data, without holes. The safetensors library is not
used for reading because its numpy front copies every tensor and refuses bfloat16; it is the tests' oracle.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .errors import CheckpointError, IncompleteCheckpointError

#: The format's own limit on the header, so that a hostile length cannot ask for memory.
MAX_HEADER_BYTES: Final = 100_000_000

_ITEM_BYTES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_FLOATS: Final[Mapping[str, np.dtype[np.floating[Any]]]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}

#: Dtypes that can be read as numbers; bfloat16 is widened to float32, which holds it exactly.
READABLE_DTYPES: Final = (*_FLOATS, "BF16")

_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies: ``start`` and ``stop`` are bytes from the start of the mapped file, ``data``."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    file: Path
    data: npt.NDArray[np.uint8]

    @property
    def bytes(self) -> int:
        """Size in the file."""
        return self.stop - self.start


class MappedWeights(Mapping[str, npt.NDArray[np.generic]]):
    """The tensors of one or several safetensors files by name; nothing is read until it is asked for."""

    def __init__(self, entries: Mapping[str, TensorEntry]) -> None:
        """Serve ``entries``, whose files were checked."""
        self.entries: Final = entries

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        """A read-only view of the file; bfloat16 comes as a float32 copy."""
        entry = self.entries[name]
        raw = entry.data[entry.start : entry.stop]
        if entry.dtype == "BF16":
            widened = raw.view("<u2").astype("<u4") << np.uint32(16)
            return widened.view("<f4").reshape(entry.shape)
        if entry.dtype not in _FLOATS:
            readable = ", ".join(READABLE_DTYPES)
            raise CheckpointError(
                f"{entry.file}: tensor {name!r}: expected dtype {readable}, got {entry.dtype}"
            )
        return raw.view(_FLOATS[entry.dtype]).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        """Names, in the files' order."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self.entries)

    @property
    def bytes(self) -> int:
        """Size of all tensors in the files."""
        return sum(entry.bytes for entry in self.entries.values())


def open_weights(files: Sequence[Path]) -> MappedWeights:
    """Map safetensors files, the shards of one network, after checking their headers.

    Raises:
        IncompleteCheckpointError: a file is missing, truncated, or a git-lfs pointer.
        CheckpointError: a file is no safetensors file, or two files have a tensor of the same name.
    """
    entries: dict[str, TensorEntry] = {}
    for file in files:
        for name, entry in _read_entries(file).items():
            if name in entries:
                raise CheckpointError(f"{file}: tensor {name!r} is in {entries[name].file.name} too")
            entries[name] = entry
    return MappedWeights(entries)


def _read_entries(file: Path) -> dict[str, TensorEntry]:
    data = _map(file)
    header, body = _read_header(file, data)
    entries = {
        name: _read_entry(file, name, fields, data, body)
        for name, fields in header.items()
        if name != "__metadata__"
    }
    _check_layout(file, entries, body)
    return entries


def _map(file: Path) -> npt.NDArray[np.uint8]:
    if not file.is_file():
        raise IncompleteCheckpointError(f"{file}: expected a weights file, got none; download it again")
    size = file.stat().st_size
    if size == 0:
        raise IncompleteCheckpointError(
            f"{file}: expected a safetensors file, got an empty one; download it again"
        )
    with file.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype=np.uint8)


def _read_header(file: Path, data: npt.NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    """The parsed header and the offset at which the tensors begin."""
    if data[: len(_LFS_POINTER)].tobytes() == _LFS_POINTER:
        raise IncompleteCheckpointError(
            f"{file}: expected weights, got a git-lfs pointer; run `git lfs pull` in the checkpoint"
        )
    if data.size < 8:
        raise IncompleteCheckpointError(f"{file}: expected a safetensors file, got {data.size} bytes")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{file}: expected a safetensors file, got a header of {length} bytes")
    if length > data.size - 8:
        raise IncompleteCheckpointError(
            f"{file}: truncated: a header of {length} bytes in a file of {data.size}; download it again"
        )
    try:
        header = json.loads(data[8 : 8 + length].tobytes(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: expected a safetensors header, got {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: expected a safetensors header, got JSON {type(header).__name__}")
    return header, 8 + length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name that appears twice")
    return result


def _read_entry(file: Path, name: str, fields: Any, data: npt.NDArray[np.uint8], body: int) -> TensorEntry:
    try:
        dtype, shape, (start, stop) = fields["dtype"], tuple(fields["shape"]), fields["data_offsets"]
        item = _ITEM_BYTES[dtype]
        numbers = (*shape, start, stop)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("sizes and offsets must be non-negative integers")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: tensor {name!r}: malformed header entry {fields!r:.200}") from error
    if math.prod(shape) * item != stop - start:
        raise CheckpointError(
            f"{file}: tensor {name!r}: {dtype}{list(shape)} takes {math.prod(shape) * item} bytes, "
            f"the header gives it {stop - start}"
        )
    return TensorEntry(dtype, shape, body + start, body + stop, file, data)


def _check_layout(file: Path, entries: Mapping[str, TensorEntry], body: int) -> None:
    """Tensors must fill the file: neither overlap, nor leave holes, nor reach past its end."""
    end = body
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
        if entry.start != end:
            raise CheckpointError(f"{file}: tensors overlap or leave a hole at byte {min(entry.start, end)}")
        end = entry.stop
    size = file.stat().st_size
    if end > size:
        raise IncompleteCheckpointError(
            f"{file}: truncated: expected {end} bytes, got {size}; download it again"
        )
    if end < size:
        raise CheckpointError(f"{file}: expected {end} bytes, got {size}: something follows the tensors")

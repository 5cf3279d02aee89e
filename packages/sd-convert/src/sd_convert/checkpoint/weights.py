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
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sd_convert.errors import CheckpointError, IncompleteCheckpointError, UnsafeWeightsError

from .scaled_float8 import with_scales
from .tensors import LazyTensor, TensorEntry

#: The format's own limit on the header, so that a hostile length cannot ask for memory.
MAX_HEADER_BYTES: Final = 100_000_000

_ITEM_BYTES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
#: numpy's own limits: an array of more dimensions, or a larger size, is none.
_MOST_DIMENSIONS: Final = 64
_LARGEST_SIZE: Final = 2**63 - 1


class LazyWeights(Mapping[str, npt.NDArray[np.generic]]):
    """Tensors by name, from files or computed; nothing is read until it is asked for."""

    def __init__(self, entries: Mapping[str, LazyTensor]) -> None:
        """Serve ``entries``, whose files were checked."""
        self.entries = entries

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        """The elements, see :meth:`LazyTensor.read`; a view of the file wherever that is possible."""
        try:
            return self.entries[name].read()
        except CheckpointError as error:
            raise CheckpointError(f"tensor {name!r}: {error}") from error

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is not read for it."""
        return self.entries[name].shape

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


class MappedWeights(LazyWeights):
    """The tensors of one or several safetensors files by name."""

    entries: Mapping[str, TensorEntry]

    def __init__(self, entries: Mapping[str, TensorEntry], metadata: Mapping[str, str] | None = None) -> None:
        """``metadata``: what the header says about the file."""
        super().__init__(entries)
        self.metadata: Final = metadata or {}


def open_weights(files: Sequence[Path]) -> MappedWeights:
    """Map safetensors files, the shards of one network, after checking their headers.

    Raises:
        IncompleteCheckpointError: a file is missing, truncated, or a git-lfs pointer.
        CheckpointError: a file is no safetensors file, or two files have a tensor of the same name; or, as of
            ``with_scales``, the scales of 8-bit floats do not fit.
    """
    entries: dict[str, TensorEntry] = {}
    metadata: dict[str, str] = {}
    for file in files:
        data = _map(file)
        header, body = _read_header(file, data)
        metadata |= _metadata(header.pop("__metadata__", None))
        for name, entry in _read_entries(file, header, data, body).items():
            if name in entries:
                raise CheckpointError(f"{file}: tensor {name!r} is in {entries[name].file.name} too")
            entries[name] = entry
    return MappedWeights(with_scales(entries), metadata)


def _metadata(content: object) -> dict[str, str]:
    """What the file says about itself, as far as it is text, as the format wants it."""
    pairs = content.items() if isinstance(content, dict) else ()
    return {name: text for name, text in pairs if isinstance(text, str)}


def _read_entries(
    file: Path, header: Mapping[str, Any], data: npt.NDArray[np.uint8], body: int
) -> dict[str, TensorEntry]:
    entries = {name: _read_entry(file, name, fields, data, body) for name, fields in header.items()}
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
    if data.size < 8:
        raise IncompleteCheckpointError(f"{file}: expected a safetensors file, got {data.size} bytes")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > MAX_HEADER_BYTES:
        raise _recognised(file) or CheckpointError(
            f"{file}: expected a safetensors file, got a header of {length} bytes"
        )
    if length > data.size - 8:
        raise _recognised(file) or IncompleteCheckpointError(
            f"{file}: truncated: a header of {length} bytes in a file of {data.size}; download it again"
        )
    try:
        header = json.loads(data[8 : 8 + length].tobytes(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        told = _recognised(file)
        raise told or CheckpointError(f"{file}: expected a safetensors header, got {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: expected a safetensors header, got JSON {type(header).__name__}")
    return header, 8 + length


def _recognised(file: Path) -> CheckpointError | None:
    """What a file is that is no safetensors: a Git LFS pointer, a page, a pickle."""
    from sd_mil import recognise_file

    kind = recognise_file(file)
    if kind is None or "safetensors" in kind.name:
        return None
    errors = {"pointer": IncompleteCheckpointError, "pickle": UnsafeWeightsError}
    return errors.get(kind.category, CheckpointError)(f"{file}: expected safetensors weights, got {kind}")


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
        if len(shape) > _MOST_DIMENSIONS or max(numbers) > _LARGEST_SIZE:
            raise ValueError(f"at most {_MOST_DIMENSIONS} dimensions, and sizes up to {_LARGEST_SIZE}")
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

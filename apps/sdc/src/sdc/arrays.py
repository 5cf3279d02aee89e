"""Arrays from users' files, ``.npy`` and ``.npz``: a header is checked before anything is allocated."""

from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sd_mil import PredictionError

if TYPE_CHECKING:
    import numpy as np
    from sd_mil import Port

#: Of one input: 1 GiB of fp32.
MOST_ELEMENTS = 1 << 28
#: Longer than numpy accepts.
_HEADER_BYTES = 1 << 14
_LONGEST_REASON = 200


def refuse_foreign(path: Path) -> None:
    """Say what a file is that is neither numbers nor a picture, whatever its name.

    Raises:
        PredictionError: it is a Git LFS pointer, a page, a model, ...
    """
    from sd_mil import recognise_file

    kind = recognise_file(path)
    if kind is not None and kind.category not in ("array", "archive", "picture"):
        raise PredictionError(f"expected an array or a picture in {path.name!r}, got {kind}")


def read_array(path: Path, port: Port) -> np.ndarray:
    """An array for the port; of an .npz the one with the input's name, or the only one. Nothing is unpickled.

    Raises:
        PredictionError: the file cannot be read, or what it holds does not fit the port.
    """
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return _array(file, os.fstat(file.fileno()).st_size, port)
        with zipfile.ZipFile(path) as archive:
            member = _member(archive, path, port.name)
            with archive.open(member) as file:
                return _array(file, member.file_size, port)
    except PredictionError:
        raise
    except Exception as error:  # numpy's, zipfile's and zlib's: tokenize errors, struct errors, anything
        raise PredictionError(f"expected an array in {path.name!r}, got: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "more than fits in memory"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> zipfile.ZipInfo:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        key = info.filename.removesuffix(".npy")
        if key in members:
            raise ValueError(f"two arrays of the name {key!r}")
        members[key] = info
    if len(members) == 1:
        return next(iter(members.values()))
    if name not in members:
        found = ", ".join(list(members)[:8]) or "none"
        more = f" and {len(members) - 8} more" if len(members) > 8 else ""
        raise PredictionError(f"expected an array {name!r} in {path.name!r}, got {found}{more}")
    return members[name]


def _array(file: IO[bytes], size: int, port: Port) -> np.ndarray:
    """The array of an ``.npy`` file of so many bytes, if its header says one that the port takes."""
    import numpy as np

    shape, dtype, start = _header(file)
    if dtype.hasobject:
        raise ValueError("Python objects (a pickle), which can run code and are not opened")
    fits = port.allows(_tensor_shape(shape, port)) or (
        port.kind in ("int64", "double") and math.prod(shape) == 1
    )
    if dtype.kind not in "iufb" or not fits or math.prod(shape) > MOST_ELEMENTS:
        raise PredictionError(f"expected {port.expected} for input {port.name!r}, got {dtype}{list(shape)}")
    if size - start < math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{size - start} bytes of {math.prod(shape) * dtype.itemsize}")
    file.seek(0)
    npy: Any = np.lib.format  # it has no types
    array: np.ndarray = npy.read_array(file, allow_pickle=False)
    return array


def _tensor_shape(shape: tuple[int, ...], port: Port) -> tuple[int, ...]:
    """Of pixels, H x W or H x W x C as ``predict`` takes them too, the shape of their tensor."""
    if port.kind != "image" or len(shape) not in (2, 3):
        return shape
    return (1, 3 if len(shape) == 3 else 1, *shape[:2])


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, dtype, and where the numbers begin. Source: NEP 1, numpy/lib/format.py."""
    from numpy.lib import format as numpy_format

    npy: Any = numpy_format  # it has no types

    head = io.BytesIO(file.read(_HEADER_BYTES))
    version = npy.read_magic(head)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the format, which only arrays of named fields have")
    shape, _, dtype = readers[version](head)
    return shape, dtype, head.tell()

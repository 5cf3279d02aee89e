"""weight.bin as coremltools' own writer writes it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sd_convert.blobs
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_convert import LoweringError, WeightsMismatchError
from sd_convert.blobs import Blob, Layout, write_blobs
from sd_convert.coreml import import_coremltools

sizes = st.lists(
    st.tuples(st.sampled_from(["float16", "float32"]), st.integers(1, 300)), min_size=1, max_size=6
)


def oracle(path: Path, arrays: list[np.ndarray[Any, Any]]) -> list[int]:
    """What coremltools writes: the file, and the offsets that it returns."""
    import_coremltools()
    from coremltools.libmilstoragepython import _BlobStorageWriter

    writer = _BlobStorageWriter(str(path))
    return [
        writer.write_fp16_data(array.view(np.uint16))
        if array.dtype == np.float16
        else writer.write_float_data(array)
        for array in arrays
    ]


@settings(deadline=None, max_examples=30)
@given(sizes)
def test_files_and_offsets_are_those_of_coremltools(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal(count).astype(dtype) for dtype, count in sizes]
    layout = Layout()
    tensors = {str(index): array for index, array in enumerate(arrays)}
    offsets = [
        layout.place(array.dtype.name, array.size, name if index % 2 else array.tobytes())
        for index, (name, array) in enumerate(tensors.items())
    ]
    sha256 = write_blobs(folder / "ours.bin", tuple(layout.blobs), tensors)
    assert offsets == oracle(folder / "theirs.bin", arrays)
    content = (folder / "ours.bin").read_bytes()
    assert content == (folder / "theirs.bin").read_bytes()
    assert sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("piece", [3, 16, 1000])
def test_pieces_make_no_difference(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).standard_normal((10, 7)).astype(np.float32).T
    blobs = (Blob(64, "float16", 70, "w"),)
    whole = write_blobs(tmp_path / "whole.bin", blobs, {"w": array})
    monkeypatch.setattr(sd_convert.blobs, "_PIECE", piece)
    assert write_blobs(tmp_path / "pieces.bin", blobs, {"w": array}) == whole
    stored = np.frombuffer((tmp_path / "pieces.bin").read_bytes(), np.float16, 70, 128)
    np.testing.assert_array_equal(stored.reshape(7, 10), array.astype(np.float16))


def test_a_number_that_float16_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(LoweringError, match="w: expected numbers that float16 can hold, got 70000"):
        write_blobs(tmp_path / "w.bin", (Blob(64, "float16", 2, "w"),), {"w": np.array([1, 7e4], np.float32)})


def test_a_tensor_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatchError, match="expected 3 elements, got 2"):
        write_blobs(tmp_path / "w.bin", (Blob(64, "float16", 3, "w"),), {"w": np.zeros(2, np.float16)})

"""Mapped weights against the safetensors library, and files that lie."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from sd_convert import CheckpointError, IncompleteCheckpointError
from sd_convert.checkpoint.weights import open_weights

DTYPES = (torch.float16, torch.float32, torch.float64, torch.bfloat16)


def build(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(start: int = 0, stop: int = 4, **changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [start, stop]} | changes


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def to_file(content: bytes) -> Path:
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        return path

    return to_file


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_are_those_that_were_saved(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5).to(dtype),
        "scalar": torch.tensor(2.5, dtype=dtype),
        "none": torch.zeros(0, 2),
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
    read = open_weights([tmp_path / "a.safetensors"])
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(
            read[name], tensor.to(torch.float64 if dtype is torch.float64 else torch.float32)
        )
        assert read[name].shape == tuple(tensor.shape)


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=50))
def test_every_bfloat16_keeps_its_value(tmp_path_factory: pytest.TempPathFactory, bits: list[int]) -> None:
    tensor = torch.tensor(bits, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    path = tmp_path_factory.mktemp("bf16") / "a.safetensors"
    path.write_bytes(save({"a": tensor}))
    np.testing.assert_array_equal(open_weights([path])["a"], tensor.float().numpy())


def test_float16_is_a_read_only_view_of_the_file(tmp_path: Path) -> None:
    save_file({"a": torch.ones(8, dtype=torch.float16)}, tmp_path / "a.safetensors")
    weights = open_weights([tmp_path / "a.safetensors"])
    assert np.shares_memory(weights["a"], weights["a"])
    assert not weights["a"].flags.writeable
    assert weights.bytes == 16


def test_shards_are_one_set_of_tensors(tmp_path: Path) -> None:
    for name in "ab":
        save_file({name: torch.ones(2)}, tmp_path / f"{name}.safetensors")
    assert set(open_weights([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])) == {"a", "b"}


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        save_file({"same": torch.ones(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="same"):
        open_weights([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])


def test_numbers_that_are_no_floats_are_refused_only_when_read(tmp_path: Path) -> None:
    save_file({"position_ids": torch.arange(4)}, tmp_path / "a.safetensors")
    weights = open_weights([tmp_path / "a.safetensors"])
    with pytest.raises(CheckpointError, match="I64"):
        weights["position_ids"]


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_a_truncated_file_is_incomplete(kept: int, write: Callable[[bytes], Path]) -> None:
    whole = save({"a": torch.ones(100), "b": torch.ones(3)})
    with pytest.raises(IncompleteCheckpointError, match=r"model\.safetensors"):
        open_weights([write(whole[:kept])])


def test_a_missing_file_is_incomplete(tmp_path: Path) -> None:
    with pytest.raises(IncompleteCheckpointError, match="download it again"):
        open_weights([tmp_path / "model.safetensors"])


def test_a_git_lfs_pointer_says_so(write: Callable[[bytes], Path]) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
    with pytest.raises(IncompleteCheckpointError, match="git lfs pull"):
        open_weights([write(pointer)])


MALFORMED = {
    "header is no JSON": build(b"{nope"),
    "header is a list": build([]),
    "header asks for 2**62 bytes": struct.pack("<Q", 2**62) + b"{}",
    "nested a million deep": build(b"[" * 1_000_000),
    "a name twice": build(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2), bytes(4)),
    "unknown dtype": build({"a": entry(dtype="F3")}, bytes(4)),
    "dtype is a list": build({"a": entry(dtype=[])}, bytes(4)),
    "negative size": build({"a": entry(shape=[-1, -1])}, bytes(4)),
    "size is a float": build({"a": entry(shape=[1.0])}, bytes(4)),
    "size is a bool": build({"a": entry(shape=[True])}, bytes(4)),
    "offsets do not fit the shape": build({"a": entry(shape=[2])}, bytes(4)),
    "offsets overlap": build({"a": entry(), "b": entry()}, bytes(4)),
    "a hole": build({"a": entry(4, 8)}, bytes(8)),
    "bytes after the last tensor": build({"a": entry()}, bytes(8)),
    "entry is null": build({"a": None}),
    "one offset": build({"a": entry(data_offsets=[0])}, bytes(4)),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_refused(content: bytes, write: Callable[[bytes], Path]) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors") as caught:
        open_weights([write(content)])
    assert "\n" not in str(caught.value)


@given(st.data())
def test_no_damage_ends_in_anything_but_a_checkpoint_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(save({"a": torch.ones(3, 2), "b": torch.ones(1, dtype=torch.bfloat16)}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.safetensors"
    path.write_bytes(content)
    try:
        weights = open_weights([path])
        _ = [weights[name] for name in weights]
    except CheckpointError:
        pass

"""A program equals what coremltools' own exporter says of the same function, and its weights are lazy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sd_convert import LoweringError, WeightsMismatchError
from sd_convert.components.component import Component
from sd_convert.conversion.write import lower_component
from sd_convert.coreml import import_coremltools
from sd_convert.lowering import checkpoint_tensors, graph
from sd_convert.lowering.checkpoint_tensors import CheckpointTensor
from sd_mil.format import encode_model, layout_of
from torch import nn


class Network(nn.Module):
    """Something of everything: weights in the file and inline, a folded constant, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 12)
        self.first = nn.Linear(12, 20)
        self.norm = nn.LayerNorm(20)
        self.last = nn.Linear(20, 3)
        self.register_buffer("steps", torch.arange(60).float().reshape(3, 20))

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.norm(torch.nn.functional.gelu(self.first(self.embedding(ids.long())))) + self.steps
        return self.last(hidden), torch.cat([x.softmax(-1), x], dim=-1)


@pytest.fixture
def component(as_component: Callable[..., Component]) -> Component:
    torch.manual_seed(0)
    network = Network().half().float()
    network.last.bias.data.zero_()  # as small as it is, the function below has a stand-in for it, of zeros
    return as_component(network, {"ids": torch.zeros(2, 3), "x": torch.zeros(2, 6)})


@pytest.mark.parametrize(("target", "version"), [("macOS13", 7), ("macOS14", 8), ("macOS15", 9)])
def test_it_is_what_coremltools_exports(
    component: Component, target: str, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions: list[Any] = []
    original = graph.program_of

    def watch(function: Any, *rest: Any, **more: Any) -> Any:
        functions.append(function)
        return original(function, *rest, **more)

    monkeypatch.setattr(graph, "program_of", watch)
    lowered = lower_component(
        component, attention="ORIGINAL", compute_unit=None, target=target, precision="float16"
    )
    assert lowered.specification == version
    import_coremltools()
    from coremltools.converters.mil.backend.mil.load import MILProtoExporter
    from coremltools.converters.mil.mil import Program
    from coremltools.proto import Model_pb2

    theirs = Program()
    theirs.add_function("main", functions[0])
    expected = MILProtoExporter(theirs, str(tmp_path), version).export()
    layout = layout_of(lowered.program)
    got = Model_pb2.Model.FromString(
        encode_model(lowered.program, lowered.description, layout, version=version)
    )
    assert got.mlProgram == expected  # offsets in weight.bin included
    assert got.specificationVersion == version
    assert (tmp_path / "weight.bin").stat().st_size == layout.size


def tensor(array: np.ndarray, *shape: int, dtype: str = "fp16") -> CheckpointTensor:
    return CheckpointTensor("w", {"w": array}, dtype, shape)


@pytest.mark.parametrize("piece", [3, 16, 1000])
def test_pieces_make_the_whole(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).standard_normal((10, 7)).astype(np.float32).T
    monkeypatch.setattr(checkpoint_tensors, "PIECE", piece)
    lazy = tensor(array, 7, 10, 1)
    pieces = list(lazy.pieces())
    assert max(part.size for part in pieces) == min(piece, 70)
    np.testing.assert_array_equal(np.concatenate(pieces).reshape(7, 10), array.astype(np.float16))
    np.testing.assert_array_equal(lazy.read(), array.astype(np.float16).reshape(7, 10, 1))


def test_a_number_that_float16_cannot_hold() -> None:
    with pytest.raises(LoweringError, match="w: expected numbers that float16 can hold, got 70000"):
        tensor(np.array([1, 7e4], np.float32), 2).read()


def test_a_tensor_of_another_size() -> None:
    with pytest.raises(WeightsMismatchError, match="w: expected 3 elements, got 2"):
        tensor(np.zeros(2, np.float16), 3).read()

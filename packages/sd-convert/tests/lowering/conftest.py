"""A torch module as a Core ML package that runs: the fixture that most tests of the lowering use."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sd_convert.components.component import Component, PortSpec
from sd_convert.conversion.write import WrittenPackage, write_component
from sd_mil import MLModel
from torch import Tensor, nn


class Arrays(dict[str, np.ndarray]):
    """Tensors in memory as the weights of a component."""

    def shape(self, name: str) -> tuple[int, ...]:
        return self[name].shape

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self.values())


def component_of(module: nn.Module, inputs: dict[str, Tensor], *, name: str = "net") -> Component:
    """A component around ``module``: weights from its own state dict, outputs ``output_0``, ..."""
    with torch.no_grad():
        results = _tuple(module(*(tensor.float() for tensor in inputs.values())))
    return Component(
        name=name,
        module=copy.deepcopy(module),
        inputs=tuple(PortSpec(n, tuple(t.shape), str(t.dtype)[6:], f"input {n}") for n, t in inputs.items()),
        outputs=tuple(
            PortSpec(f"output_{i}", tuple(result.shape), "float32", "") for i, result in enumerate(results)
        ),
        weights=Arrays({name: tensor.numpy() for name, tensor in module.state_dict().items()}),
        short_description="a test",
        version="1",
        author="nobody",
        license="MIT",
        user_defined={"key": "value"},
    )


@pytest.fixture
def as_component() -> Callable[..., Component]:
    """``as_component(module, {name: tensor})``, see :func:`component_of`."""
    return component_of


@dataclass(frozen=True)
class Converted:
    """A module, its package, and both their outputs."""

    written: WrittenPackage
    expected: tuple[np.ndarray, ...]
    got: tuple[np.ndarray, ...]

    @property
    def path(self) -> Path:
        return self.written.path

    @property
    def operations(self) -> dict[str, int]:
        return dict(self.written.operations)

    def kinds(self, op: str) -> list[dict[str, object]]:
        """The constant parameters of every operation of a kind, in order."""
        model = MLModel(self.path, engine="reference")
        operations = [o for o in model.package.program.operations() if o.type == op]
        consts = {
            o.name: o.attributes["val"].value for o in model.package.program.operations() if o.type == "const"
        }
        return [
            {name: consts[args[0].name] for name, args in o.inputs.items() if args[0].name in consts}
            for o in operations
        ]

    def close(self, tolerance: float) -> None:
        """Compare with torch, relative to the largest output."""
        for expected, got in zip(self.expected, self.got, strict=True):
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * float(np.abs(expected).max()))


Convert = Callable[..., Converted]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Convert a module, whose weights are first rounded to float16, and run it on both sides."""

    def run(module: nn.Module, inputs: dict[str, Tensor], *, name: str = "net", **options: str) -> Converted:
        module = module.half().float().eval()
        with torch.no_grad():
            expected = _tuple(module(*(tensor.float() for tensor in inputs.values())))
        component = component_of(module, inputs, name=name)
        written = write_component(component, tmp_path / f"{name}.mlpackage", **options)
        predicted = MLModel(written.path, engine="reference").predict(
            {n: t.numpy() for n, t in inputs.items()}
        )
        got = tuple(predicted[port.name] for port in component.outputs)
        return Converted(written, tuple(tensor.numpy() for tensor in expected), got)

    return run


def _tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs

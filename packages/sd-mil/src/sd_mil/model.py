"""The front door: ``MLModel``, in the shape of ``coremltools.models.MLModel``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from sd_mil.engine import Arrays, EngineName, Precision, Rounding, compile_program
from sd_mil.errors import PackageError, PredictionError
from sd_mil.ports import Description, Port
from sd_mil.program import Package
from sd_mil.reader import read_package


class MLModel:
    """An ``.mlpackage`` that predicts, on any machine.

    Code written for a Mac runs elsewhere by changing one import::

        model = MLModel("unet.mlpackage")
        noise = model.predict({"sample": x, "timestep": t, "encoder_hidden_states": h})["noise_pred"]

    ``engine`` is ``"portable"`` (OpenVINO, fast) or ``"reference"`` (numpy, slow, exact). ``precision`` is
    what the arithmetic is done in, whatever the package stores: ``"fp32"``, or ``"bf16"`` (portable only).
    ``rounding="fp16"`` (reference only) rounds every value that the program declares fp16, as fp16
    hardware would: differences and overflows then show.

    Raises:
        PackageError: the package is malformed.
        UnsupportedModelError: the model is not an ML Program, or holds an unsupported operation.
        EngineError: no such engine, precision or rounding.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        engine: EngineName = "portable",
        *,
        precision: Precision = "fp32",
        rounding: Rounding | None = None,
    ) -> None:
        """Read, check and compile; nothing is executed yet."""
        self.package: Package = read_package(path)
        self.inputs: Mapping[str, Port] = _by_name(self.description.inputs)
        self.outputs: Mapping[str, Port] = _by_name(self.description.outputs)
        self._compiled = compile_program(
            self.package.program, engine=engine, precision=precision, rounding=rounding
        )

    @property
    def description(self) -> Description:
        """Ports and metadata."""
        return self.package.description

    @property
    def arithmetic(self) -> str:
        """Engine, library version, precision and rounding. It is never the Neural Engine."""
        return self._compiled.arithmetic

    def predict(self, data: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name, in the order of the ports, in the ports' dtypes.

        Nothing is cast, reshaped or left out silently.

        Raises:
            PredictionError: missing or unexpected names, wrong shapes or dtypes.
            PackageError: a value came out in another shape than the program declares.
        """
        _check_names(data, self.inputs)
        for name, port in self.inputs.items():
            _check_array(data[name], port)
        results = self._compiled.run(data)
        return {name: _output(results[name], port) for name, port in self.outputs.items()}


def _by_name(ports: Iterable[Port]) -> Mapping[str, Port]:
    return MappingProxyType({port.name: port for port in ports})


def _check_names(data: Arrays, ports: Mapping[str, Port]) -> None:
    missing = [name for name in ports if name not in data]
    unexpected = [name for name in data if name not in ports]
    if missing or unexpected:
        raise PredictionError(f"expected inputs {list(ports)}; missing: {missing}; unexpected: {unexpected}")


def _check_array(array: npt.NDArray[Any], port: Port) -> None:
    expected = f"{port.dtype}{list(port.shape)}"
    if not isinstance(array, np.ndarray):
        raise PredictionError(f"expected {expected}, got {type(array).__name__} for input {port.name!r}")
    if array.shape == port.shape and array.dtype == port.dtype:
        return
    got = f"{array.dtype}{list(array.shape)}"
    advice = f"; cast it with .astype({port.dtype!r})" if array.shape == port.shape else ""
    raise PredictionError(f"expected {expected}, got {got} for input {port.name!r}{advice}")


def _output(array: npt.NDArray[Any], port: Port) -> npt.NDArray[Any]:
    if array.shape != port.shape:
        raise PackageError(
            f"expected output {port.name!r} of shape {list(port.shape)} as described, got {list(array.shape)}"
        )
    return array.astype(port.dtype, copy=False)

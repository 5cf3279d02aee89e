"""The front door: ``MLModel``, in the shape of ``coremltools.models.MLModel``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from sd_mil.engines.protocol import EngineName, Precision, Rounding
from sd_mil.format import read_model
from sd_mil.ir.ports import Description, Port
from sd_mil.ir.program import Package, Pipeline
from sd_mil.predict.running import Settings, runner
from sd_mil.predict.state import State


class MLModel:
    """An ``.mlpackage``, ``.mlmodelc`` or ``.mlmodel`` that predicts, on any machine.

    Code written for a Mac runs elsewhere by changing one import::

        model = MLModel("unet.mlpackage")
        noise = model.predict({"sample": x, "timestep": t, "encoder_hidden_states": h})["noise_pred"]

    ``model`` is a path, or what :func:`sd_mil.read_model` returned. ``engine`` is ``"portable"`` (OpenVINO,
    fast) or ``"reference"`` (numpy, slow, exact). ``precision`` is what the arithmetic is done in, whatever
    the package stores: ``"fp32"``, or ``"bf16"`` (portable only). ``rounding="fp16"`` (reference only) rounds
    every value that the program declares fp16, as fp16 hardware would: differences and overflows then show.
    ``function_name`` chooses a function of a package that has several.

    Raises:
        PackageError: the model is malformed.
        UnsupportedModelError: the model is not an ML Program, or holds an unsupported operation.
        EngineError: no such engine, precision, rounding or function.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Package | Pipeline,
        engine: EngineName = "portable",
        *,
        precision: Precision = "fp32",
        rounding: Rounding | None = None,
        function_name: str | None = None,
    ) -> None:
        """Read, check and compile; nothing is executed yet."""
        self.package: Package | Pipeline = (
            model if isinstance(model, Package | Pipeline) else read_model(model)
        )
        self.settings = Settings(engine, precision, rounding)
        self.function_name = function_name
        self._runner = runner(self.package, self.settings, function_name)
        self.inputs: Mapping[str, Port] = _by_name(self.description.inputs)
        self.outputs: Mapping[str, Port] = _by_name(self.description.outputs)
        self.states: Mapping[str, Port] = _by_name(self.description.states)

    @property
    def description(self) -> Description:
        """Ports and metadata of the function."""
        return self._runner.description

    @property
    def arithmetic(self) -> str:
        """Engine, library version, precision and rounding. It is never the Neural Engine."""
        return self._runner.arithmetic

    def make_state(self) -> State:
        """The states of a stateful model, all zero: given to every ``predict`` that is to share them."""
        return State(self.description.states)

    def predict(self, data: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """Outputs by name, in the order of the ports, in the ports' dtypes.

        Arrays are numpy's, images are Pillow's (or arrays of their pixels), numbers, labels and dictionaries
        are Python's own. Nothing is cast, reshaped or left out silently; optional inputs have defaults.

        Threads may share the model: what one gets, each of several gets. Predictions that share a ``state``
        happen one after the other.

        Raises:
            PredictionError: missing or unexpected names, wrong shapes or dtypes, or a missing state.
            PackageError: a value came out in another shape than the program declares.
        """
        return self._runner.run(data, state)


def _by_name(ports: Iterable[Port]) -> Mapping[str, Port]:
    return MappingProxyType({port.name: port for port in ports})

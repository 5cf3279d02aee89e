"""The front door: ``MLModel``, in the shape of ``coremltools.models.MLModel``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from sd_mil.engines.protocol import Engine, Precision, Rounding
from sd_mil.engines.table import engine_named
from sd_mil.format import read_model
from sd_mil.ir.ports import Description, Port
from sd_mil.ir.program import Package, Pipeline
from sd_mil.predict.running import runner


class MLModel:
    """An ``.mlpackage``, ``.mlmodelc`` or ``.mlmodel`` that predicts, on any machine.

    Code written for a Mac runs elsewhere by changing one import::

        model = MLModel("unet.mlpackage")
        noise = model.predict({"sample": x, "timestep": t, "encoder_hidden_states": h})["noise_pred"]

    ``model`` is a path, or what :func:`sd_mil.read_model` returned. ``engine`` is an engine, such as
    ``sd_mil.engines.OpenVINO(precision="bf16")``, or the name of one in :data:`sd_mil.engines.ENGINES`:
    ``"portable"`` (OpenVINO, fast), ``"reference"`` (numpy, slow, exact), ``"coreml"`` (a Mac's own) or
    ``"auto"``. ``precision`` (portable: ``"fp32"`` or ``"bf16"``) and ``rounding`` (reference: ``"fp16"``)
    are given to the engine of that name. ``function_name`` chooses a function of a package that has several.

    Raises:
        PackageError: the model is malformed.
        UnsupportedModelError: the model is not an ML Program, or holds an unsupported operation.
        EngineError: no such engine or function, or an option that the engine does not have.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Package | Pipeline,
        engine: str | Engine = "portable",
        *,
        precision: Precision | None = None,
        rounding: Rounding | None = None,
        function_name: str | None = None,
    ) -> None:
        """Read, check and compile; nothing is executed yet."""
        self.package: Package | Pipeline = (
            model if isinstance(model, Package | Pipeline) else read_model(model)
        )
        self.engine: Engine = engine_named(engine, precision=precision, rounding=rounding)
        self.function_name = function_name
        self._runner = runner(self.package, self.engine, function_name)
        self.inputs: Mapping[str, Port] = _by_name(self.description.inputs)
        self.outputs: Mapping[str, Port] = _by_name(self.description.outputs)
        self.states: Mapping[str, Port] = _by_name(self.description.states)

    @property
    def description(self) -> Description:
        """Ports and metadata of the function."""
        return self._runner.description

    @property
    def arithmetic(self) -> str:
        """Engine, library version, precision and rounding."""
        return self._runner.arithmetic

    def make_state(self) -> Any:
        """The states of a stateful model, all zero: given to every ``predict`` that is to share them.

        A :class:`sd_mil.State`, or what the engine has instead: with ``coreml``, coremltools' own.
        """
        return self._runner.make_state()

    def predict(self, data: Mapping[str, Any], state: Any | None = None) -> dict[str, Any]:
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

"""The front door: ``MLModel``, with the surface of ``coremltools.models.MLModel``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns
from types import MappingProxyType
from typing import Any, get_args, overload

from sd_mil.engines.coreml import ComputeUnit, CoreMLModel, compute_devices
from sd_mil.engines.protocol import Engine, Precision, Rounding, check_choice
from sd_mil.engines.table import engine_named, meant
from sd_mil.errors import EngineError, PredictionError
from sd_mil.format import read_model
from sd_mil.ir.ports import Description, Port
from sd_mil.ir.program import Package, Pipeline
from sd_mil.predict.files import ModelFiles, files_at, files_of, files_of_specification, parsed, saved
from sd_mil.predict.metadata import FeatureTexts, Metadata, Text, Texts
from sd_mil.predict.running import ModelRunner, Runner, described, runner


class MLModel:
    """An ``.mlpackage``, ``.mlmodelc`` or ``.mlmodel`` that predicts, on any machine.

    Code written for a Mac runs elsewhere by changing one import::

        model = MLModel("unet.mlpackage")
        noise = model.predict({"sample": x, "timestep": t, "encoder_hidden_states": h})["noise_pred"]

    ``model`` is a path, what :func:`sd_mil.read_model` returned, or a ``Model_pb2.Model`` of coremltools with
    its weights in the folder ``weights_dir``. ``engine`` is an engine, such as
    ``sd_mil.engines.OpenVINO(precision="bf16")``, or the name of one in :data:`sd_mil.engines.ENGINES`:
    ``"portable"`` (OpenVINO, fast), ``"reference"`` (numpy, slow, exact), ``"coreml"`` (a Mac's own) or
    ``"auto"``. ``precision`` (portable: ``"fp32"`` or ``"bf16"``) and ``rounding`` (reference: ``"fp16"``)
    are given to the engine of that name. ``function_name`` chooses a function of a package that has several.

    ``compute_units``, a ``coremltools.ComputeUnit`` or its name, says where Core ML may run the model; the
    other engines have the processor only. ``optimization_hints`` are Core ML's and an error elsewhere. With
    ``skip_model_load`` nothing is compiled: the model says and saves what it is, and does not predict.

    Raises:
        PackageError: the model is malformed.
        UnsupportedModelError: the model is not an ML Program, or holds an unsupported operation.
        EngineError: no such engine or function, or an option that the engine does not have.
    """

    short_description = Text("What the model is for.")
    author = Text("Who made it.")
    license = Text("How it may be used.")
    version = Text("Which version of it this is.")

    def __init__(
        self,
        model: str | os.PathLike[str] | Package | Pipeline | Any,
        engine: str | Engine = "portable",
        *,
        precision: Precision | None = None,
        rounding: Rounding | None = None,
        function_name: str | None = None,
        compute_units: Any = "ALL",
        skip_model_load: bool = False,
        weights_dir: str | os.PathLike[str] | None = None,
        optimization_hints: Mapping[str, Any] | None = None,
    ) -> None:
        """Read, check and compile; nothing is executed yet."""
        unit = getattr(compute_units, "name", compute_units)
        check_choice("compute_units", unit, get_args(ComputeUnit))
        self.compute_unit = compute_units
        self.optimization_hints = None if optimization_hints is None else dict(optimization_hints)
        self.engine: Engine = engine_named(
            engine,
            precision=precision,
            rounding=rounding,
            compute_unit=unit if isinstance(engine, str) and meant(engine) == "coreml" else None,
            optimization_hints=self.optimization_hints,
        )
        self.package, self._files = _opened(model, weights_dir)
        self._function = function_name
        self._stated = _stated(self.package, function_name)
        self._metadata = Metadata.of(self._stated)
        started = perf_counter_ns()
        self._runner = None if skip_model_load else runner(self.package, self.engine, function_name)
        #: How long the engine took to make the model ready, in nanoseconds; None if it was not asked to.
        self.load_duration_in_nano_seconds = None if skip_model_load else perf_counter_ns() - started
        #: How long it took to predict the last time, in nanoseconds.
        self.last_predict_duration_in_nano_seconds: int | None = None
        self.inputs: Mapping[str, Port] = _by_name(self._stated.inputs)
        self.outputs: Mapping[str, Port] = _by_name(self._stated.outputs)
        self.states: Mapping[str, Port] = _by_name(self._stated.states)

    @property
    def function_name(self) -> str | None:
        """The function asked for, or the default one of a model that describes several."""
        named = isinstance(self.package, Package) and self.package.descriptions
        return self._function or (self.package.program.default_function if named else None)  # type: ignore[union-attr]

    @property
    def description(self) -> Description:
        """Ports and metadata of the function, with the texts that were assigned."""
        return self._metadata.applied(self._stated)

    @property
    def input_description(self) -> FeatureTexts:
        """What is said of each input of the function, by name; may be assigned to."""
        return self._metadata.inputs

    @property
    def output_description(self) -> FeatureTexts:
        """What is said of each output of the function, by name; may be assigned to."""
        return self._metadata.outputs

    @property
    def user_defined_metadata(self) -> Texts:
        """Texts of any name; may be assigned to."""
        return self._metadata.user_defined

    @property
    def arithmetic(self) -> str:
        """Engine, library version, precision and rounding."""
        return self._loaded.arithmetic

    def make_state(self) -> Any:
        """The states of a stateful model, all zero: given to every ``predict`` that is to share them.

        A :class:`sd_mil.State`, or what the engine has instead: with ``coreml``, coremltools' own.
        """
        return self._loaded.make_state()

    @overload
    def predict(self, data: Mapping[str, Any], state: Any | None = None) -> dict[str, Any]: ...

    @overload
    def predict(self, data: Sequence[Mapping[str, Any]], state: None = None) -> list[dict[str, Any]]: ...

    def predict(
        self, data: Mapping[str, Any] | Sequence[Mapping[str, Any]], state: Any | None = None
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Outputs by name, in the order of the ports, in the ports' dtypes; of a list of inputs, a list.

        Arrays are numpy's, torch's or lists of numbers, images are Pillow's (or arrays of their pixels);
        numbers, labels and dictionaries are Python's own. Floats are rounded to the width of their port, as
        Core ML does; what a port cannot hold is an error, and nothing is reshaped or left out. Optional
        inputs have defaults.

        Threads may share the model: what one gets, each of several gets. Predictions that share a ``state``
        happen one after the other.

        Raises:
            PredictionError: missing or unexpected names, wrong shapes or dtypes, or a missing state.
            PackageError: a value came out in another shape than the program declares.
            EngineError: the model was opened with ``skip_model_load``.
        """
        started = perf_counter_ns()
        if isinstance(data, Mapping):
            results: Any = self._loaded.run(data, state)
        else:
            results = [self._loaded.run(one, None) for one in _batch(data, state)]
        self.last_predict_duration_in_nano_seconds = perf_counter_ns() - started
        return results  # type: ignore[no-any-return]

    @property
    def is_package(self) -> bool:
        """Whether it is a folder, and not an ``.mlmodel`` that has everything inside."""
        return self._on_disk().is_package

    @property
    def is_temp_package(self) -> bool:
        """Whether the package goes with the model: it was in memory, and had to be written."""
        return self._on_disk().temporary is not None

    @property
    def package_path(self) -> str | None:
        """Where the model lies, if it is a package; from memory it is written to a temporary folder."""
        files = self._on_disk()
        return str(files.path.absolute()) if files.is_package else None

    @property
    def weights_dir(self) -> str | None:
        """The folder of the weights in the package, for ``MLModel(spec, weights_dir=…)``."""
        weights = self._on_disk().weights
        return None if weights is None else str(weights.absolute())

    def get_spec(self) -> Any:
        """The protobuf message with the texts that were assigned, a ``Model_pb2.Model`` of coremltools.

        Raises:
            MissingEngineError: coremltools is not installed.
            UnsupportedModelError: a pipeline that was read from a compiled model.
        """
        return parsed(self._encoded())

    def save(self, save_path: str | os.PathLike[str]) -> None:
        """Write the model with the texts that were assigned, in place of a model that is there.

        ``.mlpackage`` (``.mlmodel`` for what was read from one) is added to a name without an ending.

        Raises:
            PackageError: another ending, or a folder that is no package is in the place.
            UnsupportedModelError: a pipeline that was read from a compiled model.
            OSError: the disk is full.
        """
        saved(self._on_disk(), self._encoded(), save_path)

    def get_compiled_model_path(self) -> str:
        """Where Core ML has the model that it compiled from this one, for as long as it is open.

        Raises:
            EngineError: another engine than ``coreml`` runs it.
        """
        opened = self._runner.opened if isinstance(self._runner, ModelRunner) else None
        if not isinstance(opened, CoreMLModel):
            raise EngineError(
                "expected a model that Core ML has compiled, with engine='coreml' on a Mac, "
                f"got the engine {self.engine.name}; sd_mil.compile_model writes an .mlmodelc anywhere"
            )
        return str(opened.model.get_compiled_model_path())

    @classmethod
    def get_available_compute_devices(cls) -> list[Any]:
        """The devices that Core ML has, as coremltools names them.

        Raises:
            EngineError: this is no Mac.
            MissingEngineError: coremltools is not installed.
        """
        return compute_devices()

    def __repr__(self) -> str:
        ports = ", ".join(map(str, self.inputs.values()))
        results = ", ".join(map(str, self.outputs.values()))
        return f"MLModel({self.package.path!r}: {ports} -> {results})"

    @property
    def _loaded(self) -> Runner:
        if self._runner is None:
            raise EngineError("expected a model that was loaded, got one with skip_model_load=True")
        return self._runner

    def _on_disk(self) -> ModelFiles:
        if self._files is None:
            self._files = files_of(self.package)
        return self._files

    def _encoded(self) -> bytes:
        return self._on_disk().encoded(self.package, self._metadata.described(self.package, self._function))


def _opened(
    model: Any, weights: str | os.PathLike[str] | None
) -> tuple[Package | Pipeline, ModelFiles | None]:
    if isinstance(model, Package | Pipeline):
        return model, None
    if hasattr(model, "SerializeToString"):
        files = files_of_specification(model, weights)
        return read_model(files.path), files
    path = Path(model).expanduser()
    read = read_model(path)
    return read, files_at(path, read)


def _stated(model: Package | Pipeline, function: str | None) -> Description:
    return described(model, function)[1] if isinstance(model, Package) else model.description


def _batch(data: Any, state: object) -> Sequence[Mapping[str, Any]]:
    if state is not None:
        raise PredictionError("expected one dictionary of inputs with a state, got several: predict each")
    if (
        isinstance(data, str)
        or not isinstance(data, Sequence)
        or not all(isinstance(one, Mapping) for one in data)
    ):
        raise PredictionError(f"expected a dictionary of inputs or a list of some, got {type(data).__name__}")
    return data


def _by_name(ports: Iterable[Port]) -> Mapping[str, Port]:
    return MappingProxyType({port.name: port for port in ports})

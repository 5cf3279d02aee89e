"""Core ML itself, on a Mac. Thin on purpose: it can only be tried there."""

from __future__ import annotations

import contextlib
import importlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from sd_mil.engines.compiled_models import entry_of
from sd_mil.engines.protocol import check_choice
from sd_mil.errors import EngineError, MissingEngineError
from sd_mil.ir.program import Package, Pipeline

ComputeUnit: TypeAlias = Literal["ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY"]


@dataclass(frozen=True, slots=True)
class CoreML:
    """``coremltools.models.MLModel`` on the file that a model was read from, compiled once for each content.

    ``compute_unit``: where Core ML may run it; None leaves that to who opens the model, and is ``"ALL"``.
    ``optimization_hints`` are those of coremltools' ``MLModel``.

    Raises:
        EngineError: another compute unit, or this is no Mac.
    """

    compute_unit: ComputeUnit | None = None
    optimization_hints: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check the compute unit and the system."""
        if self.compute_unit is not None:
            check_choice("compute_unit", self.compute_unit, get_args(ComputeUnit))
        if platform.system() != "Darwin":
            raise EngineError(f"expected macOS for the engine coreml, got {platform.system()}: use portable")

    @property
    def name(self) -> str:
        """``coreml``."""
        return "coreml"

    def open(self, model: Package | Pipeline, function: str | None = None) -> CoreMLModel:
        """See :class:`sd_mil.engines.ModelEngine`.

        Raises:
            EngineError: Core ML refuses the model.
            MissingEngineError: coremltools is not installed.
        """
        coremltools = _coremltools()
        unit = self.compute_unit or "ALL"
        named: dict[str, Any] = {} if function is None else {"function_name": function}
        if self.optimization_hints is not None:
            named["optimization_hints"] = dict(self.optimization_hints)
        given = {"compute_units": coremltools.ComputeUnit[unit], **named}
        try:
            made, compiled = _loaded(coremltools.models, model.path, given)
        except Exception as error:  # Core ML's come as RuntimeError, those of coremltools as anything
            raise EngineError(f"{model.path}: expected a model that Core ML loads, got: {error}") from error
        return CoreMLModel(made, f"Core ML by coremltools {coremltools.__version__}, {unit}", compiled)


def _loaded(models: Any, path: str, given: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The model at ``path``, and where its compiled form is if coremltools does not know.

    It is compiled if it is no compiled one and was not compiled before.
    """
    if path.rstrip("/").endswith(".mlmodelc"):
        return models.CompiledMLModel(path, **given), path
    entry = entry_of(path)
    if entry is not None and entry.is_there:
        try:
            return models.CompiledMLModel(entry.use(), **given), str(entry.path)
        except Exception:  # damaged, or of another system: the package itself says what is wrong, if it is
            entry.forget()
    made = models.MLModel(path, **given)
    if entry is not None:
        with contextlib.suppress(Exception):  # coremltools has no compiled form of some kinds of models
            entry.keep(made.get_compiled_model_path())
    return made, None


def compute_devices() -> list[Any]:
    """The devices that Core ML can run models on, as coremltools names them.

    Raises:
        EngineError: this is no Mac.
        MissingEngineError: coremltools is not installed.
    """
    CoreML()
    return list(_coremltools().models.MLModel.get_available_compute_devices())


def _coremltools() -> Any:
    try:
        return importlib.import_module("coremltools")
    except ModuleNotFoundError as error:
        raise MissingEngineError("coreml needs coremltools: pip install coremltools") from error


@dataclass(frozen=True, slots=True)
class CoreMLModel:
    """A model that Core ML has loaded."""

    model: Any
    arithmetic: str
    compiled: str | None = None

    @property
    def compiled_path(self) -> str:
        """Where its compiled form is."""
        return self.compiled or str(self.model.get_compiled_model_path())

    def predict(self, data: Mapping[str, Any], state: Any | None) -> dict[str, Any]:
        """One prediction.

        Raises:
            EngineError: Core ML fails.
        """
        given = {} if state is None else {"state": state}
        try:
            return dict(self.model.predict(dict(data), **given))
        except Exception as error:  # as above
            raise EngineError(f"expected Core ML to predict, got: {error}") from error

    def make_state(self) -> Any:
        """coremltools' ``MLState``."""
        return self.model.make_state()

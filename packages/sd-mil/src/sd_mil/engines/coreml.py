"""Core ML itself, on a Mac. Thin on purpose: it can only be tried there."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from sd_mil.engines.protocol import check_choice
from sd_mil.errors import EngineError, MissingEngineError
from sd_mil.ir.program import Package, Pipeline

ComputeUnit: TypeAlias = Literal["ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY"]


@dataclass(frozen=True, slots=True)
class CoreML:
    """``coremltools.models.MLModel`` on the file that a model was read from.

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
        is_compiled = model.path.rstrip("/").endswith(".mlmodelc")
        kind = coremltools.models.CompiledMLModel if is_compiled else coremltools.models.MLModel
        named: dict[str, Any] = {} if function is None else {"function_name": function}
        if self.optimization_hints is not None:
            named["optimization_hints"] = dict(self.optimization_hints)
        try:
            made = kind(model.path, compute_units=coremltools.ComputeUnit[unit], **named)
        except Exception as error:  # Core ML's come as RuntimeError, those of coremltools as anything
            raise EngineError(f"{model.path}: expected a model that Core ML loads, got: {error}") from error
        return CoreMLModel(made, f"Core ML by coremltools {coremltools.__version__}, {unit}")


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

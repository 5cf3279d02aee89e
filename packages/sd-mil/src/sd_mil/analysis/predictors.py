"""Whatever computes outputs from inputs, as one function from arrays to named values."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from sd_mil.analysis.pairing import renamed
from sd_mil.errors import ComparisonError, MissingEngineError, load_error
from sd_mil.format.recognition import recognise_file
from sd_mil.ir.program import Package, Pipeline
from sd_mil.predict.model import MLModel

Predictor: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]


def predictor(model: object) -> Predictor:
    """A path (an ONNX file, or a model), a read package, an :class:`MLModel`, a torch module or a callable.

    Raises:
        ComparisonError: something else.
        MissingEngineError: an ONNX file, and onnxruntime is not installed.
        EngineError: ... or it does not load.
    """
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        return _onnx(path) if path.suffix == ".onnx" else _model(MLModel(path))
    if isinstance(model, Package | Pipeline):
        return _model(MLModel(model))
    if isinstance(model, MLModel):
        return _model(model)
    torch = sys.modules.get("torch")  # whoever has a module of torch's has imported it
    if torch is not None and isinstance(model, torch.nn.Module):
        return _torch(model, torch)
    if callable(model):
        return lambda inputs: _named(model(dict(inputs)))
    raise ComparisonError(f"expected a path, a model or a callable to compare, got {type(model).__name__}")


def _model(model: MLModel) -> Predictor:
    def predict(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return model.predict(inputs, model.make_state() if model.states else None)

    return predict


def _onnx(path: Path) -> Predictor:
    session = _onnx_session(path)
    dtypes = {one.name: one.type for one in session.get_inputs()}
    names = [one.name for one in session.get_outputs()]

    def predict(inputs: Mapping[str, Any]) -> dict[str, Any]:
        given = renamed(inputs, list(dtypes))
        arrays = {name: _onnx_array(value, name, dtypes[name]) for name, value in given.items()}
        try:
            return dict(zip(names, session.run(names, arrays), strict=True))
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise ComparisonError(f"expected {path.name!r} to run, got: {error}") from error

    return predict


def _onnx_session(path: Path) -> Any:
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise MissingEngineError("ONNX files need onnxruntime: pip install onnxruntime") from error
    except ImportError as error:
        raise load_error("onnxruntime", error) from error
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        kind = recognise_file(path) if path.is_file() else None
        got = f"{kind}" if kind is not None and "ONNX" not in kind.name else str(error)
        raise ComparisonError(f"expected an ONNX model in {str(path)!r}, got {got}") from error


def _onnx_array(value: Any, name: str, kind: str) -> np.ndarray:
    if kind not in _ONNX_DTYPES:
        raise ComparisonError(f"expected numbers for the ONNX input {name!r}, got {kind}")
    return np.asarray(value).astype(_ONNX_DTYPES[kind])


_ONNX_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
}


def _torch(module: Any, torch: Any) -> Predictor:
    """Floats in the module's own dtype, integers as int64; by name where ``forward`` has these names."""
    floats = next((one.dtype for one in module.parameters() if one.is_floating_point()), torch.float32)
    code = getattr(type(module).forward, "__code__", None)
    parameters = set() if code is None else set(code.co_varnames[: code.co_argcount])

    def tensor(value: Any) -> Any:
        made = torch.from_numpy(np.ascontiguousarray(value))
        return made.to(floats if made.is_floating_point() else made.dtype)

    def predict(inputs: Mapping[str, Any]) -> dict[str, Any]:
        tensors = {name: tensor(_widened(value)) for name, value in inputs.items()}
        with torch.no_grad():
            by_name = set(tensors) <= parameters
            return _named(module(**tensors) if by_name else module(*tensors.values()))

    return predict


def _widened(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


def _named(result: Any) -> dict[str, Any]:
    """Outputs by name, or by their place."""
    if isinstance(result, Mapping):
        return {str(name): _array(value) for name, value in result.items() if value is not None}
    several = result if isinstance(result, tuple | list) else (result,)
    return {str(place): _array(value) for place, value in enumerate(several)}


def _array(value: Any) -> Any:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return (value.float() if value.is_floating_point() else value).numpy()
    return value

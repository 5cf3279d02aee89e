"""Engines as objects: the table of their names, one from outside, and Core ML against a recorded stand-in."""

import enum
import sys
import types
from dataclasses import dataclass

import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import EngineError, MLModel, PredictionError, UnsupportedModelError, first_divergence
from sd_mil.engines import ENGINES, CoreML, ModelEngine, OpenVINO, ProgramEngine, Reference, engine_named

X = np.array([[1, 2, 3], [4, 5, 6]], np.float16)
Y = X * np.float16([1, 2, 3]) + np.float16([[0.5], [-0.5]])


@pytest.fixture
def package(tmp_path):
    return graphs.write(tmp_path)


def test_names_are_those_of_the_table(monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    for name, make in ENGINES.items():
        engine = engine_named(name)
        assert isinstance(engine, make)
        assert engine.name == name
        assert isinstance(engine, ProgramEngine) != isinstance(engine, ModelEngine)
        assert engine_named(engine) is engine
    assert engine_named("auto") == CoreML()
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert engine_named("auto") == OpenVINO()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cuda", {}, "expected engine to be one of auto, portable, reference, coreml, got 'cuda'"),
        ("Portable", {}, "got 'Portable'"),
        ("", {}, "got ''"),
        (3, {}, "expected an engine or the name of one, got int"),
        (
            "portable",
            {"rounding": "fp16"},
            "expected no rounding for the engine portable, got 'fp16': only ref",
        ),
        ("portable", {"precision": "fp8"}, "expected precision to be one of 'fp32', 'bf16', got 'fp8'"),
        ("reference", {"precision": "bf16"}, "expected precision to be one of 'fp32', got 'bf16'"),
        ("reference", {"rounding": "fp8"}, "expected rounding to be one of 'fp16', got 'fp8'"),
        (Reference(), {"rounding": "fp16"}, "expected rounding to be given to the engine itself"),
    ],
)
def test_what_is_not_there_is_refused(name, options, said):
    with pytest.raises(EngineError, match=said):
        engine_named(name, **options)


def test_core_ml_is_refused_elsewhere(monkeypatch, package):
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(EngineError, match="expected macOS for the engine coreml, got Linux: use portable"):
        MLModel(package, "coreml")


@dataclass
class Doubling:
    """An engine from outside: the reference engine's results, doubled."""

    name: str = "doubling"

    def compile(self, program, function=None):
        inner = Reference().compile(program, function)

        class Compiled:
            arithmetic = "doubled"

            def run(self, inputs, state=None):
                return {name: 2 * array for name, array in inner.run(inputs, state).items()}

        return Compiled()


def test_an_engine_from_outside(package, monkeypatch):
    made = MLModel(package, Doubling())
    np.testing.assert_array_equal(made.predict({"x": X})["y"], 2 * Y)
    assert made.arithmetic == "doubled"
    monkeypatch.setitem(ENGINES, "doubling", Doubling)
    np.testing.assert_array_equal(MLModel(package, "doubling").predict({"x": X})["y"], 2 * Y)
    report = first_divergence(MLModel(package, "reference"), made, {"x": X})
    assert report.first is not None


class Unit(enum.Enum):
    """coremltools' own, as version 9 has it."""

    ALL = 1
    CPU_AND_GPU = 2
    CPU_ONLY = 3
    CPU_AND_NE = 4


def coremltools_recorded(calls, *, fails=None):
    """What of coremltools' API is used: constructor, ``predict`` and ``make_state`` as version 9 has them."""

    class MLModel:
        def __init__(self, model, compute_units=Unit.ALL, function_name=None):
            calls.append((type(self).__name__, model, compute_units, function_name))
            if fails == "load":
                raise RuntimeError("Error compiling model")

        def predict(self, data, state=None):
            calls.append(("predict", sorted(data), state))
            if fails == "predict":
                raise RuntimeError("Error in declaring network")
            return {"more": np.zeros(1), "y": np.asarray(data["x"], np.float32) * 3}

        def make_state(self):
            return "state"

    class CompiledMLModel(MLModel):
        pass

    module = types.ModuleType("coremltools")
    module.__version__, module.ComputeUnit = "9.0", Unit
    module.models = types.SimpleNamespace(MLModel=MLModel, CompiledMLModel=CompiledMLModel)
    return module


@pytest.fixture
def mac(monkeypatch):
    """A Mac, as far as this package asks."""
    calls = []
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setitem(sys.modules, "coremltools", coremltools_recorded(calls))
    return calls


def test_core_ml_gets_what_it_is_given(mac, package):
    made = MLModel(package, CoreML("CPU_AND_NE"))
    assert made.arithmetic == "Core ML by coremltools 9.0, CPU_AND_NE"
    result = made.predict({"x": X})
    assert list(result) == ["y"]  # ports only
    np.testing.assert_array_equal(result["y"], X * np.float32(3))
    assert mac == [("MLModel", str(package), Unit.CPU_AND_NE, None), ("predict", ["x"], None)]


@pytest.mark.parametrize("data", [{}, {"x": X, "z": X}])
def test_core_ml_is_not_asked_for_what_does_not_fit(data, mac, package):
    made = MLModel(package, "coreml")
    with pytest.raises(PredictionError, match="expected inputs"):
        made.predict(data)
    with pytest.raises(PredictionError, match="expected a state if and only if the model has states"):
        made.predict({"x": X}, state="state")
    assert [call[0] for call in mac] == ["MLModel"]


@pytest.mark.parametrize(("fails", "said"), [("load", "compiling model"), ("predict", "declaring network")])
def test_what_core_ml_says_is_an_engine_error(fails, said, mac, package, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", coremltools_recorded(mac, fails=fails))
    with pytest.raises(EngineError, match=said):
        MLModel(package, "coreml").predict({"x": X})


def test_core_ml_has_no_values_in_between(mac, package):
    with pytest.raises(UnsupportedModelError, match="expected an engine that executes programs, got coreml"):
        first_divergence(MLModel(package, "reference"), MLModel(package, "coreml"), {"x": X})


def test_coremltools_has_that_api():
    coremltools = pytest.importorskip("coremltools", exc_type=ImportError)
    import inspect

    parameters = inspect.signature(coremltools.models.MLModel.__init__).parameters
    assert {"model", "compute_units", "function_name"} <= parameters.keys()
    assert {"path", "compute_units"} <= inspect.signature(
        coremltools.models.CompiledMLModel.__init__
    ).parameters.keys()
    assert {unit.name for unit in Unit} <= {unit.name for unit in coremltools.ComputeUnit}
    assert {"data", "state"} <= inspect.signature(coremltools.models.MLModel.predict).parameters.keys()
    assert hasattr(coremltools.models.MLModel, "make_state")

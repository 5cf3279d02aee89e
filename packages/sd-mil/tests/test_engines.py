"""Engines as objects: the table of their names, one from outside, and Core ML against a recorded stand-in."""

import enum
import shutil
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


def coremltools_recorded(calls, *, fails=None, compiled=None):
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

        def get_compiled_model_path(self):
            if compiled is None:
                raise RuntimeError("not available")
            return str(compiled)

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
    monkeypatch.setenv("SD_MIL_CACHE", "off")
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


@pytest.fixture
def compiling(monkeypatch, tmp_path):
    """A Mac whose Core ML compiles into a folder of its own."""
    calls, compiled = [], tmp_path / "temporary.mlmodelc"
    compiled.mkdir()
    (compiled / "model.mil").write_text("program")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setenv("SD_MIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "coremltools", coremltools_recorded(calls, compiled=compiled))
    return calls, tmp_path / "cache" / "compiled"


def test_the_second_launch_does_not_compile(compiling, package):
    calls, kept = compiling
    for _ in range(2):
        model = MLModel(package, CoreML("CPU_AND_NE"))
        result = model.predict({"x": X})
        np.testing.assert_array_equal(result["y"], X * np.float32(3))
    (entry,) = kept.iterdir()
    assert (entry / "model.mil").read_text() == "program"
    assert model.get_compiled_model_path() == str(entry)
    loads = [call for call in calls if call[0] != "predict"]
    unit = Unit.CPU_AND_NE
    assert loads == [("MLModel", str(package), unit, None), ("CompiledMLModel", str(entry), unit, None)]


def test_another_content_is_compiled(compiling, package, tmp_path):
    calls, kept = compiling
    MLModel(package, "coreml")
    changed = shutil.copytree(package, tmp_path / "other.mlpackage")
    MLModel(changed, "coreml")
    assert [call[0] for call in calls] == ["MLModel", "CompiledMLModel"]  # the same files elsewhere
    manifest = changed / "Manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    MLModel(changed, "coreml")
    assert [call[0] for call in calls] == ["MLModel", "CompiledMLModel", "MLModel"]
    assert len(list(kept.iterdir())) == 2


def test_a_damaged_entry_is_compiled_again(compiling, package, monkeypatch):
    calls, kept = compiling
    MLModel(package, "coreml")
    models = sys.modules["coremltools"].models

    def refuse(*_, **__):
        raise RuntimeError("damaged")

    monkeypatch.setattr(models, "CompiledMLModel", refuse)
    MLModel(package, "coreml")
    assert [call[0] for call in calls] == ["MLModel", "MLModel"]
    assert len(list(kept.iterdir())) == 1


def test_what_has_no_room_is_not_kept(compiling, package, monkeypatch):
    calls, kept = compiling
    monkeypatch.setenv("SD_MIL_CACHE_BYTES", "3")
    MLModel(package, "coreml")
    assert [call[0] for call in calls] == ["MLModel"]
    assert not kept.is_dir() or not list(kept.iterdir())


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
    assert hasattr(coremltools.models.MLModel, "get_compiled_model_path")

"""What libraries and the environment raise while an engine loads: one typed line that says which."""

import importlib.abc
import sys

import mil_graphs as graphs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_mil import EngineError, MissingEngineError, MLModel, SdMilError, compare, default_cache

MAP = "openvino/lib.so: failed to map segment from shared object"


class Broken(importlib.abc.MetaPathFinder):
    """Finds a library that is installed and cannot be loaded."""

    def __init__(self, name, error):
        self.name, self.error = name, error

    def find_spec(self, fullname, *_):
        if fullname == self.name:
            raise self.error


def breaks(monkeypatch, name, error):
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(name, error), *sys.meta_path])


def test_an_engine_that_is_installed_and_does_not_load(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    breaks(monkeypatch, "openvino", ImportError(MAP))
    with pytest.raises(
        EngineError, match=r"expected OpenVINO to load, got: .*failed to map segment"
    ) as caught:
        MLModel(graphs.write(tmp_path))
    assert not isinstance(caught.value, MissingEngineError)


def test_an_engine_that_is_not_installed(tmp_path, monkeypatch):
    breaks(monkeypatch, "openvino", ModuleNotFoundError("No module named 'openvino'"))
    with pytest.raises(MissingEngineError, match="pip install"):
        MLModel(graphs.write(tmp_path))


@pytest.mark.parametrize("place", ["__init__", "get_property"])
def test_plug_ins_that_are_not_found(tmp_path, monkeypatch, place):
    openvino = pytest.importorskip("openvino")

    def fails(*_):
        raise RuntimeError(
            "Exception from core.cpp:268:\nCannot load library 'libopenvino_intel_cpu_plugin.so'\n"
        )

    monkeypatch.setattr(openvino, "Core", type("Core", (), {place: fails}))
    with pytest.raises(EngineError, match="expected OpenVINO to load, got: Cannot load library 'libopenvino"):
        MLModel(graphs.write(tmp_path))


def test_libraries_of_comparisons(tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08\x3a\x00")
    breaks(monkeypatch, "onnxruntime", ImportError("DLL load failed"))
    with pytest.raises(EngineError, match="expected onnxruntime to load, got: DLL load failed"):
        compare(tmp_path / "m.onnx", lambda x: x, {"x": np.ones(2)})
    breaks(monkeypatch, "onnxruntime", ModuleNotFoundError("onnxruntime"))
    with pytest.raises(MissingEngineError, match="pip install onnxruntime"):
        compare(tmp_path / "m.onnx", lambda x: x, {"x": np.ones(2)})


@pytest.mark.parametrize("folder", ["~nobody-of-this-name/x", "x" * 5000, "a\nb" * 2000])
def test_a_cache_that_cannot_be(monkeypatch, folder):
    monkeypatch.setenv("SD_MIL_CACHE", folder)
    with pytest.raises(EngineError, match="expected a folder, or 'off', in SD_MIL_CACHE") as caught:
        default_cache()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


def test_a_home_that_is_not_known(monkeypatch):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SD_MIL_CACHE", raising=False)
    monkeypatch.setattr("sd_mil.cache._users_folder", unknown)
    with pytest.raises(EngineError, match="SD_MIL_CACHE, got the user's cache folder"):
        default_cache()


@pytest.mark.parametrize("limit", ["x", "-1", "1.5", "9" * 5000])
def test_a_limit_that_is_no_number(monkeypatch, tmp_path, limit):
    monkeypatch.setenv("SD_MIL_CACHE", str(tmp_path))
    monkeypatch.setenv("SD_MIL_CACHE_BYTES", limit)
    with pytest.raises(EngineError, match="expected a number of bytes"):
        default_cache()


@given(st.text(max_size=5000))
def test_messages_are_one_line_of_bounded_length(text):
    said = str(SdMilError(text))
    assert said.isprintable()
    assert len(said) < 1600
    if len(text) < 1000 and text.isprintable():
        assert said == text

import importlib
import os
import signal
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import Description, MLModel, Port, read_package, write_package
from sd_mil.format.appearing import appearing


def test_metadata_survives(tmp_path):
    made = graphs.affine()
    described = Description(
        (Port("x", (2, 3), "float16", "an input"),),
        (Port("y", (2, 3), "float32"),),
        "short",
        "1.0",
        "me",
        "MIT",
        {"key": "value", "ümlaut": ""},
    )
    assert read_package(graphs.write(tmp_path, made, described)).description == described


def test_an_existing_path_is_left_alone(tmp_path):
    made = graphs.affine()
    with pytest.raises(FileExistsError):
        write_package(tmp_path, made, graphs.description(made))
    assert list(tmp_path.iterdir()) == []


def test_a_package_appears_when_it_is_whole(tmp_path):
    seen = []
    made = graphs.affine()
    target = tmp_path / "model.mlpackage"
    write_package(target, made, graphs.description(made), check=lambda: seen.append(target.exists()))
    assert seen
    assert not any(seen)
    assert list(tmp_path.iterdir()) == [target]


def test_what_was_written_before_an_error_is_removed(tmp_path):
    def stop():
        raise KeyboardInterrupt

    made = graphs.affine()
    with pytest.raises(KeyboardInterrupt):
        write_package(tmp_path / "model.mlpackage", made, graphs.description(made), check=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_leaves_nothing_at_the_path(tmp_path):
    """Neither half a package, nor anything in the way of the next attempt."""
    script = """
import os, signal, sys
import mil_graphs as graphs
from sd_mil import write_package
made = graphs.affine()
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
write_package(sys.argv[1], made, graphs.description(made), check=kill)
"""
    target = tmp_path / "model.mlpackage"
    tests = os.path.dirname(graphs.__file__)
    killed = subprocess.run([sys.executable, "-c", script, target], cwd=tests, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1
    assert read_package(graphs.write(tmp_path)).program.main.outputs == ("y",)
    assert list(tmp_path.iterdir()) == [target]


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    """Two at once: the second to end finds the first's package, and neither takes the other's folder."""
    target = tmp_path / "model.mlpackage"
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(FileExistsError))
        slow = stack.enter_context(appearing(target))
        with appearing(target) as quick:
            (quick / "a").touch()
        assert slow.is_dir()
    assert [path.name for path in tmp_path.rglob("*")] == ["model.mlpackage", "a"]


class Msvcrt:
    """What Windows has instead of ``fcntl``: it locks files, and only those."""

    LK_NBLCK = 2

    def __init__(self):
        self.fcntl = importlib.import_module("fcntl")

    def locking(self, descriptor, mode, count):
        assert stat.S_ISREG(os.fstat(descriptor).st_mode)
        assert (mode, count) == (self.LK_NBLCK, 1)
        self.fcntl.flock(descriptor, self.fcntl.LOCK_EX | self.fcntl.LOCK_NB)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are not listed here")
def test_windows_holds_and_sweeps_too(tmp_path, monkeypatch):
    """Of two packages being written each stays; of a killed process, folder and lock go."""
    stand_in, rename = Msvcrt(), Path.rename
    monkeypatch.setitem(sys.modules, "msvcrt", stand_in)
    monkeypatch.setitem(sys.modules, "fcntl", None)

    def strict(self, target):
        held = [os.path.realpath(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")]
        if any(Path(one).is_relative_to(self) for one in held):
            raise PermissionError(f"in use: {self}")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", strict)
    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "a"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with appearing(tmp_path / "a") as first:
        left = first.with_name(f".{first.name.split('.')[1]}.0123abcd.partial")
        left.mkdir()
        left.with_name(f"{left.name}.lock").touch()
        with appearing(tmp_path / "b"):
            pass
        with ExitStack() as stack:
            stack.enter_context(pytest.raises(ZeroDivisionError))
            second = stack.enter_context(appearing(tmp_path / "a"))
            assert not left.exists()
            assert first.is_dir()
            raise ZeroDivisionError
        assert not second.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_coremltools_reads_what_is_written(tmp_path):
    ct = pytest.importorskip("coremltools", exc_type=ImportError)
    path = graphs.write(tmp_path)
    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    assert [one.name for one in spec.description.input] == ["x"]
    assert set(spec.mlProgram.functions) == {"main"}


def test_sub_byte_weights_survive_and_decode(tmp_path):
    lut = np.array([10, 20, 30, 40], np.float16).reshape(1, 1, 4, 1)
    indices = graphs.Constant(
        graphs.TensorType("uint2", (2, 3)), np.array([0b11_10_01_00, 0b0001], np.uint8), stored=2
    )
    made = graphs.program(
        {"x": ("fp16", 2, 3)},
        [
            graphs.call(
                "constexpr_lut_to_dense",
                "w",
                ("fp16", 2, 3),
                indices=indices,
                lut=graphs.tensor(lut, stored=True),
            ),
            graphs.call("add", "y", ("fp16", 2, 3), x="x", y="w"),
        ],
        ["y"],
    )
    model = MLModel(graphs.write(tmp_path, made), engine="reference")
    result = model.predict({"x": np.zeros((2, 3), np.float16)})["y"]
    assert result.tolist() == [[10, 20, 30], [40, 20, 10]]

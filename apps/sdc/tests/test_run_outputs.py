"""What ``sdc run`` writes and says: everything or nothing, and every output of both models."""

import errno
import json
import os
import re
import subprocess
import sys

import mil_models as models
import numpy as np
import pytest
from PIL import Image
from sdc.outputs import save

RESULTS = {
    "a": np.ones(3, np.float32),
    "picture": Image.new("RGB", (2, 2)),
    "label": "cat",
    "odds": {"cat": 1.0},
}


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def model(tmp_path):
    return models.doubling(tmp_path / "model.mlpackage", x=("float32", (1, 4)), z=("float32", (2,)))


def test_every_kind_of_output(tmp_path):
    assert save(RESULTS, tmp_path / "new" / "folder") == ["a.npy", "picture.png", "label.json", "odds.json"]
    assert sorted(tree(tmp_path / "new" / "folder")) == ["a.npy", "label.json", "odds.json", "picture.png"]
    np.testing.assert_array_equal(np.load(tmp_path / "new" / "folder" / "a.npy"), RESULTS["a"])
    assert json.loads((tmp_path / "new" / "folder" / "odds.json").read_text()) == {"cat": 1.0}
    with Image.open(tmp_path / "new" / "folder" / "picture.png") as opened:
        assert opened.size == (2, 2)


def test_other_files_stay_and_old_outputs_go(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "a.npy").write_text("old")
    save(RESULTS, tmp_path)
    assert sorted(tree(tmp_path)) == ["a.npy", "label.json", "mine.txt", "odds.json", "picture.png"]
    assert np.load(tmp_path / "a.npy").shape == (3,)


@pytest.mark.parametrize(
    "names", [("a/b", "a_b", "a:b"), ("Y", "y"), (".", "..", ""), ("x" * 300, "x" * 301)]
)
def test_outputs_of_similar_names_are_all_kept(tmp_path, names):
    files = save({name: np.full(1, index) for index, name in enumerate(names)}, tmp_path / "out")
    assert len({file.casefold() for file in files}) == len(names)
    assert [int(np.load(tmp_path / "out" / file)[0]) for file in files] == list(range(len(names)))


@pytest.mark.parametrize("raised", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("place", ["write", "second replace", "third replace"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_leaves_what_was_there(sdc, model, tmp_path, monkeypatch, raised, place, exists):
    out = tmp_path / "some" / "out"
    if exists:
        out.mkdir(parents=True)
        (out / "twice_x.npy").write_text("old")
        (out / "mine.txt").write_text("mine")
    before = tree(tmp_path)
    if place == "write":
        monkeypatch.setattr("sdc.outputs._write", failing(lambda *_: None, 2, raised))
    else:
        monkeypatch.setattr("os.replace", failing(os.replace, 2 if place.startswith("second") else 3, raised))
        if not exists:
            monkeypatch.setattr("pathlib.Path.rename", failing(None, 1, raised))
    done = sdc("run", model, "--random", "-o", out)
    assert done.status == (130 if isinstance(raised, KeyboardInterrupt) else 1)
    assert len(done.err.strip().splitlines()) == 1
    assert tree(tmp_path) == before


def failing(action, call, raised):
    """``action``, that fails at one of its calls."""
    calls = []

    def act(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise raised
        return action(*arguments)

    return act


def test_a_folder_is_not_replaced(sdc, model, tmp_path):
    (tmp_path / "out" / "twice_x.npy").mkdir(parents=True)
    (tmp_path / "out" / "twice_x.npy" / "thesis").write_text("years of work")
    before = tree(tmp_path)
    done = sdc("run", model, "--random", "-o", tmp_path / "out")
    assert done.status == 1
    assert "twice_x.npy" in done.err
    assert tree(tmp_path) == before


def test_a_file_is_no_folder(sdc, model, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert sdc("run", model, "--random", "-o", tmp_path / "out").status != 0
    assert (tmp_path / "out").read_text() == "mine"


def test_outputs_that_are_called_otherwise_are_compared(sdc, model, tmp_path):
    renamed = models.renamed(model, tmp_path / "other.mlpackage", "twice_z", "other")
    done = sdc("run", model, "--random", "--compare", renamed, "--json")
    assert done.status == 0, done.err
    rows = json.loads(done.out)["comparison"]["rows"]
    assert [(row["output"], row["other"], row["paired_by"]) for row in rows] == [
        ("twice_x", "twice_x", "name"),
        ("other", "twice_z", "shape and type"),
    ]
    done = sdc("run", model, "--random", "--compare", renamed)
    assert re.search(r"other \[2\] with twice_z, paired by shape and type: equal", " ".join(done.out.split()))


def test_an_output_that_one_model_lacks(sdc, model, tmp_path):
    lacking = models.without_output(model, tmp_path / "other.mlpackage", "twice_z")
    for pair in ((model, lacking), (lacking, model)):
        done = sdc("run", pair[0], "--random", "--compare", pair[1], "-o", tmp_path / "out")
        assert done.status == 1
        assert "twice_z" in done.err
        assert len(done.err.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_numbers_that_json_lacks(sdc, tmp_path):
    scalar = models.scalar(tmp_path / "scalar.mlpackage")
    done = sdc("run", scalar, "--input", "x=inf", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["outputs"][0]["value"] == "inf"


KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from sdc import outputs
step, folder = int(sys.argv[1]), Path(sys.argv[2])
calls = 0
def killing(function):
    def call(*arguments):
        global calls
        calls += 1
        if calls > step:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call
outputs._write = killing(outputs._write)
os.replace = killing(os.replace)
outputs.save({name: np.full(2, 7) for name in "ab"}, folder)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="drafts are not locked there, so nothing is swept")
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("step", range(6))
def test_what_a_killed_run_left(step, exists, tmp_path):
    """All of the old files or all of the new ones, and no draft, once the next run has been there."""
    folder = tmp_path / "out"
    if exists:
        folder.mkdir()
        for name in "ab":
            np.save(folder / f"{name}.npy", np.zeros(2))
    subprocess.run([sys.executable, "-c", KILLED, str(step), str(folder)], check=False)
    save({"c": np.ones(1)}, folder)
    left = {
        name: int(np.load(folder / f"{name}.npy")[0]) for name in "ab" if (folder / f"{name}.npy").exists()
    }
    assert left in ({"a": 0, "b": 0} if exists else {}, {"a": 7, "b": 7})
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_of_255_bytes(exists, tmp_path):
    folder = tmp_path / ("o" * 255)
    if exists:
        folder.mkdir()
    assert save(RESULTS, folder) == ["a.npy", "picture.png", "label.json", "odds.json"]

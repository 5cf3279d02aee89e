"""The Action's script on a repository of its own: two commits, packages that are well and that are not."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sd_mil as mil

pytest.importorskip("openvino")

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("check_packages", ROOT / "action" / "check_packages.py")
check_packages = importlib.util.module_from_spec(spec)
sys.modules["check_packages"] = check_packages
spec.loader.exec_module(check_packages)

HALF = mil.TensorType("fp16", (2, 3))


def package(path, scale):
    values = mil.Constant(HALF, np.full((2, 3), scale, np.float16), stored=12)
    operation = mil.Operation(
        "mul", "scaled", {"x": (mil.Reference("x"),), "y": (values,)}, (mil.Variable("y", HALF),)
    )
    main = mil.Function("main", "CoreML6", mil.Block((mil.Variable("x", HALF),), (operation,), ("y",)))
    ports = mil.Description((mil.Port("x", (2, 3), "float16"),), (mil.Port("y", (2, 3), "float16"),))
    shutil.rmtree(path, ignore_errors=True)
    mil.write_package(path, mil.Program({"main": main}), ports)


def git(root, *arguments):
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *author, *arguments], cwd=root, check=True, capture_output=True)  # noqa: S607


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    git(root, "init", "--quiet")
    for name in ("same", "worse", "close"):
        package(root / f"{name}.mlpackage", 0.5)
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "before")
    package(root / "worse.mlpackage", 0.25)
    package(root / "close.mlpackage", 0.5005)
    package(root / "new.mlpackage", 1.0)
    (root / "broken.mlpackage").mkdir()
    (root / "broken.mlpackage" / "Manifest.json").write_text("{}")
    return root


@pytest.fixture(scope="module")
def checked(repository, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    options = ["--base", "HEAD", "--table", out / "t.md", "--outputs", out / "o", "--sarif", out / "sarif"]
    status = check_packages.main([str(each) for each in (repository, *options)])
    rows = dict(
        re.findall(r"^\| (?:✅|❌) \| (\w+)\.mlpackage (.*)$", (out / "t.md").read_text(), re.MULTILINE)
    )
    return status, (out / "t.md").read_text(), rows, out


def test_what_changed_is_in_the_table(checked):
    status, text, rows, out = checked
    assert status == 1
    assert set(rows) == {"worse", "close", "new", "broken"}
    assert "| ✅ | new.mlpackage | 1 inputs, 1 outputs | yes | " in text
    assert rows["new"].endswith("| new |")
    assert "| ❌ | broken.mlpackage | " in text
    assert (out / "o").read_text() == "failed=2\n"


def test_what_is_far_off_names_its_operation(checked):
    _, text, rows, _ = checked
    assert "| ❌ | worse.mlpackage" in text
    assert re.search(r"\| y: [\d.]+ dB; first at mul y \|$", rows["worse"])
    assert "| ✅ | close.mlpackage" in text
    assert re.search(r"\| \d\d\.\d dB \|$", rows["close"])


def test_findings_are_written_for_code_hosts(checked):
    sarif = json.loads((checked[3] / "sarif" / "new.mlpackage.sarif").read_text())
    assert sarif["version"] == "2.1.0"


def test_the_base_leaves_no_trace(repository, checked):
    assert len(check_packages.git(repository, "worktree", "list").splitlines()) == 1


def test_a_commit_that_is_not_there_is_one_line(repository, capsys):
    assert check_packages.main([str(repository), "--base", "feedbeef"]) == 2
    assert "is fetch-depth 0?" in capsys.readouterr().err


def test_names_are_text():
    cell = check_packages.cell("a|b`c` @somebody\n[x](y) <img>")
    assert not set("|`@[<") & set(cell)
    assert "\n" not in cell


def test_the_action_hands_on_every_input():
    action = (ROOT / "action.yml").read_text()
    script = action.partition("runs:")[2]
    for name in re.findall(r"^  ([\w-]+):\n    description", action.partition("outputs:")[0], re.MULTILINE):
        assert f"inputs.{name}" in script, name
    body = "".join(re.findall(r"run: \|\n((?:        .*\n)+)", script))
    assert "${{" not in body  # inputs are text, never a part of the script

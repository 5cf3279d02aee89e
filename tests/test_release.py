"""What is released: metadata from one place, builds that anybody can repeat, names that stay."""

import json
import os
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import metadata
import public_names
import pytest
import sd_tokenize
import wheels

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def workspace(tmp_path):
    """The files that metadata.py reads and writes."""
    shutil.copy(ROOT / "LICENSE", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in metadata.PACKAGES:
        (tmp_path / folder).mkdir(parents=True)
        for name in ("pyproject.toml", "LICENSE"):
            shutil.copy(ROOT / folder / name, tmp_path / folder)
    return tmp_path


def test_every_package_says_what_metadata_py_has():
    assert metadata.stale(ROOT) == []


def test_metadata_that_differs_is_named_and_written(workspace, capsys):
    project = workspace / "packages/sd-mil/pyproject.toml"
    project.write_text(project.read_text().replace("Core ML models", "models"))
    (workspace / "apps/sdc/LICENSE").unlink()
    assert metadata.main(["--check"], workspace) == 1
    said = capsys.readouterr().err
    assert "packages/sd-mil/pyproject.toml" in said
    assert "apps/sdc/LICENSE" in said
    assert metadata.main(["--write"], workspace) == 0
    assert metadata.main(["--check"], workspace) == 0


def test_metadata_needs_its_place(workspace):
    project = workspace / "packages/sd-mil/pyproject.toml"
    project.write_text(project.read_text().replace("# end of shared", ""))
    with pytest.raises(metadata.MetadataError, match=r"packages/sd-mil/pyproject.toml: expected one block"):
        metadata.main(["--check"], workspace)


def test_a_release_needs_the_address_of_the_repository(workspace, monkeypatch, capsys):
    monkeypatch.setattr(metadata, "REPOSITORY", f"https://github.com/{metadata.PLACEHOLDER}/sdc")
    metadata.main(["--write"], workspace)
    assert metadata.main(["--release"], workspace) == 1
    assert "set REPOSITORY" in capsys.readouterr().err
    monkeypatch.setattr(metadata, "REPOSITORY", "https://github.com/somebody/sdc")
    metadata.main(["--write"], workspace)
    assert metadata.main(["--release"], workspace) == 0


@pytest.fixture
def package(tmp_path):
    return Path(shutil.copytree(ROOT / "packages/sd-tokenize", tmp_path / "sd-tokenize"))


def hatch_command(tmp_path):
    """``uv build`` without its isolated environment, which would ask the network for hatchling."""
    script = tmp_path / "build.py"
    script.write_text(
        "import sys; from hatchling.cli import hatchling; a = sys.argv\n"
        "sys.argv = ['hatchling', 'build', '-d', a[a.index('--out-dir') + 1]]; sys.exit(hatchling())\n"
    )
    return (sys.executable, str(script))


def test_two_builds_are_equal(package, tmp_path):
    command = hatch_command(tmp_path)
    wheels.build(package, tmp_path / "dist", "1700000000", command)
    assert sorted(path.suffix for path in (tmp_path / "dist").iterdir()) == [".gz", ".whl"]
    os.utime(package / "README.md", (10**9, 10**9))
    (package / "src/sd_tokenize/py.typed").touch()
    wheels.check_twice(package, tmp_path / "dist", "1700000000", command)
    with pytest.raises(wheels.BuildError, match=r"sd_tokenize-.*whl"):
        wheels.check_twice(package, tmp_path / "dist", "1600000000", command)


def test_a_wheel_has_its_licence_and_its_links(package, tmp_path):
    wheels.build(package, tmp_path / "dist", "1700000000", hatch_command(tmp_path))
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    for line in (
        "License-Expression: MIT",
        "Author: The sdc authors",
        "Project-URL: Homepage, ",
        "Keywords: ",
    ):
        assert line in text


def test_a_build_that_fails_is_an_error(tmp_path):
    with pytest.raises(wheels.BuildError, match="exit status 3"):
        wheels.build(tmp_path, tmp_path, "0", (sys.executable, "-c", "raise SystemExit(3)"))


def test_the_bill_of_materials_has_every_package(tmp_path):
    if shutil.which("uv") is None:
        pytest.skip("uv is not here")
    assert wheels.sbom(ROOT, tmp_path / "sbom.json") > 50
    bill = json.loads((tmp_path / "sbom.json").read_text())
    names = {one["name"] for one in bill["components"]}
    assert {"sd-mil", "sd-convert", "numpy", "torch"} <= names
    assert "pytest" not in names


def test_a_stranger_does_all_of_it(tmp_path, monkeypatch):
    """The steps, on a programme that does them all, and on some that leave one out."""
    done = tmp_path / "binaries"
    done.mkdir()
    script = """#!/bin/sh
echo "$(basename $0) $*" >> "$HOME/../said"
case "$1" in
completion) [ "$2" = "$LACKS" ] || touch "$HOME/of-$2" ;;
demo) mkdir -p sdc-demo; [ "$1" = "$LACKS" ] || touch sdc-demo/demo.png ;;
esac
"""
    for name in (wheels.APP, "sdc"):
        (done / name).write_text(script)
        (done / name).chmod(0o755)
    for lacks, said in (("", None), ("zsh", "completion zsh --install to write"), ("demo", "demo.png, got")):
        monkeypatch.setenv("LACKS", lacks)
        home = tmp_path / f"home{lacks}"
        home.mkdir()
        if said is None:
            wheels.try_programmes(done, home)
        else:
            with pytest.raises(wheels.BuildError, match=said):
                wheels.try_programmes(done, home)
    steps = (tmp_path / "said").read_text().splitlines()
    assert [step.split()[1] for step in steps[:6]] == ["--version", "doctor", *["completion"] * 3, "demo"]


def test_the_app_answers_to_its_own_name():
    project = tomllib.loads((ROOT / "apps/sdc/pyproject.toml").read_text())["project"]
    assert project["name"] == wheels.APP
    assert (
        project["scripts"][wheels.APP] == project["scripts"]["sdc"]
    )  # uvx runs what is called as the package


def test_public_names_are_pinned(capsys):
    """A name that goes needs a deprecation first (CONTRIBUTING.md); one that comes is written down."""
    assert public_names.main([]) == 0, f"{capsys.readouterr().out}python tools/public_names.py --write"


def test_names_that_come_and_go_are_told(tmp_path, monkeypatch, capsys):
    pinned = tmp_path / "names.json"
    monkeypatch.setattr(public_names, "MODULES", ("sd_tokenize",))
    public = sorted({*sd_tokenize.__all__, "Gone"} - {"Tokens"})
    pinned.write_text(json.dumps({"sd_tokenize": public}))
    assert public_names.main([], pinned) == 1
    assert capsys.readouterr().out == "- sd_tokenize.Gone\n+ sd_tokenize.Tokens\n"
    assert public_names.main(["--write"], pinned) == 0
    assert public_names.main([], pinned) == 0


def test_every_front_door_is_pinned():
    assert {path.name for path in ROOT.glob("packages/*/src/sd_*")} <= set(public_names.MODULES)

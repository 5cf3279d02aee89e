"""``sdc compile``: by sd-mil anywhere, by Apple's compiler where xcrun finds it (a stand-in here)."""

import os
import platform
import stat

import mil_models
import pytest
from sd_mil import read_package

#: Notes its arguments, and makes what coremlcompiler makes: a folder of the package's name.
XCRUN = """#!/bin/sh
echo "$@" >> "{log}"
[ "$1" = --find ] && exit {found}
[ -n "{fails}" ] && {{ echo "coremlcompiler: error: {fails}" >&2; exit 1; }}
made="$4/$(basename "$3" .mlpackage).mlmodelc"; mkdir "$made"; echo made > "$made/by"
"""


@pytest.fixture
def package(tmp_path):
    return mil_models.doubling(tmp_path / "unet.v1.mlpackage", x=("float16", (2, 3)))


@pytest.fixture
def xcrun(tmp_path, monkeypatch):
    """A Mac with Xcode, as far as this command looks."""

    def install(*, found=0, fails=""):
        folder, log = tmp_path / "bin", tmp_path / "log"
        folder.mkdir()
        tool = folder / "xcrun"
        tool.write_text(XCRUN.format(log=log, found=found, fails=fails))
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(platform, "system", lambda: "Darwin")
        return log

    return install


def test_a_package_becomes_a_compiled_model(sdc, package, tmp_path):
    out = tmp_path / "Unet.mlmodelc"
    done = sdc("compile", package, "-o", out, "--build-info", "coremlc-version=3=5", "--compiler", "sdc")
    assert done.status == 0, done.err
    assert done.out.split()[-1] == "sdc"
    assert '{"coremlc-version", "3=5"}' in (out / "model.mil").read_text()
    names = [one.name for one in read_package(out).program.operations()]
    assert names == [one.name for one in read_package(package).program.operations()]


def test_a_second_one_does_not_replace_the_first(sdc, package, tmp_path):
    out = tmp_path / "Unet.mlmodelc"
    out.mkdir()
    done = sdc("compile", package, "-o", out)
    assert done.status == 1
    assert "exists" in done.err.lower()
    assert list(out.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_apples_compiler_is_used_where_it_is(sdc, package, tmp_path, xcrun):
    log, out = xcrun(), tmp_path / "Unet.mlmodelc"
    done = sdc("compile", package, "-o", out)
    assert done.status == 0, done.err
    assert done.out.split()[-1] == "xcode"
    assert (out / "by").read_text() == "made\n"
    assert log.read_text().splitlines()[-1].startswith(f"coremlcompiler compile {package} ")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_without_it_ours_is_used_unless_it_was_asked_for(sdc, package, tmp_path, xcrun):
    xcrun(found=1)
    assert sdc("compile", package, "-o", tmp_path / "a.mlmodelc").out.split()[-1] == "sdc"
    done = sdc("compile", package, "-o", tmp_path / "b.mlmodelc", "--compiler", "xcode")
    assert done.status == 1
    assert "--compiler sdc" in done.err
    assert not (tmp_path / "b.mlmodelc").exists()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_what_apples_compiler_refuses_is_said_and_leaves_nothing(sdc, package, tmp_path, xcrun):
    xcrun(fails="unknown opset")
    before = sorted(tmp_path.iterdir())
    done = sdc("compile", package, "-o", tmp_path / "a.mlmodelc", "--compiler", "xcode")
    assert done.status == 1
    assert "unknown opset" in done.err
    assert [one for one in sorted(tmp_path.iterdir()) if one.name != "log"] == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "a.mlpackage"), ".mlmodelc"),
        (("-o", "a.mlmodelc", "--build-info", "novalue"), "KEY=VALUE"),
        (("-o", "a.mlmodelc", "--build-info", "a=1", "--build-info", "a=2"), "once"),
        (("-o", "a.mlmodelc", "--build-info", "a=1", "--compiler", "xcode"), "--build-info"),
    ],
)
def test_what_cannot_be_done_is_said(sdc, package, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = sdc("compile", package, *arguments)
    assert done.status != 0
    assert said in done.err
    assert sorted(tmp_path.iterdir()) == [package]

"""Every package in ``malformed/packages`` is refused with a typed error, in words, at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from sd_mil import MLModel, SdMilError

MALFORMED = Path(__file__).parent / "malformed"
CASES = sorted((MALFORMED / "packages").glob("*.mlpackage"))


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_packages", MALFORMED / "make_packages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("engine", ["reference", "portable"])
@pytest.mark.parametrize("package", CASES, ids=lambda path: path.stem)
def test_is_refused(package, engine, at_most):
    if engine == "portable":
        pytest.importorskip("openvino")
    with at_most(200_000), pytest.raises(SdMilError, match=r"expected|does not (know|run)") as caught:
        MLModel(package, engine=engine)
    assert "\n" not in str(caught.value)


def test_the_package_that_the_cases_damage_is_good(maker, tmp_path):
    written = maker.write_package(
        tmp_path / "good.mlpackage", maker.program(maker.constant(), maker.add()), maker.PORTS
    )
    assert list(MLModel(written.path, engine="reference").outputs) == ["y"]


def test_the_folder_is_what_the_script_makes(maker, tmp_path):
    maker.make(tmp_path / "packages")
    assert files(MALFORMED / "packages") == files(tmp_path / "packages")
    assert len(CASES) == len(maker.FILE_EDITS) + len(maker.PROGRAM_EDITS)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

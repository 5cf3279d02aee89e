"""What ``sdc doctor`` says of this machine, of one on which things are wrong, and of nobody's home."""

import importlib.metadata
import json
from pathlib import Path

import pytest
from sdc import doctor


@pytest.fixture
def findings(sdc):
    def look(*arguments):
        done = sdc("doctor", "--json", *arguments)
        found = json.loads(done.out)
        return done.status, {(one["section"], one["name"]): one for one in found["findings"]}

    return look


def test_what_is_here_is_there(findings):
    status, found = findings()
    assert status == 0
    assert found["releases", "numpy"]["value"] == importlib.metadata.version("numpy")
    assert found["engines", "reference"]["value"].startswith("reference engine, numpy")
    assert found["engines", "portable"]["verdict"] == "ok"
    assert {"here", "temporary", "cache"} == {name for section, name in found if section == "disk"}


def test_the_page_is_for_people(sdc):
    done = sdc("doctor")
    assert done.status == 0
    assert "nothing fails" in done.out
    assert str(Path.home()) + "/" not in done.out


def test_a_release_that_is_missing_or_does_not_fit_fails(findings, monkeypatch):
    genuine = importlib.metadata.version

    def version(name):
        if name == "numba":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "numpy" else genuine(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    status, found = findings()
    assert status == 1
    assert found["releases", "numba"]["consequence"] == "not installed: pip install numba"
    assert "sd-mil needs >=1.26" in found["releases", "numpy"]["consequence"]


def test_an_engine_that_computes_wrongly_fails(findings, monkeypatch):
    import sd_mil

    monkeypatch.setattr(sd_mil.MLModel, "predict", lambda _, data: {"y": data["x"]})
    status, found = findings()
    assert status == 1
    assert "expected twice the numbers" in found["engines", "portable"]["consequence"]


def test_a_library_that_does_not_load_is_found_by_imports(monkeypatch):
    monkeypatch.setattr(doctor, "CONVERSION", ("json", "no_such_library"))
    good, bad = [one for one in doctor.examine(imports=True) if one.section == "imports"]
    assert good.verdict == "ok"
    assert bad.verdict == "fails"
    assert "no_such_library" in bad.consequence


@pytest.mark.parametrize(
    ("free", "said"), [(10**9, "converting SD 1.5"), (10**11, ""), (None, "does not say")]
)
def test_little_memory_is_told(monkeypatch, free, said):
    monkeypatch.setattr("sd_runtime.available_memory", lambda: free)
    (found,) = doctor.memory()
    assert said in found.consequence
    assert (found.verdict == "ok") == (said == "")


def test_a_full_disk_and_a_cache_that_cannot_be_are_told(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5}))
    assert {one.verdict for one in doctor.disks()} == {"note"}
    monkeypatch.setenv("SD_MIL_CACHE_BYTES", "much")
    *_, decoded = doctor.caches()
    assert decoded.verdict == "fails"
    assert "SD_MIL_CACHE_BYTES" in decoded.consequence

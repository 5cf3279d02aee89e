"""Full disks, little memory, folders not to be written, being killed: one line, nothing left behind."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from sd_convert import (
    ConversionCache,
    ConversionOptions,
    LimitError,
    NotEnoughMemoryError,
    NotEnoughSpaceError,
    convert,
    open_checkpoint,
)
from sd_convert.conversion.limits import limits_named

MACHINE = sys.modules["sd_convert.conversion.convert"]  # the package has a function of the same name
Usage = namedtuple("Usage", "total used free")
HALVES = ConversionOptions(components=("vae_encoder", "vae_decoder"), compute_precision=("fp16",))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_too_little_space_is_said_before_it_is_used_up(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6 - 5000, 5000))
    (tmp_path / "out").mkdir()
    with pytest.raises(NotEnoughSpaceError, match="of free disk space"):
        convert(open_checkpoint(tiny), tmp_path / "out/bundle")
    assert names(tmp_path / "out") == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_files_that_may_not_grow(tiny: Path, tmp_path: Path) -> None:
    """As on a full disk, the system refuses in the middle of a file."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "out").mkdir()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
        with pytest.raises(NotEnoughSpaceError, match="File too large; nothing of it was left behind"):
            convert(open_checkpoint(tiny), tmp_path / "out/bundle", HALVES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), NotEnoughSpaceError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), NotEnoughSpaceError),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), NotEnoughMemoryError),
        (MemoryError(), NotEnoughMemoryError),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), NotEnoughMemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"), NotEnoughMemoryError),
        (OSError(errno.EIO, "Input/output error"), OSError),
        (ImportError("no module named torch"), ImportError),
    ],
)
def test_what_the_system_and_libraries_say(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, limits_named(Path("bundle")):
        raise error
    assert isinstance(caught.value, LimitError) == issubclass(expected, LimitError)
    assert "\n" not in str(caught.value)


def test_a_failure_behind_the_back_ends_the_work(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MACHINE._Work, "_write", write)
    with pytest.raises(NotEnoughSpaceError, match="No space left on device"):
        convert(open_checkpoint(tiny), tmp_path / "out/bundle")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        convert(open_checkpoint(tiny), tmp_path / "out/bundle")


def test_an_output_that_is_in_the_way(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        convert(open_checkpoint(tiny), tmp_path / "file" / "bundle")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_output_inside_the_checkpoint_leaves_the_checkpoint_as_it_was(tiny: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*") if path.is_file()}
    report = convert(open_checkpoint(tiny), tiny / "coreml", ConversionOptions(components=("vae_encoder",)))
    assert report.bundle == tiny / "coreml"
    after = {path: path.stat().st_mtime_ns for path in before}
    assert after == before
    open_checkpoint(tiny)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is locked there, so nothing is swept")
def test_what_was_killed_is_cleared_away_and_its_work_is_used(tiny: Path, tmp_path: Path) -> None:
    """Killed while the first of two packages is being written."""
    checkpoint, cache = open_checkpoint(tiny), ConversionCache(tmp_path / "cache")
    (tmp_path / "out").mkdir()
    child = os.fork()
    if not child:
        try:
            MACHINE._Work._write = write_for_ever  # type: ignore[attr-defined]
            convert(checkpoint, tmp_path / "out/bundle", HALVES, cache=cache)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while not any((tmp_path / "out").glob(".bundle.*.partial/*/half")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(names(tmp_path / "out")) == 1  # what it was writing
    report = convert(checkpoint, tmp_path / "out/bundle", HALVES, cache=cache)
    assert names(tmp_path / "out") == ["bundle"]
    assert any(part.is_reused for part in report.components)


def write_for_ever(_: object, __: object, paths: tuple[Path, ...], *___: object) -> None:
    (paths[0] / "half").mkdir(parents=True)
    time.sleep(60)
    os._exit(1)

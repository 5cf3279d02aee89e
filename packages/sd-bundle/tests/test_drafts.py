"""Drafts of dead processes go; drafts of living ones stay."""

from __future__ import annotations

import importlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sd_bundle import drafts
from sd_bundle.drafts import clear_leftovers, draft_folder, locked, put_in_place, replacing

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="signals and FIFOs; its locks are tried elsewhere with a stand-in"
)


def folder(path: Path, *files: str) -> Path:
    path.mkdir()
    for file in files:
        (path / file).write_text(file)
    return path


def names(path: Path) -> list[str]:
    return sorted(child.name for child in path.iterdir())


def test_a_draft_that_nobody_holds_goes(tmp_path: Path) -> None:
    folder(tmp_path / ".b.0123abcd.partial", "half")
    clear_leftovers(tmp_path / "b")
    assert names(tmp_path) == []


def test_a_draft_that_somebody_holds_stays_and_so_does_all_else(tmp_path: Path) -> None:
    folder(tmp_path / ".b.00000001.old", "manifest.json")
    with locked(folder(tmp_path / ".b.0123abcd.partial", "half")) as is_ours:
        assert is_ours
        clear_leftovers(tmp_path / "b")
        assert names(tmp_path) == [".b.00000001.old", ".b.0123abcd.partial"]


def test_an_empty_draft_goes_too(tmp_path: Path) -> None:
    """Its process was killed before the first file."""
    folder(tmp_path / ".b.0123abcd.partial")
    (tmp_path / ".b.0123abce.partial").touch()
    clear_leftovers(tmp_path / "b")
    assert names(tmp_path) == []


@pytest.mark.parametrize("moment", ["before the lock", "while waiting for it"])
def test_a_draft_that_is_cleared_away_before_it_is_locked_is_made_again(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may come between the two, as it cannot tell such a draft from a dead one."""
    original, cleared = drafts.locked, []

    @contextmanager
    def late(path: Path, *, wait: bool = False) -> Iterator[bool]:
        is_first = wait and not cleared
        if is_first and moment == "before the lock":
            cleared.append(path)
            path.rmdir()
        with original(path, wait=wait) as is_ours:
            if is_first:
                cleared.append(path)
                path.rmdir()
            yield is_ours

    monkeypatch.setattr(drafts, "locked", late)
    with draft_folder(tmp_path / "b") as draft:
        assert draft.is_dir()
        assert draft not in cleared
    assert names(tmp_path) == []
    assert cleared


def test_a_draft_that_is_a_link_or_a_pipe(tmp_path: Path) -> None:
    folder(tmp_path / "mine", "file")
    (tmp_path / ".b.0123abcd.partial").symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / ".b.0123abce.partial")
    clear_leftovers(tmp_path / "b")
    assert names(tmp_path) == [".b.0123abcd.partial", "mine"]
    assert names(tmp_path / "mine") == ["file"]


KILLED = """
import os, signal, sys
from pathlib import Path
from sd_bundle.drafts import draft_folder, replacing
with (replacing if sys.argv[1] == "file" else draft_folder)(Path(sys.argv[2])) as draft:
    (draft if sys.argv[1] == "file" else draft / "x").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("name", ["a", "p" * 255, "\N{SNOWMAN}" * 85])
def test_what_a_killed_process_left_goes_with_the_next_one(kind: str, name: str, tmp_path: Path) -> None:
    target = tmp_path / name
    killed = subprocess.run([sys.executable, "-c", KILLED, kind, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".")
    if kind == "folder":
        clear_leftovers(target)
    else:
        with replacing(target) as draft:
            draft.write_text("whole")
        assert target.read_text() == "whole"
        target.unlink()
    assert names(tmp_path) == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as draft:
        draft.write_text(f"half {1 / 0}")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_bundle_that_was_moved_aside_comes_back(tmp_path: Path) -> None:
    """Killed between the two renames."""
    folder(tmp_path / ".b.00000001.old", "manifest.json")
    folder(tmp_path / ".b.0123abcd.partial", "manifest.json")
    clear_leftovers(tmp_path / "b")
    assert names(tmp_path) == ["b"]
    assert names(tmp_path / "b") == ["manifest.json"]


def test_a_bundle_that_was_replaced_goes(tmp_path: Path) -> None:
    """Killed after the second rename."""
    folder(tmp_path / ".b.00000001.old", "old")
    folder(tmp_path / "b", "new")
    clear_leftovers(tmp_path / "b")
    assert names(tmp_path) == ["b"]
    assert names(tmp_path / "b") == ["new"]


@pytest.mark.parametrize(
    "other",
    [".c.0123abcd.partial", ".b.partial", ".b.mine.partial", "b.0123abcd.partial", ".b.0123ABCD.partial"],
)
def test_what_has_another_name_is_not_ours(other: str, tmp_path: Path) -> None:
    folder(tmp_path / other, "something")
    clear_leftovers(tmp_path / "b")
    assert names(tmp_path) == [other]


def test_one_lock_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path) as first, locked(tmp_path) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path, wait=True) as third:
        assert third


class Msvcrt:
    """What Windows has instead of ``fcntl``: it locks files, and only those."""

    LK_LOCK, LK_NBLCK = 1, 2

    def __init__(self) -> None:
        self.fcntl = importlib.import_module("fcntl")

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert stat.S_ISREG(os.fstat(descriptor).st_mode)
        assert count == 1
        self.fcntl.flock(
            descriptor, self.fcntl.LOCK_EX | (self.fcntl.LOCK_NB if mode == self.LK_NBLCK else 0)
        )


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of files, and no renaming of folders in which one is open."""
    monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "fcntl", None)  # type: ignore[arg-type]
    rename = Path.rename

    def strict(self: Path, target: Path) -> Path:
        held = [os.path.realpath(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")]
        if any(Path(one).is_relative_to(self) for one in held):
            raise PermissionError(f"in use: {self}")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", strict)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are not listed here")
@pytest.mark.usefixtures("windows")
class TestWindows:
    def test_drafts_are_held_swept_and_leave_nothing(self, tmp_path: Path) -> None:
        folder(tmp_path / ".b.0123abcd.partial", "half")
        (tmp_path / ".b.0123abcd.partial.lock").touch()  # of a process that was killed
        with draft_folder(tmp_path / "b") as draft:
            (draft / "manifest.json").write_text("new")
            clear_leftovers(tmp_path / "b")
            assert names(tmp_path) == [draft.name, f"{draft.name}.lock"]
            put_in_place(draft, tmp_path / "b")
        assert names(tmp_path) == ["b"]
        assert names(tmp_path / "b") == ["manifest.json"]

    def test_a_bundle_that_was_moved_aside_comes_back(self, tmp_path: Path) -> None:
        folder(tmp_path / ".b.00000001.old", "manifest.json")
        folder(tmp_path / ".b.0123abcd.partial")
        clear_leftovers(tmp_path / "b")
        assert names(tmp_path) == ["b"]

    def test_a_file_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("old")
        with replacing(tmp_path / "a") as draft, replacing(tmp_path / "a") as other:
            draft.write_text("first")
            other.write_text("second")
        assert names(tmp_path) == ["a"]
        assert (tmp_path / "a").read_text() == "first"

    def test_one_lock_at_a_time(self, tmp_path: Path) -> None:
        held = folder(tmp_path / "a")
        with locked(held) as first, locked(held) as second:
            assert (first, second) == (True, False)
        with locked(held, wait=True) as third:
            assert third
        with pytest.raises(FileNotFoundError), locked(tmp_path / "gone"):
            pass
        assert names(tmp_path) == ["a"]

    def test_where_nothing_is_locked_nothing_is_swept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "msvcrt", None)  # type: ignore[arg-type]
        folder(tmp_path / ".b.0123abcd.partial", "half")
        with draft_folder(tmp_path / "b") as draft:
            clear_leftovers(tmp_path / "b")
            assert names(tmp_path) == sorted([".b.0123abcd.partial", draft.name])


@pytest.mark.parametrize("make", [draft_folder, replacing])
@pytest.mark.parametrize("place", ["create", "_lock", "locked", "exists"])
def test_an_interrupt_before_the_block_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, place: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def made(path: Path, **_: object) -> None:
        if path != tmp_path:
            path.write_bytes(b"")
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if place == "create":
            for name in ("mkdir", "touch"):
                patched.setattr(Path, name, made)
        elif place == "exists":
            patched.setattr(Path, place, interrupted)
        else:
            patched.setattr(drafts, place, interrupted)
        with pytest.raises(KeyboardInterrupt), make(tmp_path / "b"):
            pytest.fail("there is no draft to work on")
    assert os.listdir(tmp_path) == []


def test_what_has_a_draft_s_name_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / ".b.00000000.partial"
    other.mkdir()
    monkeypatch.setattr(drafts, "sibling", lambda _: other)
    with pytest.raises(FileExistsError), draft_folder(tmp_path / "b"):
        pytest.fail("it is another's")
    assert other.is_dir()

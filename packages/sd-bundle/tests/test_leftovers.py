"""Drafts of dead processes go; drafts of living ones stay."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sd_bundle.leftovers import clear_leftovers, locked

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="nothing is locked there, so nothing is swept"
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


def test_an_empty_draft_may_be_just_begun(tmp_path: Path) -> None:
    folder(tmp_path / ".b.0123abcd.partial")
    clear_leftovers(tmp_path / "b")
    assert names(tmp_path) == [".b.0123abcd.partial"]


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

"""A model's outputs as files: all of them or none, and what was there before until they are complete."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

#: Characters of an output's name that its file's name keeps; file systems allow 255 bytes.
_STEM = 60

#: What drafts are named after, and what a draft calls its files once all of them are written.
_DRAFT, _COMPLETE = "sdc-run", "complete"


def save(results: Mapping[str, Any], folder: Path) -> list[str]:
    """Arrays as .npy, pictures as .png, labels and probabilities as .json; the files' names.

    They are written beside their place and then renamed. Other files in the folder stay.

    Raises:
        click.ClickException: one of the names is taken by a folder, the folder cannot be written, or the disk
            is full; then everything is as it was before.
    """
    try:
        return _save(results, folder)
    except OSError as error:
        raise click.ClickException(
            f"expected to write the outputs to {str(folder)!r}, got: {error}; "
            "what was there before is as it was"
        ) from error


def _save(results: Mapping[str, Any], folder: Path) -> list[str]:
    files = _names(results)
    if taken := [name for name in files.values() if (folder / name).is_dir()]:
        raise click.ClickException(
            f"expected to write {taken[0]!r} in {str(folder)!r}, got a folder of that name"
        )
    with _draft(folder) as draft:
        (draft / "new").mkdir()
        (draft / "old").mkdir()
        for name, value in results.items():
            _write(draft / "new" / files[name], value)
        if folder.exists():
            (draft / "new").rename(draft / _COMPLETE)
            _replace(draft, folder, list(files.values()))
        else:
            (draft / "new").rename(folder)
    return list(files.values())


def _names(results: Mapping[str, Any]) -> dict[str, str]:
    """A file name for each output, different even where upper and lower case are the same."""
    names: dict[str, str] = {}
    used: set[str] = set()
    for output, value in results.items():
        stem = re.sub(r"[^\w.-]", "_", output).lstrip(".")[:_STEM] or "output"
        tries = (f"{stem}{f'_{n}' if n else ''}{_suffix(value)}" for n in range(len(results)))
        names[output] = next(name for name in tries if name.casefold() not in used)
        used.add(names[output].casefold())
    return names


def _suffix(value: Any) -> str:
    if hasattr(value, "dtype"):
        return ".npy"
    return ".png" if hasattr(value, "save") else ".json"


def _write(path: Path, value: Any) -> None:
    import numpy as np

    if path.suffix == ".npy":
        np.save(path, value, allow_pickle=False)
    elif path.suffix == ".png":
        (value if value.mode != "F" else value.convert("L")).save(path)
    else:
        path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """A folder on the same file system that is gone afterwards, as are parents that were made in vain."""
    from sd_bundle.drafts import draft_folder

    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    name = (folder if folder.exists() else folder.parent) / _DRAFT
    _finish_abandoned(name)
    try:
        with draft_folder(name) as draft:
            yield draft
    finally:
        for path in missing:
            try:
                path.rmdir()  # only where it is empty
            except OSError:
                continue


def _finish_abandoned(name: Path) -> None:
    """Remove the drafts of killed processes; what one was putting into place goes all the way there."""
    from sd_bundle.drafts import PARTIAL, abandoned, remove, siblings

    for draft in siblings(name, PARTIAL):
        with abandoned(draft) as is_ours:
            if not is_ours:
                continue
            complete = draft / _COMPLETE
            if complete.is_dir() and not complete.is_symlink():
                for path in sorted(complete.iterdir()):
                    os.replace(path, name.with_name(path.name))
            remove(draft)


def _replace(draft: Path, folder: Path, names: list[str]) -> None:
    """Move the files into their place; those of the same names come back if one cannot be moved."""
    try:
        for name in names:
            if (folder / name).exists():
                os.replace(folder / name, draft / "old" / name)
            os.replace(draft / _COMPLETE / name, folder / name)
    except BaseException:
        for name in names:
            if not (draft / _COMPLETE / name).exists():
                (folder / name).unlink(missing_ok=True)
            if (draft / "old" / name).exists():
                os.replace(draft / "old" / name, folder / name)
        raise

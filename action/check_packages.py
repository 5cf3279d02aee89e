"""Look at the ``.mlpackage``s of a working tree: read, run, lint, compare with a commit; a table in Markdown.

    python action/check_packages.py REPOSITORY --base COMMIT --table table.md [--all] [--target iphone]

``action.yml`` calls it for pull requests; it needs sd-mil with OpenVINO, and git for the commit. Packages are
untrusted: sd-mil reads them, nothing of them is executed, and their names are quoted in the table.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_SUFFIX: Final = ".mlpackage"
_ZEROS: Final = frozenset("0")
_SAID: Final = 300


@dataclass(frozen=True)
class Row:
    """One package: what was found, and whether that fails."""

    name: str
    read: str = ""
    ran: str = ""
    linted: str = ""
    compared: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Wanted:
    """What is asked of every package."""

    target: str = "iphone"
    system: int = 27
    min_psnr: float = 35.0
    fail_on: str = "error"
    seed: int = 0
    sarif: Path | None = None


class GitError(RuntimeError):
    """Git does not know the commit, or the folder is no repository."""


def git(root: Path, *arguments: str) -> str:
    """What git prints.

    Raises:
        GitError: it fails.
    """
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)  # noqa: S603, S607
    if done.returncode:
        raise GitError(f"git {arguments[0]}: {done.stderr.strip()}; is fetch-depth 0?")
    return done.stdout


def packages(root: Path) -> list[str]:
    """Every package of the tree, by its path."""
    found = (path.relative_to(root) for path in root.rglob(f"*{_SUFFIX}") if path.is_dir())
    return sorted(path.as_posix() for path in found if ".git" not in path.parts)


def changed(root: Path, base: str) -> list[str]:
    """The packages that differ from a commit and are still there.

    Raises:
        GitError: no such commit.
    """
    names = git(root, "diff", "--name-only", "-z", "--no-renames", base, "--").split("\0")
    names += git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    touched = {name.partition(f"{_SUFFIX}/")[0] + _SUFFIX for name in names if f"{_SUFFIX}/" in name}
    return [name for name in packages(root) if name in touched]


@contextmanager
def tree_of(root: Path, base: str | None) -> Iterator[Path | None]:
    """The files of a commit in a folder, those of Git LFS included; None without a commit.

    Raises:
        GitError: no such commit.
    """
    if base is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "base"
        git(root, "worktree", "add", "--quiet", "--detach", str(folder), base)
        try:
            yield folder
        finally:
            git(root, "worktree", "remove", "--force", str(folder))


def look(root: Path, name: str, before: Path | None, wanted: Wanted) -> Row:
    """Everything about one package; what cannot be done is said, and fails."""
    from sd_mil import MLModel, SdMilError
    from sd_mil.testing import seeded_inputs

    path, read, ran = root / name, "", ""
    try:
        model = MLModel(path)
        read = f"{len(model.inputs)} inputs, {len(model.outputs)} outputs"
        inputs = seeded_inputs(model, seed=wanted.seed)
        outputs = model.predict(inputs, model.make_state() if model.states else None)
        ran = "not finite: " + ", ".join(bad) if (bad := _not_finite(outputs)) else "yes"
        linted, grave = lint(path, name, wanted)
        compared, apart = compare(model, before, inputs, wanted)
    except SdMilError as error:
        said = str(error)[:_SAID]
        return Row(name, read or said, ran or ("" if not read else said), failed=True)
    return Row(name, read, ran, linted, compared, failed=bool(bad) or grave or apart)


def _not_finite(outputs: dict[str, Any]) -> list[str]:
    import numpy as np

    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    return [
        name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()
    ]


def lint(path: Path, name: str, wanted: Wanted) -> tuple[str, bool]:
    """The findings counted, and whether the gravest is one that fails; a SARIF file where one is wanted."""
    from sd_mil.analysis.lint import SEVERITIES, sarif
    from sd_mil.analysis.lint import lint as findings

    report = findings(path, wanted.target, wanted.system)  # type: ignore[arg-type] # one of argparse's choices
    if wanted.sarif is not None:
        wanted.sarif.mkdir(parents=True, exist_ok=True)
        file = wanted.sarif / f"{name.replace('/', '-')}.sarif"
        file.write_text(json.dumps(sarif(report), indent=2) + "\n", encoding="utf-8")
    counts = [f"{report.count(severity)} {severity}s" for severity in SEVERITIES if report.count(severity)]
    worse = SEVERITIES[: SEVERITIES.index(wanted.fail_on) + 1] if wanted.fail_on != "never" else ()
    return ", ".join(counts) or "nothing", report.worst in worse


def compare(model: Any, before: Path | None, inputs: dict[str, Any], wanted: Wanted) -> tuple[str, bool]:
    """How close the outputs are to those of before, and whether they are too far; where, if so."""
    from sd_mil import MLModel, SdMilError, first_divergence
    from sd_mil import compare as compared

    if before is None or not before.is_dir():
        return "new", False
    old = MLModel(before)
    worst = compared(old, model, inputs).worst
    decibels = "equal" if math.isinf(worst.psnr) else f"{worst.psnr:.1f} dB"
    if worst.psnr >= wanted.min_psnr:
        return decibels, False
    try:
        where = first_divergence(old, model, inputs, threshold_db=wanted.min_psnr).first
    except SdMilError:  # pipelines: the number alone
        where = None
    at = f"; first at {where.operation} {where.output}" if where else ""
    return f"{worst.output}: {decibels}{at}", True


def cell(text: str) -> str:
    """A cell that is text and nothing else: no column, no markup, no mention of anybody."""
    line = " ".join(text.split())
    for mark in "\\`*_{}[]<>|#@~":
        line = line.replace(mark, f"&#{ord(mark)};")
    return line


def table(rows: Sequence[Row], wanted: Wanted) -> str:
    """The comment."""
    lines = [
        "### Core ML packages",
        "",
        f"| | package | read | runs | lint ({wanted.target}, {wanted.system}) | against the base |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = map(cell, (row.name, row.read, row.ran, row.linted, row.compared))
        lines.append(f"| {'❌' if row.failed else '✅'} | {' | '.join(cells)} |")
    note = "Run by sd-mil on OpenVINO, on seeded inputs: not Core ML, and not the Neural Engine."
    return "\n".join([*lines, "", note, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at all packages; 1 where one fails, 2 where git does not know the commit."""
    parser = argparse.ArgumentParser(description="Check the .mlpackages of a working tree.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--base", default="")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--target", choices=["iphone", "ipad", "mac"], default="iphone")
    parser.add_argument("--os", dest="system", type=int, default=27)
    parser.add_argument("--min-psnr", type=float, default=35.0)
    parser.add_argument("--fail-on", choices=["warning", "error", "never"], default="error")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sarif", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--outputs", type=Path, help="append failed=N, as GitHub wants outputs")
    given = parser.parse_args(arguments)
    wanted = Wanted(given.target, given.system, given.min_psnr, given.fail_on, given.seed, given.sarif)
    base = given.base if given.base and not given.base.startswith("-") and set(given.base) - _ZEROS else None
    try:
        names = packages(given.root) if given.all or base is None else changed(given.root, base)
        with tree_of(given.root, base) as before:
            rows = [look(given.root, name, before and before / name, wanted) for name in names]
    except GitError as error:
        print(f"check_packages: {error}", file=sys.stderr)
        return 2
    text = table(rows, wanted) if rows else ""
    print(text or "no .mlpackage has changed")
    if given.table:
        given.table.write_text(text, encoding="utf-8")
    failed = sum(row.failed for row in rows)
    if given.outputs:
        with given.outputs.open("a", encoding="utf-8") as file:
            file.write(f"failed={failed}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

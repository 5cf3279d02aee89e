"""Build every package, twice if asked, and try the wheels as a stranger would: in an empty environment.

    uv run python tools/wheels.py dist                           wheels and sdists, their sha256
    uv run python tools/wheels.py dist --twice                   two builds of two copies have to be equal
    uv run python tools/wheels.py dist --try 3.12 --try 3.13     install from the folder, run `sdc demo`

Builds take their time from the last commit (SOURCE_DATE_EPOCH), so that a commit has one hash wherever it is
built. Other libraries come from the index that uv is set up with.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
APP: Final = "stable-diffusion-coreml"
#: What is no source: built here, or of tools.
_LEFT_OUT: Final = shutil.ignore_patterns(
    ".git", ".venv", "dist", "site", "__pycache__", ".*_cache", ".hypothesis", ".scratch", "*.egg-info"
)


class BuildError(RuntimeError):
    """A build failed, or two builds of the same source differ."""


def run(command: Sequence[str | Path], folder: Path, **variables: str) -> None:
    """Run a programme in a folder.

    Raises:
        BuildError: it failed.
    """
    done = subprocess.run([str(part) for part in command], cwd=folder, env={**os.environ, **variables})
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, command))}: exit status {done.returncode}")


def commit_time(root: Path) -> str:
    """Seconds since 1970 of the last commit; of 2020 outside a repository, as hatchling has it."""
    command = ["git", "log", "-1", "--format=%ct"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    return done.stdout.strip() or "1580601600"


def build(root: Path, output: Path, epoch: str, command: Sequence[str] = ("uv", "build")) -> None:
    """Wheels and sdists of ``root``'s packages into ``output``.

    Raises:
        BuildError: a package does not build.
    """
    every = ["--all-packages"] if (root / "uv.lock").exists() else []
    run([*command, "--quiet", *every, "--out-dir", output], root, SOURCE_DATE_EPOCH=epoch)


def hashes(folder: Path) -> dict[str, str]:
    """Name and sha256 of every distribution in a folder."""
    found = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def check_twice(root: Path, first: Path, epoch: str, command: Sequence[str] = ("uv", "build")) -> None:
    """Build a copy of ``root`` that has other times and another place, and compare with ``first``.

    Raises:
        BuildError: a hash differs; the files are named.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "elsewhere" / "copy"
        shutil.copytree(root, copy, ignore=_LEFT_OUT, copy_function=shutil.copyfile)
        build(copy, Path(scratch) / "dist", epoch, command)
        one, other = hashes(first), hashes(Path(scratch) / "dist")
    differing = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    if differing or not one:
        raise BuildError(
            f"expected equal sha256 of two builds, got others for {', '.join(differing) or 'none'}"
        )


def install(wheels: Path, python: str, environment: Path, packages: Sequence[str] = (APP,)) -> Path:
    """A fresh environment with packages from ``wheels``; their other needs come from the index.

    Returns:
        The folder of its programmes.

    Raises:
        BuildError: the environment cannot be made.
    """
    run(["uv", "venv", "--quiet", "--python", python, environment], wheels)
    binaries = environment / "bin"
    # uv keeps wheels by name and version: an earlier build must not be taken for this one
    names = sorted({path.name.split("-")[0].replace("_", "-") for path in wheels.glob("*.whl")})
    fresh: list[str] = [part for name in names for part in ("--refresh-package", name)]
    source = ["--find-links", str(wheels), "--python", str(binaries / "python")]
    run(["uv", "pip", "install", "--quiet", *fresh, *source, *packages], wheels)
    return binaries


def try_wheels(wheels: Path, python: str) -> float:
    """Install the app from ``wheels`` with an interpreter, and run ``sdc demo`` in an empty folder.

    Returns:
        The seconds that the demo took.

    Raises:
        BuildError: it does not install, or does not run.
    """
    with tempfile.TemporaryDirectory() as scratch:
        binaries = install(wheels.resolve(), python, Path(scratch) / "environment")
        home, began = Path(scratch) / "home", time.perf_counter()
        home.mkdir()
        clean = {"XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": ""}
        run([binaries / APP, "--version"], home, **clean)
        demo: list[str | Path] = [binaries / "sdc", "demo", "--pictures", "4", "--num-inference-steps", "4"]
        run(demo, home, **clean)
        if not (home / "sdc-demo" / "demo.png").is_file():
            raise BuildError(
                f"expected sdc demo to write sdc-demo/demo.png with Python {python}, got no file"
            )
        return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, and do what was asked with the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--twice", action="store_true", help="build a second time, and compare")
    parser.add_argument("--try", dest="pythons", action="append", default=[], metavar="PYTHON")
    options = parser.parse_args(arguments)
    epoch = commit_time(ROOT)
    try:
        build(ROOT, options.output.resolve(), epoch)
        for name, digest in hashes(options.output).items():
            print(f"{digest}  {name}")
        if options.twice:
            check_twice(ROOT, options.output, epoch)
            print("a second build has equal hashes")
        for python in options.pythons:
            print(f"Python {python}: sdc demo ran, {try_wheels(options.output, python):.0f} s", flush=True)
    except BuildError as error:
        print(f"wheels: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Build every package, twice if asked, and try the wheels as a stranger would: in an empty environment.

    uv run python tools/wheels.py dist                           wheels and sdists, their sha256
    uv run python tools/wheels.py dist --twice                   two builds of two copies have to be equal
    uv run python tools/wheels.py dist --try 3.12 --try 3.13     install, and use it as a stranger does
    uv run python tools/wheels.py dist --try 3.12 --pip          the same by plain venv and pip
    uv run python tools/wheels.py dist --sbom sbom.cdx.json      CycloneDX of everything that the app installs
    uv run python tools/wheels.py dist --suite 3.12              install from sdists, and run tests

Builds take their time from the last commit (SOURCE_DATE_EPOCH), so that a commit has one hash wherever it is
built. Other libraries come from the index that uv is set up with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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
_SHORT: Final = ("--pictures", "2", "--num-inference-steps", "2")
#: The packages whose tests take seconds, and need little beside them.
SUITES: Final = ("sd-bundle", "sd-tokenize")
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


def install(
    wheels: Path, python: str, environment: Path, packages: Sequence[str] = (APP,), *, pip: bool = False
) -> Path:
    """A fresh environment with packages from ``wheels``; their other needs come from the index.

    ``pip``: by the interpreter's own venv and pip, as most people have it, and not by uv.

    Returns:
        The folder of its programmes.

    Raises:
        BuildError: the environment cannot be made.
    """
    binaries = environment / "bin"
    if pip:
        run([interpreter(python), "-m", "venv", environment], wheels)
        command: list[str | Path] = [binaries / "python", "-m", "pip", "install", "--quiet"]
    else:
        run(["uv", "venv", "--quiet", "--python", python, environment], wheels)
        command = ["uv", "pip", "install", "--quiet", *_fresh(wheels), "--python", binaries / "python"]
    run([*command, "--find-links", wheels, *packages], wheels)
    return binaries


def _fresh(wheels: Path) -> list[str]:
    """For uv, which keeps wheels by name and version: an earlier build must not be taken for this one."""
    names = sorted({path.name.split("-")[0].replace("_", "-") for path in wheels.glob("*.whl")})
    return [part for name in names for part in ("--refresh-package", name)]


def interpreter(python: str) -> str:
    """The path of the interpreter that uv knows by this name.

    Raises:
        BuildError: there is none.
    """
    command = ["uv", "python", "find", python]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"expected a Python {python}, got: {done.stderr.strip()}")
    return done.stdout.strip()


def try_wheels(wheels: Path, python: str, *, pip: bool = False) -> float:
    """Install the app from ``wheels`` with an interpreter, and do in an empty home what a stranger does.

    Returns:
        The seconds that it took once it was installed.

    Raises:
        BuildError: it does not install, or does not do what it says.
    """
    with tempfile.TemporaryDirectory() as scratch:
        binaries = install(wheels.resolve(), python, Path(scratch) / "environment", pip=pip)
        home = Path(scratch) / "home"
        home.mkdir()
        began = time.perf_counter()
        try_programmes(binaries, home)
        try_uvx(wheels.resolve(), python, home)
        return time.perf_counter() - began


def try_programmes(binaries: Path, home: Path) -> None:
    """Both names of the app, its doctor, the completion of each shell, and the demo.

    Raises:
        BuildError: one fails, or leaves no file where it should.
    """
    clean = {
        "HOME": str(home),
        "PYTHONPATH": "",
        "XDG_CACHE_HOME": "",
        "XDG_CONFIG_HOME": "",
        "XDG_DATA_HOME": "",
    }
    run([binaries / APP, "--version"], home, **clean)
    run([binaries / "sdc", "doctor", "--imports"], home, **clean)
    for shell in ("bash", "zsh", "fish"):
        before = set(home.rglob("*"))
        run([binaries / "sdc", "completion", shell, "--install"], home, **clean)
        if not any(path.is_file() for path in set(home.rglob("*")) - before):
            raise BuildError(f"expected sdc completion {shell} --install to write a file, got none in {home}")
    run([binaries / "sdc", "demo", *_SHORT], home, **clean)
    _check_demo(home)


def try_uvx(wheels: Path, python: str, home: Path) -> None:
    """``uvx --from WHEEL sdc demo``, and the second name, for which no ``--from`` is needed.

    Raises:
        BuildError: one fails, or leaves no picture.
    """
    (wheel,) = wheels.glob(f"{APP.replace('-', '_')}-*.whl")
    folder = home / "uvx"
    folder.mkdir()
    uvx: list[str | Path] = ["uvx", "--quiet", "--isolated", "--python", python, *_fresh(wheels)]
    uvx += ["--find-links", wheels]
    run([*uvx, "--from", wheel, "sdc", "demo", *_SHORT], folder)
    _check_demo(folder)
    run([*uvx, APP, "--version"], folder)


def _check_demo(folder: Path) -> None:
    if not (folder / "sdc-demo" / "demo.png").is_file():
        raise BuildError(f"expected sdc demo to write sdc-demo/demo.png, got no file in {folder}")


def sbom(root: Path, path: Path) -> int:
    """Write a CycloneDX bill of materials of all that the app installs, as the lock file has it.

    Returns:
        How many components there are.

    Raises:
        BuildError: it is no bill, or one of our own packages or its version is not in it.
    """
    command = ["uv", "export", "--quiet", "--preview-features", "sbom-export", "--format", "cyclonedx1.5"]
    run([*command, "--frozen", "--no-dev", "--package", APP, "--output-file", path.resolve()], root)
    bill = json.loads(path.read_text(encoding="utf-8"))
    components = {one["name"]: one.get("version") for one in bill.get("components", ())}
    ours = {one.parent.name for one in root.glob("packages/*/pyproject.toml")}
    if bill.get("bomFormat") != "CycloneDX" or not ours <= components.keys() or None in components.values():
        raise BuildError(
            f"expected a CycloneDX bill with versions of {sorted(ours)}, got {sorted(components)}"
        )
    return len(components)


def try_sdists(distributions: Path, python: str) -> None:
    """Install the packages of ``SUITES`` from their sdists, and run their tests against what that gave.

    Raises:
        BuildError: one does not build, or a test fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        environment = Path(scratch) / "environment"
        from_source: list[str] = [part for name in SUITES for part in ("--no-binary", name)]
        binaries = install(distributions.resolve(), python, environment, (*from_source, *SUITES))
        tests: list[str | Path] = ["uv", "pip", "install", "--quiet", "--python", binaries / "python"]
        run([*tests, "pytest>=8.3", "pytest-xdist>=3.7", "hypothesis"], ROOT)
        for name in SUITES:
            module = name.replace("-", "_")
            installed = (
                f"import {module}; assert {str(environment)!r} in {module}.__file__, {module}.__file__"
            )
            run([binaries / "python", "-c", installed], ROOT, PYTHONPATH="")
            suite = ["-m", "pytest", "-n", "0", "-p", "no:cacheprovider", f"packages/{name}/tests"]
            run([binaries / "python", *suite], ROOT, PYTHONPATH="")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, and do what was asked with the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--twice", action="store_true", help="build a second time, and compare")
    parser.add_argument("--try", dest="pythons", action="append", default=[], metavar="PYTHON")
    parser.add_argument("--no-build", action="store_true", help="take what is in the folder")
    parser.add_argument("--sbom", type=Path, metavar="FILE", help="CycloneDX of all that the app installs")
    parser.add_argument("--pip", action="store_true", help="try with venv and pip, and not with uv's")
    parser.add_argument("--suite", metavar="PYTHON", help="install from sdists, and run tests against that")
    options = parser.parse_args(arguments)
    epoch = commit_time(ROOT)
    try:
        if not options.no_build:
            build(ROOT, options.output.resolve(), epoch)
        for name, digest in hashes(options.output).items():
            print(f"{digest}  {name}")
        if options.twice:
            check_twice(ROOT, options.output, epoch)
            print("a second build has equal hashes")
        if options.sbom:
            print(f"{options.sbom}: {sbom(ROOT, options.sbom)} components")
        for python in options.pythons:
            seconds = try_wheels(options.output, python, pip=options.pip)
            print(f"Python {python}: a stranger gets along, {seconds:.0f} s", flush=True)
        if options.suite:
            try_sdists(options.output, options.suite)
            print(f"the suites of {', '.join(SUITES)} pass against their sdists", flush=True)
    except BuildError as error:
        print(f"wheels: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

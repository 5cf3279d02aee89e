"""Do the packages work with what users will have next, and with the lowest that they allow?

    uv run python tools/canary.py                      every canary, each in an environment of its own
    uv run python tools/canary.py lowest coremltools   these two
    uv run python tools/canary.py --dry-run            the commands alone

A canary installs the packages as their ``pyproject.toml`` have it, but for one thing: the lowest versions, or
the newest release of a library beyond what is locked or allowed. Then everything is imported, and a few quick
tests of each package run. What dies is named; the others go on.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
#: Extras that bring what tests need.
_EXTRAS: Final = ("openvino", "parallel", "report", "train", "convert")
#: A few seconds of each package: reading, writing, running, drawing, converting.
QUICK: Final = (
    "packages/sd-mil/tests/test_package_writing.py",
    "packages/sd-mil/tests/test_portable_engine.py",
    "packages/sd-bundle/tests",
    "packages/sd-tokenize/tests",
    "packages/sd-schedulers/tests/test_schedule.py",
    "packages/sd-attention/tests/test_attention_rewrite.py",
    "packages/sd-compress/tests/test_clustering.py",
    "packages/sd-runtime/tests/test_png.py",
    "packages/sd-controlnet/tests",
    "apps/sdc/tests/test_sdc_readme.py",
)


@dataclass(frozen=True)
class Canary:
    """One environment: how versions are chosen, and which bounds of ours are set aside."""

    name: str
    resolution: str = "highest"
    #: Requirements that replace those of the packages, bounds included.
    overrides: tuple[str, ...] = ()
    #: Of these libraries, pre-releases too.
    prereleases: tuple[str, ...] = ()


CANARIES: Final = (
    Canary("lowest", resolution="lowest-direct"),
    Canary("coremltools", overrides=("coremltools>=9.0",), prereleases=("coremltools",)),
    # coremltools 9.0 breaks with numpy 2.4, and what comes after it does not
    Canary("numpy", overrides=("numpy>=2.4", "coremltools>=9.0"), prereleases=("coremltools",)),
    Canary("torch", overrides=("torch>=2.7",)),
    Canary("diffusers", overrides=("diffusers>=0.32",)),
    Canary("transformers", overrides=("transformers>=4.46",)),
    Canary("openvino", overrides=("openvino>=2025.0",), prereleases=("openvino",)),
)


def members(root: Path) -> list[Path]:
    """The folders of the packages."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return [root / folder for folder in table["tool"]["uv"]["workspace"]["members"]]


def modules(root: Path) -> list[str]:
    """The packages' import names."""
    return [source.name for folder in members(root) for source in sorted((folder / "src").iterdir())]


def commands(canary: Canary, root: Path, scratch: Path, python: str) -> list[list[str]]:
    """Make the environment, install, import, test; overrides are written into ``scratch`` beforehand."""
    environment = scratch / canary.name
    interpreter = str(environment / "bin" / "python")
    options = ["--resolution", canary.resolution]
    if canary.overrides:
        options += ["--overrides", str(scratch / f"{canary.name}.txt")]
    options += [part for name in canary.prereleases for part in ("--prerelease-package", f"{name}=allow")]
    wanted = [part for folder in members(root) for part in ("-r", str(folder / "pyproject.toml"))]
    extras = [part for extra in _EXTRAS for part in ("--extra", extra)]
    projects = [str(folder) for folder in members(root)]
    install = ["uv", "pip", "install", "--quiet", "--python", interpreter]
    tests = [str(root / path) for path in QUICK if (root / path).exists()]
    everything = "; ".join(f"import {name}" for name in (*modules(root), "sdc.cli"))
    return [
        ["uv", "venv", "--quiet", "--python", python, str(environment)],
        [*install, *options, *extras, *wanted],
        [*install, "--no-deps", *projects],
        [*install, "pytest>=8.3", "hypothesis", "pytest-xdist>=3.7"],
        [interpreter, "-c", everything],
        [interpreter, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-W", "default", *tests],
    ]


Run = Callable[[Sequence[str], Path], int]


def run(command: Sequence[str], root: Path) -> int:
    """The exit status of a command."""
    return subprocess.run(command, cwd=root, check=False).returncode


def sing(canary: Canary, root: Path, scratch: Path, python: str, run: Run = run) -> str | None:
    """What the canary died of: the command that failed; None where it lives."""
    overrides = "".join(f"{line}\n" for line in canary.overrides)
    (scratch / f"{canary.name}.txt").write_text(overrides)
    for command in commands(canary, root, scratch, python):
        if run(command, root):
            return shlex.join(command)
    return None


def main(arguments: Sequence[str] | None = None, root: Path = ROOT, run: Run = run) -> int:
    """Let them sing; 1 where one died."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [canary.name for canary in CANARIES]
    parser.add_argument("canaries", nargs="*", choices=[*names, []])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    options = parser.parse_args(arguments)
    died = False
    for canary in (one for one in CANARIES if one.name in (options.canaries or names)):
        with tempfile.TemporaryDirectory() as scratch:
            print(f"-- {canary.name}", flush=True)
            if options.dry_run:
                for command in commands(canary, root, Path(scratch), options.python):
                    print(shlex.join(command))
                continue
            cause = sing(canary, root, Path(scratch), options.python, run)
        print(f"{canary.name}: {'lives' if cause is None else f'died of {cause}'}", flush=True)
        died |= cause is not None
    return 1 if died else 0


if __name__ == "__main__":
    sys.exit(main())

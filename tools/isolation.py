"""Install each workspace package alone, in a fresh environment, and run its own tests there.

    uv run python tools/isolation.py [--long] [PACKAGE ...]

A workspace shares one environment, in which an undeclared import passes unnoticed. Here each package gets
only what it declares (and what runs the tests), at the locked versions. The app's are imported only, and
those marked ``long``, which try many networks of one kind, are left out unless asked for, and so are all but
the first of each test's sets of parameters: that each import, inside of functions too, is of something that
is declared, tests/test_architecture.py holds. For the packages that must stay free of the conversion stack,
the environment is also checked not to hold it; sd-convert is tried both with torch and without.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONVERSION_STACK = ("torch", "diffusers", "transformers", "coremltools")
INFERENCE_ONLY = (
    "sd-mil",
    "sd-bundle",
    "sd-tokenize",
    "sd-schedulers",
    "sd-runtime",
    "sd-compress",
    "sd-controlnet",
)
#: Where some extras bring what must not be needed: the others.
EXTRAS = {"sd-compress": ("parallel", "report"), "sd-controlnet": ("hints",)}
#: Tests of what a package does without its extras, in an environment that is held to be free of the stack.
WITHOUT_EXTRAS = {"sd-convert": "without_torch/tests"}
_STACK_CHECK = (
    "import importlib.util as u, sys; sys.exit(' '.join(m for m in sys.argv[1:] if u.find_spec(m)) or 0)"
)


def members() -> dict[str, Path]:
    """Name and folder of every workspace member, in the workspace's own order."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = [ROOT / member for member in table["tool"]["uv"]["workspace"]["members"]]
    return {folder.name: folder for folder in folders}


def project_of(folder: Path) -> str:
    """The name under which a package is installed: that of the app is not its folder's."""
    return str(tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"])


def run(*command: str | Path) -> None:
    """Run a command from the root and stop the programme when it fails."""
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


def check(name: str, folder: Path, environment: Path, *, long: bool, is_bare: bool = False) -> None:
    """Make the environment, install the package with its locked dependencies, run its tests.

    ``is_bare``: without extras, and the tests of that.
    """
    python = environment / "bin" / "python"
    requirements = environment.with_suffix(".txt")
    export = ["uv", "export", "--quiet", "--locked", "--no-dev", "--no-hashes"]
    extras = (
        [part for extra in EXTRAS[name] for part in ("--extra", extra)]
        if name in EXTRAS
        else ["--all-extras"]
    )
    extras = [] if is_bare else extras
    run(*export, *extras, "--no-editable", "--package", project_of(folder), "--output-file", requirements)
    run("uv", "venv", "--quiet", "--python", sys.executable, environment)
    # uv tells a package of this workspace from an older build of it by its pyproject.toml only
    fresh = [part for member in map(project_of, members().values()) for part in ("--refresh-package", member)]
    install = ["uv", "pip", "install", "--quiet", *fresh, "--python", str(python)]
    run(*install, "-r", requirements, "pytest", "pytest-xdist>=3.7", "hypothesis")
    if is_bare or name in INFERENCE_ONLY:
        run(python, "-c", _STACK_CHECK, *CONVERSION_STACK)
    tests = folder / (WITHOUT_EXTRAS[name] if is_bare else "tests")
    # The app depends on all the others: what its environment may lack is seen when its tests are imported.
    only = ["-n", "0", "--collect-only"] if name == "sdc" else []
    only += [] if long else ["-m", "not long", "--one-of-each"]
    run(python, "-m", "pytest", "-p", "no:cacheprovider", *only, tests)


def main() -> None:
    """Check the packages named on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", nargs="*", choices=[*members(), []])
    parser.add_argument("--long", action="store_true", help="the tests marked so, and all parameters, too")
    options = parser.parse_args()
    chosen = options.packages or list(members())
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen:
            print(f"-- {name}", flush=True)
            check(name, members()[name], Path(scratch) / name, long=options.long)
            if name in WITHOUT_EXTRAS:
                bare = Path(scratch) / f"{name}-bare"
                check(name, members()[name], bare, long=options.long, is_bare=True)


if __name__ == "__main__":
    main()

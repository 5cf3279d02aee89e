"""Who compiles a package: Apple's ``coremlcompiler``, which comes with Xcode, or sd-mil."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

CHOICES: Final = ("auto", "xcode", "sdc")
#: Of what Apple's compiler says of a failure, the end.
_SAID: Final = 400


def compile_package(
    package: Path, output: Path, *, compiler: str = "auto", build_info: Mapping[str, str]
) -> str:
    """Write the compiled model and say who made it: ``xcode`` or ``sdc``.

    Raises:
        click.ClickException: Apple's compiler is asked for and is not there, or fails; or is to be told what
            it says of itself.
        FileExistsError: there is something at ``output``.
        SdMilError: sd-mil cannot compile the package.
        OSError: the disk is full.
    """
    if compiler == "xcode" and build_info:
        raise click.UsageError("--build-info: Apple's compiler says itself what it is; use --compiler sdc")
    is_there = compiler != "sdc" and not build_info and _has_xcode()
    if compiler == "xcode" and not is_there:
        raise click.ClickException(
            "expected xcrun to find coremlcompiler, got no such tool: install Xcode on a Mac, "
            "or use --compiler sdc"
        )
    if is_there:
        _by_xcode(package, output)
        return "xcode"
    from sd_mil import compile_model

    compile_model(package, output, build_info=build_info)
    return "sdc"


def _has_xcode() -> bool:
    if platform.system() != "Darwin":
        return False
    try:
        found = subprocess.run(["xcrun", "--find", "coremlcompiler"], capture_output=True, check=False)  # noqa: S607
    except OSError:
        return False
    return found.returncode == 0


def _by_xcode(package: Path, output: Path) -> None:
    """It writes ``<package's name>.mlmodelc`` into a folder: beside the output, and then renamed."""
    from sd_bundle.drafts import draft_folder

    if output.exists() or output.is_symlink():
        raise FileExistsError(f"{output} exists: choose another output")
    with draft_folder(output) as draft:
        call = ["xcrun", "coremlcompiler", "compile", str(package.resolve()), str(draft)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)  # noqa: S603
        made = draft / f"{package.resolve().stem}.mlmodelc"
        if done.returncode or not made.is_dir():
            said = " ".join((done.stderr or done.stdout).split())[-_SAID:]
            raise click.ClickException(f"expected coremlcompiler to compile {package}, got: {said}")
        made.rename(output)

"""``sdc compile``: a package as Core ML loads it, by Apple's compiler where it is, or by ours."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sdc.compilers import CHOICES
from sdc.json_output import json_option, print_json


@click.command("compile", short_help="Write a package's compiled model (.mlmodelc) on any machine.")
@click.argument("package", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="OUT.mlmodelc.")
@click.option(
    "--compiler",
    type=click.Choice(CHOICES),
    default="auto",
    show_default=True,
    help="auto: Apple's (xcrun coremlcompiler) on a Mac that has it, else sdc's own.",
)
@click.option(
    "--build-info",
    multiple=True,
    metavar="KEY=VALUE",
    help="What model.mil says of its compiler; repeatable; sdc's own compiler alone.",
)
@json_option
def command(
    *, package: Path, output: Path, compiler: str, build_info: tuple[str, ...], as_json: bool
) -> None:
    """Compile PACKAGE, an .mlpackage or an .mlmodel that holds an ML Program.

    \b
    sdc compile unet.mlpackage -o Unet.mlmodelc
    sdc compile unet.mlpackage -o Unet.mlmodelc --compiler sdc --build-info coremlc-version=3500.32.1
    """
    from sdc.compilers import compile_package
    from sdc.console import console, size, table

    if output.suffix != ".mlmodelc":
        raise click.UsageError(f"-o: expected a name that ends with .mlmodelc, got {output.name!r}")
    began = time.perf_counter()
    used = compile_package(package, output, compiler=compiler, build_info=_pairs(build_info))
    seconds = time.perf_counter() - began
    written = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    if as_json:
        print_json({"output": str(output), "bytes": written, "seconds": seconds, "compiler": used})
        return
    rows = table("compiled model", "size", "s", "compiler")
    rows.add_row(str(output), size(written), f"{seconds:.1f}", used)
    console().print(rows)


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--build-info: expected KEY=VALUE, got {text!r}")
        if key in pairs:
            raise click.UsageError(f"--build-info: expected each key once, got {key!r} again")
        pairs[key] = value
    return pairs

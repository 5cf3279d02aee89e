"""``sdc bundle``: a bundle as apps and the Hub have one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdc.json_output import json_option, print_json

if TYPE_CHECKING:
    from sd_bundle import ImageSize

    from sdc.resources import CompiledResource, HubRepository, Resources

_EXISTING = click.Path(exists=True, path_type=Path)


@click.command("bundle", short_help="Compiled models as apps read them, or a repository for the Hub.")
@click.argument("bundles", nargs=-1, required=True, type=_EXISTING, metavar="BUNDLE")
@click.option("--for", "target", type=click.Choice(["swift", "hub"]), required=True, help="Who reads it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option("--size", metavar="WIDTHxHEIGHT", help="Of a bundle of several picture sizes; for swift.")
@click.option("--refiner", type=_EXISTING, help="The bundle of SDXL's refiner, beside its base; for swift.")
@click.option(
    "--controlled", type=_EXISTING, help="The same model with a UNet that takes ControlNets; for swift."
)
@click.option(
    "--controlnet", multiple=True, type=_EXISTING, help="A ControlNet's package; repeatable; for swift."
)
@click.option("--name", help="The repository's, without its owner; for hub. By default coreml-MODEL.")
@click.option(
    "--license", "license_id", help="The checkpoint's, in the Hub's words; for hub. [default: other]"
)
@json_option
def command(*, bundles: tuple[Path, ...], target: str, output: Path, as_json: bool, **asked: Any) -> None:
    """Compile the networks of BUNDLE and write them as others look for them.

    For swift: the Resources folder of Apple's Swift package, which Mochi Diffusion and other apps read. For
    hub: the tree and zips of the Hub's coreml repositories, with a model card, of one or several BUNDLEs of
    the same model (one for each kind of attention).

    \b
    sdc bundle my-bundle --for swift -o Resources
    sdc bundle original split --for hub -o coreml-my-model --license creativeml-openrail-m
    """
    began = time.perf_counter()
    others = {"swift": ("name", "license_id"), "hub": ("size", "refiner", "controlled", "controlnet")}
    if given := [name for name in others[target] if asked[name]]:
        raise click.UsageError(f"--{given[0].removesuffix('_id')}: not an option for {target}")
    made = _swift(bundles, output, asked) if target == "swift" else _hub(bundles, output, asked)
    seconds = time.perf_counter() - began
    if as_json:
        from sdc.console import peak_memory

        facts = asdict(made) | {"path": str(output), "seconds": seconds, "peak_memory": peak_memory()}
        print_json({"for": target, **facts})
        return
    _print_made(made)
    _say_what_it_took(output, seconds)


def _swift(bundles: tuple[Path, ...], output: Path, asked: dict[str, Any]) -> Resources:
    from sd_bundle import open_bundle

    from sdc.resources import write_resources

    if len(bundles) > 1:
        raise click.UsageError("expected one BUNDLE for swift, got several")
    with _bar() as show:
        return write_resources(
            open_bundle(bundles[0]),
            output,
            _compile,
            size=_size(asked["size"]),
            with_refiner=asked["refiner"] and open_bundle(asked["refiner"]),
            with_controlled=asked["controlled"] and open_bundle(asked["controlled"]),
            controlnets=asked["controlnet"],
            progress=show,
        )


def _hub(bundles: tuple[Path, ...], output: Path, asked: dict[str, Any]) -> HubRepository:
    from sd_bundle import open_bundle

    from sdc.resources import write_hub_repository

    with _bar() as show:
        return write_hub_repository(
            [open_bundle(path) for path in bundles],
            output,
            _compile,
            name=asked["name"],
            license_id=asked["license_id"] or "other",
            progress=show,
        )


def _compile(package: Path, compiled: Path) -> None:
    from sd_mil import compile_model

    from sdc.resources import link_or_copy

    compile_model(package, compiled, copy=link_or_copy)


def _size(text: str | None) -> ImageSize | None:
    from sd_bundle import ImageSize

    if text is None:
        return None
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise click.UsageError(f"--size: expected WIDTHxHEIGHT such as 512x768, got {text!r}")
    return ImageSize(height=int(height), width=int(width))


@contextmanager
def _bar() -> Iterator[Callable[[str], None]]:
    from sdc.console import progress

    with progress() as bar:
        task = bar.add_task("reading", total=None)
        yield lambda what: bar.update(task, description=what)


def _print_made(made: Resources | HubRepository) -> None:
    from sdc.resources import Resources

    _print_resources(made) if isinstance(made, Resources) else _print_repository(made)


def _print_resources(made: Resources) -> None:
    from sdc.console import console

    _print_models({"": made.models})
    seen = made.seen
    size = "any size" if seen.size is None else f"{seen.size[0]}x{seen.size[1]}"
    controls = "with" if seen.takes_controlnets else "without"
    console().print(f"apps see: {seen.family}, {seen.attention}, {size}, {controls} ControlNets")


def _print_repository(made: HubRepository) -> None:
    from sdc.console import console, size, table

    _print_models({f"{attention}/compiled/": models for attention, models in made.models.items()})
    rows = table("archive", "size")
    for name, count in made.zips.items():
        rows.add_row(name, size(count))
    console().print(rows)


def _print_models(models: dict[str, tuple[CompiledResource, ...]]) -> None:
    from sdc.console import console, size, table

    rows = table("compiled model", "size", "s")
    for folder, several in models.items():
        for one in several:
            rows.add_row(f"{folder}{one.name}", size(one.bytes), f"{one.seconds:.1f}")
    console().print(rows)


def _say_what_it_took(output: Path, seconds: float) -> None:
    from sdc.console import console, peak_memory, size

    console().print(f"{output}: {seconds:.1f} s, peak memory {size(peak_memory())}", soft_wrap=True)

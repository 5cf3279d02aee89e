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
from sdc.sizes import image_size

if TYPE_CHECKING:
    from sdc.resources import CompiledResource, HubRepository, Resources

_EXISTING = click.Path(exists=True, path_type=Path)


@click.command("bundle", short_help="Compiled models as apps read them, or a repository for the Hub.")
@click.argument("bundles", nargs=-1, required=True, type=_EXISTING, metavar="BUNDLE")
@click.option("--for", "target", type=click.Choice(["swift", "hub"]), required=True, help="Who reads it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option(
    "--size",
    metavar="WIDTHxHEIGHT",
    help="One of several picture sizes, else a folder for each; for swift.",
)
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

        facts = _facts(made) | {"path": str(output), "seconds": seconds, "peak_memory": peak_memory()}
        print_json({"for": target, **facts})
        return
    _print_made(made)
    _say_what_it_took(output, seconds)


def _swift(bundles: tuple[Path, ...], output: Path, asked: dict[str, Any]) -> dict[str, Resources]:
    from sd_bundle import open_bundle

    from sdc.resources import write_all

    if len(bundles) > 1:
        raise click.UsageError("expected one BUNDLE for swift, got several")
    with _bar() as show:
        return write_all(
            open_bundle(bundles[0]),
            output,
            size=image_size(asked["size"]) if asked["size"] else None,
            with_refiner=asked["refiner"] and open_bundle(asked["refiner"]),
            with_controlled=asked["controlled"] and open_bundle(asked["controlled"]),
            controlnets=asked["controlnet"],
            progress=show,
        )


def _hub(bundles: tuple[Path, ...], output: Path, asked: dict[str, Any]) -> HubRepository:
    from sd_bundle import open_bundle

    from sdc.resources import compile_linked, write_hub_repository

    with _bar() as show:
        return write_hub_repository(
            [open_bundle(path) for path in bundles],
            output,
            compile_linked,
            name=asked["name"],
            license_id=asked["license_id"] or "other",
            progress=show,
        )


@contextmanager
def _bar() -> Iterator[Callable[[str], None]]:
    from sdc.console import progress

    with progress() as bar:
        task = bar.add_task("reading", total=None)
        yield lambda what: bar.update(task, description=what)


def _facts(made: dict[str, Resources] | HubRepository) -> dict[str, Any]:
    """For ``--json``; of several sizes, each by its own."""
    if not isinstance(made, dict):
        return asdict(made)
    return asdict(made[""]) if "" in made else {"sizes": {size: asdict(one) for size, one in made.items()}}


def _print_made(made: dict[str, Resources] | HubRepository) -> None:
    _print_resources(made) if isinstance(made, dict) else _print_repository(made)


def _print_resources(made: dict[str, Resources]) -> None:
    """The models of each folder, and what apps take them for."""
    from sdc.console import console

    _print_models({f"{folder}/" if folder else "": one.models for folder, one in made.items()})
    for folder, one in made.items():
        seen = one.seen
        size = "any size" if seen.size is None else f"{seen.size[0]}x{seen.size[1]}"
        controls = "with" if seen.takes_controlnets else "without"
        where = f" in {folder}" if folder else ""
        console().print(f"apps see{where}: {seen.family}, {seen.attention}, {size}, {controls} ControlNets")
        if one.left_out:
            console().print(f"left out{where}, as no app looks for them: UNets of {'; '.join(one.left_out)}")


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

"""``sdc import``: what Apple's converter, or the Hub, has for Swift and Python, as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click


class _Words(click.Choice[str]):
    """The names that sd-bundle has, imported when they are asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__(())

    @property
    def choices(self) -> Any:
        import sd_bundle

        return get_args(getattr(sd_bundle, self._name))

    @choices.setter
    def choices(self, _: Any) -> None:
        """click sets what the base class was given: nothing."""


@click.command("import", short_help="Make a bundle of packages that other tools converted.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The bundle to write.")
@click.option("--family", type=_Words("Family"), help="By default by the width of the text's hidden states.")
@click.option(
    "--prediction-type",
    type=_Words("PredictionType"),
    help="What the denoiser predicts; has to be said of SD 2, others predict epsilon.",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A folder with vocab.json and merges.txt, where they are not beside the networks.",
)
@click.option(
    "--scheduler-config",
    "scheduler",
    type=click.Path(path_type=Path),
    help="A checkpoint's scheduler_config.json; by default the noise schedule of the family.",
)
@click.option("--scaling-factor", type=float, help="Of latents; by default 0.18215, SDXL 0.13025.")
@click.option(
    "--zero-empty-negative/--no-zero-empty-negative",
    default=None,
    help="Whether an empty negative prompt stands for zeros; by default in SDXL's base.",
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
def command(folder: Path, output: Path, *, overwrite: bool, **told: Any) -> None:
    """Make a bundle of the .mlpackage or .mlmodelc in FOLDER: the output of Apple's converter, the Resources
    of its Swift package, or the tree of a repository of the Hub.

    The files are linked where the file system can, so that nothing takes its place twice.
    """
    from sd_runtime import Unstated, adopt

    from sdc.console import console

    adopted = adopt(folder, output, Unstated(**told), overwrite=overwrite)
    facts = adopted.facts
    sizes = ", ".join(str(size.image) for size in facts.sizes)
    console().print(
        f"{output}: {facts.identifier}, {facts.family}, {facts.task}, {facts.prediction_type}, {sizes}",
        soft_wrap=True,
    )
    if adopted.left:
        left = ", ".join(adopted.left)
        console(err=True).print(f"sdc: note: left where they are: {left}", soft_wrap=True)

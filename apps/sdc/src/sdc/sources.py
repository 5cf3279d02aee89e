"""The options that say what a checkpoint is made of, for every command that opens one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sdc.console import printable

if TYPE_CHECKING:
    from sd_convert import Checkpoint, Embedding, Lora

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--lora",
        metavar="FILE[:SCALE[:TEXT_SCALE]]",
        multiple=True,
        help="Merge a LoRA (kohya, diffusers, PEFT; LoCon, LoHa, LoKr, DoRA); may be given several times.",
    ),
    click.option(
        "--embedding",
        metavar="NAME=FILE",
        multiple=True,
        help="Add a textual-inversion embedding that prompts call NAME; may be given several times.",
    ),
    click.option(
        "--custom-vae-version",
        metavar="VAE",
        help="A folder, .safetensors file or hub id whose VAE takes the place of the checkpoint's.",
    ),
    click.option(
        "--prediction-type",
        type=click.Choice(["epsilon", "v_prediction", "sample"]),
        help="What the UNet predicts, where the checkpoint does not say it, or wrongly.",
    ),
    click.option(
        "--family",
        type=click.Choice(["sd1", "sd2", "sdxl", "sdxl-refiner"]),
        help="Of a single file, where its tensors mislead.",
    ),
    click.option(
        "--tokenizer",
        metavar="FOLDER|ID",
        help="The vocabulary of a single file; by default that of openai/clip-vit-large-patch14.",
    ),
    click.option("--revision", help="Branch, tag or commit of a hub id."),
    click.option(
        "--variant", help="Variant of the weight files (fp16, ema, ...); by default fp16 if there is one."
    ),
    click.option(
        "--offline", is_flag=True, help="Take hub ids from the local cache alone, as HF_HUB_OFFLINE=1 does."
    ),
)


#: The options by the names that commands get them.
SOURCE_NAMES = (
    "lora",
    "embedding",
    "custom_vae_version",
    "prediction_type",
    "family",
    "tokenizer",
    "revision",
    "variant",
    "offline",
)


def source_options(command: F) -> F:
    """Add the options; the command gets them as one dict for :func:`open_checkpoint`, called ``source``."""

    @wraps(command)  # with the options that click has collected so far
    def gathered(*args: Any, **options: Any) -> Any:
        source = {name: options.pop(name) for name in SOURCE_NAMES}
        return command(*args, **options, source=source)

    result: Any = gathered
    for option in reversed(_OPTIONS):
        result = option(result)
    return result  # type: ignore[no-any-return]


def open_checkpoint(
    checkpoint: str, source: dict[str, Any], *, components: Collection[str] | None = None
) -> Checkpoint:
    """Open what the options of :func:`source_options` say, and print what was assumed on the way."""
    from sd_convert import open_checkpoint as opened_checkpoint

    opened = opened_checkpoint(
        checkpoint,
        components=components,
        revision=source["revision"],
        variant=source["variant"],
        local_files_only=source["offline"],
        prediction_type=source["prediction_type"],
        family=source["family"],
        tokenizer=source["tokenizer"],
        vae=source["custom_vae_version"],
        loras=[parse_lora(text) for text in source["lora"]],
        embeddings=[parse_embedding(text) for text in source["embedding"]],
    )
    for note in opened.notes:
        click.echo(printable(f"sdc: note: {note}"), err=True)
    return opened


def parse_lora(text: str) -> Lora:
    """``FILE``, ``FILE:SCALE`` or ``FILE:SCALE:TEXT_SCALE``; colons that no number follows are the file's."""
    from sd_convert import Lora

    scales: list[float] = []
    file = text
    while len(scales) < 2 and (scale := _number(file.rpartition(":")[2])) is not None and ":" in file:
        scales.insert(0, scale)
        file = file.rpartition(":")[0]
    return Lora(Path(file), *scales)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def parse_embedding(text: str) -> Embedding:
    """``NAME=FILE``."""
    from sd_convert import Embedding

    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise click.BadParameter(f"expected NAME=FILE, got {text!r}", param_hint="--embedding")
    return Embedding(name, Path(file))

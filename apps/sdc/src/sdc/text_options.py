"""The options of ``sdc generate`` and ``sdc serve`` that change text encoders as they load."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from sdc.sampling_options import options

text_options = options(
    click.option(
        "--embedding",
        multiple=True,
        metavar="NAME=FILE",
        help="Add a textual inversion that prompts call NAME, a .safetensors file; several may be given.",
    ),
    click.option(
        "--clip-skip",
        type=click.IntRange(min=1),
        help="Which layer of the text encoders to read, from the end as the web UI counts: 1, the usual one, "
        "is the default.",
    ),
)


def files_by_name(texts: Iterable[str]) -> dict[str, Path]:
    """``NAME=FILE`` each, or ``FILE``, whose name without its suffix it is."""
    found: dict[str, Path] = {}
    for text in texts:
        name, _, file = text.rpartition("=")
        name = name or Path(file).stem
        if not file or name in found:
            raise click.BadParameter(f"expected each NAME=FILE once, got {text!r}", param_hint="--embedding")
        found[name] = Path(file)
    return found

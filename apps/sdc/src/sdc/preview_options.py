"""The option that says how pictures at work are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from sdc.sampling_options import NameOf


def _previews() -> Sequence[str]:
    from sd_runtime import PREVIEWS

    return PREVIEWS


preview_option: Final = click.option(
    "--preview",
    type=NameOf("preview", _previews),
    help="How pictures at work are shown: by the bundle's tiny VAE (`sdc convert --preview-vae`), in the "
    "colours of the latent, a pixel for each of its own, or by the decoder of pictures.",
)

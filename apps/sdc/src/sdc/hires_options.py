"""The options of ``sdc generate`` for two passes: drawn, upscaled, and drawn over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from sdc.sampling_options import NameOf, WithDefaults, options


def _upscalers() -> Sequence[str]:
    from sd_runtime import UPSCALERS

    return tuple(UPSCALERS)


hires_bundle_option: Final = click.option(
    "--hires-bundle",
    type=click.Path(path_type=Path),
    help="The same model converted for the size of the second pass, where the bundle does not have it.",
)

hires_options = options(
    click.option(
        "--hires-scale",
        type=float,
        help="Draw, upscale so many times (1.5, 2), and draw over it: the web UI's hires fix.",
    ),
    click.option(
        "--hires-strength",
        cls=WithDefaults,
        type=float,
        help="How much of the schedule the second pass runs, 0 to 1; by default {hires_strength:g}.",
    ),
    click.option("--hires-steps", type=int, help="How many steps it takes; by default as many as the first."),
    click.option(
        "--hires-upscaler",
        type=NameOf("upscaler", _upscalers),
        help="Between the elements of the latent, by default, or between pixels.",
    ),
    hires_bundle_option,
)

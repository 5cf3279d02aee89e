"""The options of ``sdc generate`` that say what a mask does beside saying where."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sdc.sampling_options import NameOf, options


def _contents() -> Sequence[str]:
    from sd_runtime import MASK_CONTENTS

    return tuple(MASK_CONTENTS)


mask_options = options(
    click.option(
        "--mask-blur",
        type=float,
        metavar="PIXELS",
        help="Soften the mask's edge, and put the picture back around what was painted, fading into it. "
        "0 puts it back with a sharp edge; by default what is kept is as the VAE has it.",
    ),
    click.option(
        "--mask-content",
        type=NameOf("content", _contents),
        help="What the masked part starts from, with a --strength below 1: the picture, the colours around "
        "it, noise, or nothing.",
    ),
    click.option(
        "--padding-mask-crop",
        type=int,
        metavar="PIXELS",
        help="Draw the masked part alone, with so much around it, at the model's size, and put it back: the "
        "picture keeps its own size.",
    ),
)

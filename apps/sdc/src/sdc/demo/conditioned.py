"""Pictures whose shape an edge map puts somewhere, by the ControlNet that ships with the demo checkpoint."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from sdc.demo.captions import Caption, seen_captions
from sdc.demo.judge import overlap
from sdc.demo.shapes import coverage, edges, place

#: The ControlNet's folder in the demo checkpoint, and its component in a bundle.
EDGES: Final = "edges"
_SEED = 31


@dataclass(frozen=True, slots=True)
class Wanted:
    """A caption, the pixels (H, W) that its shape is to cover, and their edge map."""

    caption: Caption
    covered: npt.NDArray[np.bool_]
    hint: Image.Image


@dataclass(frozen=True, slots=True)
class Conditioned:
    """A picture that an edge map steered, and the intersection over union of its shape with the map's."""

    wanted: Wanted
    image: Image.Image
    overlap: float


def wanted_pictures(count: int) -> list[Wanted]:
    """Captions of the training, with shapes of any size anywhere; always the same ones."""
    rng = np.random.default_rng(_SEED)
    captions = random.Random(_SEED).sample(seen_captions(), count)  # noqa: S311 - a choice, not a secret
    covers = [coverage(caption.shape, *place(rng)) for caption in captions]
    return [
        Wanted(caption, covered > 0.5, Image.fromarray(edges(covered)))
        for caption, covered in zip(captions, covers, strict=True)
    ]


def draw_conditioned(
    bundle: Path, wanted: list[Wanted], *, num_inference_steps: int, scale: float = 1.0, **generated: Any
) -> list[Conditioned]:
    """One picture for each, with the ControlNet ``edges`` of the bundle.

    ``scale``: its strength; ``generated``: see ``sd_runtime.Pipeline.generate``.
    """
    from sd_controlnet import Control, Steering
    from sd_runtime import Pipeline

    pipeline, drawn = Pipeline.open(bundle), []
    for index, one in enumerate(wanted):
        (picture,) = pipeline.generate(
            str(one.caption),
            seed=_SEED + index,
            num_inference_steps=num_inference_steps,
            steer=Steering(pipeline, [Control(EDGES, one.hint, scale=scale)]),
            **generated,
        )
        drawn.append(Conditioned(one, picture.image, overlap(picture.image, one.covered)))
    return drawn

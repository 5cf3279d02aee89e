"""Which arithmetic a component is converted to, and why.

float16 wherever its numbers fit into it. Whether they do is not known by a model's name but found by running
the network: in the autoencoder of SDXL they do not, and in its repaired copies, which have the same configs,
they do. The run uses small latents. What a convolution computes of a pixel does not depend on the size of
the picture, and statistics of a normalisation hardly do; what grows with size is the largest of more
numbers, slowly (by a third from 8x8 to 32x32 latents in SD 1.5's decoder with random weights), for which
there is a margin of two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .cache import ConversionCache, entry_key
from .checkpoint import Checkpoint
from .component import Component
from .options import CHECKED_BY_DEFAULT, ConversionOptions

_LARGEST_FLOAT16: Final = 65504.0
_MARGIN: Final = 2
_LATENT: Final = 8  # latent pixels along each side
_SMOOTH: Final = (4, 1)  # patches along each side of the smoother inputs
_NAMES: Final = {"fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True, slots=True)
class Precision:
    """``dtype``: float16 or float32. ``reason``: what speaks against float16, or None."""

    dtype: str
    reason: str | None = None


def asked_precision(options: ConversionOptions, name: str) -> str:
    """``fp16``, ``fp32`` or ``auto``: what the options say for a component, the last word counts.

    Where they say nothing, the halves of the autoencoder are checked, whose numbers are known to grow; text
    encoders and UNets are float16, as everybody runs them.
    """
    asked = "auto" if name in CHECKED_BY_DEFAULT else "fp16"
    for entry in options.compute_precision:
        component, _, precision = entry.rpartition("=")
        asked = precision if component in ("", name) else asked
    return asked


def known_precision(
    name: str, checkpoint: Checkpoint, options: ConversionOptions, cache: ConversionCache | None
) -> Precision | None:
    """The precision asked for, or what a check of the same weights said before; None if it takes one."""
    asked = asked_precision(options, name)
    if asked != "auto":
        return Precision(_NAMES[asked])
    known = None if cache is None else cache.read(check_key(name, checkpoint, options, cache))
    return None if known is None else Precision(**json.loads(known))


def check_precision(
    name: str, checkpoint: Checkpoint, options: ConversionOptions, cache: ConversionCache | None
) -> Precision:
    """Run the component and see; what comes out is kept in ``cache``."""
    found = _judge(name, checkpoint, options)
    if cache is not None:
        content = json.dumps({"dtype": found.dtype, "reason": found.reason}).encode()
        cache.write(check_key(name, checkpoint, options, cache), content)
    return found


def check_key(name: str, checkpoint: Checkpoint, options: ConversionOptions, cache: ConversionCache) -> str:
    """Everything that a check's outcome follows from, the elements of the weights included."""
    digest = checkpoint.digest(name, cache.hash_file)
    sizes = (options.latent_height, options.latent_width, options.text_token_sequence_length)
    return entry_key("precision", [name, digest, checkpoint.configs, sizes])


def _judge(name: str, checkpoint: Checkpoint, options: ConversionOptions) -> Precision:
    from .components import build_component
    from .overflow import largest_activation

    component = build_component(name, checkpoint, _reduced(checkpoint, options))
    worst = largest_activation(component, _inputs(component, checkpoint))
    if worst.magnitude * _MARGIN <= _LARGEST_FLOAT16:
        return Precision("float16")
    where = worst.path or name
    return Precision(
        "float32", f"activations reach {worst.magnitude:.1e} in {where}, float16 holds {_LARGEST_FLOAT16:.0f}"
    )


def _reduced(checkpoint: Checkpoint, options: ConversionOptions) -> ConversionOptions:
    """The same with smaller latents, as far as they are larger."""
    from .facts import latent_size

    height, width = (
        size if size % _LATENT else min(size, _LATENT) for size in latent_size(checkpoint, options)
    )
    return replace(options, latent_height=height, latent_width=width)


def _inputs(component: Component, checkpoint: Checkpoint) -> Mapping[str, npt.NDArray[Any]]:
    """Inputs of the kind that it sees; for an autoencoder, also some as smooth as parts of pictures are."""
    from .samples import sample_inputs

    drawn = sample_inputs(component, checkpoint, seed=0)
    if drawn.keys().isdisjoint(("z", "x")):
        return drawn
    ((name, array),) = drawn.items()
    return {name: np.concatenate([array, *(_smooth(array, patches) for patches in _SMOOTH)])}


def _smooth(array: npt.NDArray[Any], patches: int) -> npt.NDArray[Any]:
    """The same (B, C, H, W) numbers, fewer of them, each for a whole patch."""
    rows, columns = (np.arange(size) * patches // size for size in array.shape[2:])
    return array[:, :, rows][:, :, :, columns]

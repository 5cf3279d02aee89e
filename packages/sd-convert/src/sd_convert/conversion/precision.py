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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sd_mil import Program

from sd_convert.checkpoint.digest import digest
from sd_convert.components import ComponentKind, Part
from sd_convert.components.component import PortDType, PortSpec
from sd_convert.facts import Sizes
from sd_convert.targets import target_named

from .cache import ConversionCache, entry_key
from .options import ConversionOptions

_LARGEST_FLOAT16: Final = 65504.0
_MARGIN: Final = 2
_LATENT: Final = 8  # latent pixels along each side
_SMOOTH: Final = (4, 1)  # patches along each side of the smoother inputs
_DTYPES: Final[Mapping[str, PortDType]] = {"fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True, slots=True)
class Precision:
    """``dtype``: float16 or float32. ``reason``: what speaks against float16, or None."""

    dtype: PortDType
    reason: str | None = None

    @property
    def notes(self) -> dict[str, str]:
        """What metadata say of it: nothing of float16."""
        if self.dtype == "float16":
            return {}
        reason = {"compute_precision_reason": self.reason} if self.reason else {}
        return {"compute_precision": self.dtype, **reason}


def asked_precision(options: ConversionOptions, kind: ComponentKind) -> str:
    """``fp16``, ``fp32`` or ``auto``: the options' last word on a component, or what its kind says."""
    asked: str = kind.precision
    for entry in options.compute_precision:
        component, _, precision = entry.rpartition("=")
        asked = precision if component in ("", kind.name) else asked
    return asked


def known_precision(
    part: Part, sizes: Sizes, options: ConversionOptions, cache: ConversionCache | None
) -> Precision | None:
    """The precision asked for, or what a check of the same weights said before; None if it takes one."""
    asked = asked_precision(options, part.kind)
    if asked != "auto":
        return Precision(_DTYPES[asked])
    known = None if cache is None else cache.read(_check_key(part, sizes, options, cache))
    return None if known is None else Precision(**json.loads(known))


def remember_precision(
    part: Part, sizes: Sizes, options: ConversionOptions, cache: ConversionCache | None, precision: Precision
) -> None:
    """Keep what came out of a check of these weights."""
    if cache is not None:
        content = json.dumps({"dtype": precision.dtype, "reason": precision.reason}).encode()
        cache.write(_check_key(part, sizes, options, cache), content)


def _check_key(part: Part, sizes: Sizes, options: ConversionOptions, cache: ConversionCache) -> str:
    """Everything that a check's outcome follows from, the elements of the weights included.

    And the opset, though nothing follows from it: what was checked goes with the bundle, in each its own.
    """
    content, opset = digest(part.weights, cache.hash_file), target_named(options.target).opset
    return entry_key("precision", [part.name, part.architecture, astuple(reduced(sizes)), content, opset])


def judge(part: Part, program: Program, inputs: Iterable[Mapping[str, npt.NDArray[Any]]]) -> Precision:
    """Run ``program``, the component's in float32, on each of ``inputs``, and see how large it gets."""
    from .overflow import largest_activation

    parts = (name.split(".")[:-1] for name in part.tensors)
    modules = {".".join(path[:length]) for path in parts for length in range(1, len(path) + 1)}
    worst = largest_activation(program, inputs, modules)
    if worst.magnitude * _MARGIN <= _LARGEST_FLOAT16:
        return Precision("float16")
    where = worst.path or part.name
    return Precision(
        "float32", f"activations reach {worst.magnitude:.1e} in {where}, float16 holds {_LARGEST_FLOAT16:.0f}"
    )


def reduced(sizes: Sizes) -> Sizes:
    """The same with smaller latents, as far as they are larger: those of a check."""
    height, width = (size if size % _LATENT else min(size, _LATENT) for size in (sizes.height, sizes.width))
    return replace(sizes, height=height, width=width)


def check_inputs(part: Part, ports: Sequence[PortSpec]) -> tuple[Mapping[str, npt.NDArray[Any]], ...]:
    """Inputs of the kind that it sees; for an autoencoder, also some as smooth as parts of pictures are."""
    drawn = part.draw(ports, seed=0)
    if part.kind.role not in ("image_decoder", "preview_decoder", "image_encoder"):
        return (drawn,)
    ((name, array),) = drawn.items()
    return ({name: array}, *({name: _smooth(array, patches)} for patches in _SMOOTH))


def _smooth(array: npt.NDArray[Any], patches: int) -> npt.NDArray[Any]:
    """The same (B, C, H, W) numbers, fewer of them, each for a whole patch."""
    rows, columns = (np.arange(size) * patches // size for size in array.shape[2:])
    return array[:, :, rows][:, :, :, columns]

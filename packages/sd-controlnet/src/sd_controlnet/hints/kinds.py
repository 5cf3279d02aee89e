"""The kinds of hints by name, and the numbers that each takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from sd_controlnet.conditioning import Float, in_bytes
from sd_controlnet.errors import HintError

from . import colours, edges
from .inpaint import inpaint
from .segmentation import segmentation

if TYPE_CHECKING:
    from PIL.Image import Image

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class HintKind:
    """One way to make a hint: ``make`` gets pixels (H, W, 3), RGB in 0..255, and ``options``.

    ``options`` has the defaults, in the order in which help names them.
    """

    name: str
    summary: str
    make: Callable[..., Bytes]
    options: Mapping[str, float] = field(default_factory=dict)


_KINDS: Final = (
    HintKind("canny", "thin edges", edges.canny, {"low": 100.0, "high": 200.0}),
    HintKind("softedge", "edges without a threshold", edges.soft_edge, {"sigma": 1.0}),
    HintKind("lineart", "lines darker than what is around them", edges.lineart, {"sigma": 6.0}),
    HintKind("scribble", "broad strokes", edges.scribble, {"threshold": 32.0}),
    HintKind("grey", "brightness alone", colours.grey),
    HintKind("blur", "without details", colours.blur, {"sigma": 9.0}),
    HintKind("tile", "smaller, and enlarged again", colours.tile, {"factor": 8.0}),
    HintKind("palette", "one colour for each square", colours.palette, {"factor": 64.0}),
)
_SEGMENTATION: Final = "segmentation"
_INPAINT: Final = "inpaint"

#: What each kind is, by its name.
HINTS: Final[Mapping[str, str]] = {
    **{kind.name: kind.summary for kind in _KINDS},
    _SEGMENTATION: "the colours of a label map (ADE20K)",
    _INPAINT: "the picture, and nothing where a mask is white: an array",
}


def make_hint(image: Image, kind: str, *, mask: Image | None = None, **options: float) -> Image | Float:
    """The hint of that kind, of the size of ``image``.

    Args:
        image: any picture; of ``segmentation``, a label map.
        kind: one of :data:`HINTS`.
        mask: of ``inpaint`` alone: white where to paint anew.
        options: in place of the kind's own numbers, such as ``low`` and ``high`` of ``canny``.

    Returns:
        A picture; of ``inpaint`` an array (1, 3, H, W), since a picture has no number for nothing.

    Raises:
        HintError: no such kind or option, or a picture that it cannot be made of.
    """
    if kind not in HINTS:
        raise HintError(f"expected a kind of hint of {', '.join(HINTS)}, got {kind!r}")
    if mask is not None and kind != _INPAINT:
        raise HintError(f"expected a mask for {_INPAINT!r} alone, got one for {kind!r}")
    found = next((each for each in _KINDS if each.name == kind), None)
    numbers = _numbers(kind, options, {} if found is None else found.options)
    if kind == _INPAINT:
        return inpaint(image, mask)
    if found is None:
        return picture(segmentation(image))
    return picture(found.make(np.asarray(in_bytes(image).convert("RGB")), **numbers))


def picture(pixels: Bytes) -> Image:
    """(H, W) or (H, W, 3) as a PIL image in RGB, as ControlNets see it."""
    from PIL import Image as Pillow

    return Pillow.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def _numbers(kind: str, given: Mapping[str, Any], defaults: Mapping[str, float]) -> dict[str, float]:
    for name, value in given.items():
        if name not in defaults:
            have = ", ".join(f"{key}={number:g}" for key, number in defaults.items()) or "none"
            raise HintError(f"expected options of {kind!r} ({have}), got {name!r}")
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise HintError(f"expected a number above 0 for {name} of {kind!r}, got {value!r}")
    return {**defaults, **{name: float(value) for name, value in given.items()}}

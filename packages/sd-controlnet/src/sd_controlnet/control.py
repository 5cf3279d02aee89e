"""What is asked of a ControlNet or adapter: a hint, how strongly, when and where it steers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt

from sd_controlnet.errors import ControlNetError

if TYPE_CHECKING:
    from PIL.Image import Image

#: The largest scale; nothing is known to look well above 2.
MOST_SCALE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Control:
    """A network of the bundle that is to steer a picture.

    Args:
        component: its name in the bundle, or the end of it after a ``/`` where that is the only one.
        hint: a PIL image or a file, fitted to the picture; or an array that fits, see ``hint_array``.
        scale: of what it adds, 0 to 10.
        start: the part of the steps before which it does nothing.
        end: the part of the steps after which it does nothing.
        guess_mode: the hint says what the picture is, not the prompt: it steers the prompt's prediction, not
            the one that guidance moves away from, and its finer residuals count less.
        mask: a PIL image or a file; it steers where that is white.
        mode: the kind of hint, from 0, of a union ControlNet (of xinsir's: 0 pose, 1 depth, 2 soft edges, 3
            lines, 4 normals, 5 segmentation, and of its ProMax 6 tile, 7 repaint).

    Raises:
        ControlNetError: a number out of range.
    """

    component: str
    hint: Image | str | Path | npt.NDArray[Any]
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    guess_mode: bool = False
    mask: Image | str | Path | None = None
    mode: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        check_span(self.component, self.scale, self.start, self.end)

    def steers(self, index: int, total: int) -> bool:
        """Whether it takes part in evaluation ``index`` of ``total``, as diffusers' pipelines decide it."""
        return steers(self.start, self.end, index, total)

    def is_over(self, index: int, total: int) -> bool:
        """Whether it takes no part in any after this one."""
        return (index + 2) / total > self.end


def steers(start: float, end: float, index: int, total: int) -> bool:
    """Whether what steers from ``start`` to ``end`` takes part in evaluation ``index`` of ``total``."""
    return index / total >= start and (index + 1) / total <= end


def check_span(name: str, scale: float, start: float, end: float) -> None:
    """Refuse with :class:`ControlNetError` numbers that make no sense for what is called ``name``."""
    _check_range("scale", scale, MOST_SCALE)
    _check_range("start", start, 1.0)
    _check_range("end", end, 1.0)
    if start >= end:
        raise ControlNetError(f"expected the start of {name} to be before its end, got {start:g} and {end:g}")


def _check_range(name: str, value: object, most: float) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (math.isfinite(value) and 0 <= value <= most)
    ):
        raise ControlNetError(f"expected a {name} from 0 to {most:g}, got {value!r}")

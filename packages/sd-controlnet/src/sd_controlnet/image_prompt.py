"""An image that a picture is to be like, as IP-Adapters have it: how strongly, and when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sd_controlnet.control import check_span

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """An image beside the prompt, through an IP-Adapter of the bundle.

    Args:
        image: a PIL image or a file; its middle is seen, a square as large as fits.
        scale: how strongly, 0 to 10; 0.5 to 0.8 leaves the prompt its say.
        start: the part of the steps before which it does nothing.
        end: the part of the steps after which it does nothing.
        adapter: the adapter's name in the bundle, or the end of it after a ``/`` where that is the only one;
            by default the first image is for the bundle's first adapter, the second for its second, ...

    Raises:
        ControlNetError: a number out of range.
    """

    image: Image | str | Path
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    adapter: str | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        check_span(self.adapter or "an image", self.scale, self.start, self.end)

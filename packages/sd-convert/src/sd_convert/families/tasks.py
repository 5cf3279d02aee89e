"""What a UNet sees beside the noisy latents: its input channels tell, whatever the family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sd_bundle import Task


@dataclass(frozen=True, slots=True)
class TaskKind:
    """``beside``: how often latents lie beside the noisy ones; ``has_mask``: whether one channel more does.

    ``pipeline``: the word in the name of diffusers' pipeline.
    """

    name: Task
    beside: int = 0
    has_mask: bool = False
    pipeline: str = ""

    def channels(self, latent: int) -> int:
        """Input channels of a UNet whose latents have ``latent`` channels."""
        return latent * (1 + self.beside) + self.has_mask


TASKS: Final = (
    TaskKind("text-to-image"),
    TaskKind("instruct-pix2pix", beside=1, pipeline="InstructPix2Pix"),
    TaskKind("inpainting", beside=1, has_mask=True, pipeline="Inpaint"),
)

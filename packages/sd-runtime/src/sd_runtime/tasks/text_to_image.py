"""A picture from noise alone."""

from __future__ import annotations

from typing import Final

from sd_schedulers import FromNoise

from sd_runtime.tasks.task import Begun, Given, Task


def begin(given: Given) -> Begun:
    """Noise, and the whole schedule."""
    return Begun(FromNoise(given.fresh_noise()))


TEXT_TO_IMAGE: Final = Task(
    name="text-to-image",
    models=frozenset(("text-to-image",)),
    begin=begin,
    refinable=True,
    in_two_passes=True,
)

"""The generations of Stable Diffusion, one file each; nothing else asks by name which one a checkpoint is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sd_bundle import TimeIds

from .family import TIME_ID_COUNTS, Encoder, Family, Prediction
from .sd1 import SD1
from .sd2 import SD2
from .sdxl import SDXL
from .sdxl_refiner import SDXL_REFINER
from .tasks import TASKS, TaskKind

FAMILIES: Final[Mapping[str, Family]] = {family.name: family for family in (SD1, SD2, SDXL, SDXL_REFINER)}


def family_of(*, time_ids: TimeIds, linear_projection: bool) -> Family:
    """The family of a UNet that is told these sizes, and projects in this way."""
    return next(
        family
        for family in FAMILIES.values()
        if family.time_ids == time_ids and family.linear_projection in (None, linear_projection)
    )


__all__ = [
    "FAMILIES",
    "TASKS",
    "TIME_ID_COUNTS",
    "Encoder",
    "Family",
    "Prediction",
    "TaskKind",
    "family_of",
]

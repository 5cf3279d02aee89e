"""What SDXL and its refiner are told of the picture: sizes before and after a crop, and a score.

Source: arXiv 2307.01952 (SDXL), section 2.2 (micro-conditioning); diffusers' ``_get_add_time_ids``.
"""

from __future__ import annotations

from sd_bundle import ModelFacts

from sd_runtime.settings import ImageSettings


def time_ids(facts: ModelFacts, settings: ImageSettings, *, is_negative: bool) -> tuple[float, ...]:
    """One row of ``time_ids``: (original height, width, crop top, left, target height, width), in pixels.

    A refiner is told a score in place of the last two: another one in the row that guidance leads away from.
    """
    own = (facts.image.height, facts.image.width)
    corner = (*(settings.original_size or own), *(settings.crop_top_left or (0, 0)))
    if facts.conditioning.time_ids == "size":
        return (*corner, *(settings.target_size or own))
    score = settings.negative_aesthetic_score if is_negative else settings.aesthetic_score
    return (*corner, 0.0 if score is None else score)

"""The end of SDXL's schedule by its refiner, a model of its own.

Source: arXiv 2307.01952 (SDXL), section 2.5; diffusers' ``denoising_end`` and ``denoising_start``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from sd_bundle import ModelFacts
from sd_schedulers import Resumed, Step

from sd_runtime.errors import SettingsError
from sd_runtime.tasks.turns import in_turn

#: The share of the training timesteps after which it takes over.
START: Final = 0.8


def check_refiner(base: ModelFacts, refiner: ModelFacts) -> None:
    """Refuse a refiner that cannot go on where ``base`` stops."""
    if base.latent != refiner.latent or base.task != "text-to-image" or refiner.task != "text-to-image":
        raise SettingsError(
            f"expected a refiner for latents of {base.latent} of a text-to-image model, got "
            f"{refiner.identifier} with {refiner.latent} for {base.identifier}: convert both at one size"
        )


def refined(
    steps: Iterator[Step],
    resume: Callable[[Resumed], Iterator[Step]],
    *,
    start: float,
    asked: int,
    make_room: Callable[[], None],
) -> Iterator[Step]:
    """The base's ``steps``, which end at ``start``, then those that ``resume`` gives, numbered through.

    ``make_room`` is called between the two; ``asked`` is how many steps the caller counts on.
    """

    def more(last: Step) -> Iterator[Step]:
        make_room()
        return resume(Resumed(last.latent, start))

    return in_turn(steps, more, total=lambda step: max(step.total, asked))

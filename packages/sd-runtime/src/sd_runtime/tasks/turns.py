"""Two samplers, one after the other, as the steps of one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from sd_schedulers import Step


def in_turn(
    steps: Iterator[Step], more: Callable[[Step], Iterator[Step]], *, total: Callable[[Step], int]
) -> Iterator[Step]:
    """``steps``, then those that ``more`` makes of the last one, numbered through.

    ``total`` is what the caller counts on in all, as long as the others are not there.
    """
    for step in steps:
        yield replace(step, total=total(step))
    del steps  # and with it the hold on its denoiser
    done = step.index + 1
    for later in more(step):
        yield replace(later, index=done + later.index, total=done + later.total)

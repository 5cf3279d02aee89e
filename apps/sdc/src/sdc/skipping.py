"""What leaving guidance out at one end of the schedule costs a picture, and what it saves.

A step without guidance takes half of the work; how far the picture then is from the one with guidance at
every step depends on the model, the scheduler and the prompt, so it is measured here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sd_runtime import Pipeline

#: Shares of the steps that are left out, at the end and at the start.
SHARES: Final = (0.2, 0.4, 0.6)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Guidance left out in ``share`` of the steps ``at`` one end: seconds of a picture, and its dB.

    ``saved`` is the share of the seconds that the whole takes. ``psnr`` is None for pictures that are equal.
    """

    at: str
    share: float
    seconds: float
    saved: float
    psnr: float | None


def variants() -> Iterator[tuple[str, float, dict[str, float]]]:
    """Where, how much, and the options of a request that say so."""
    for share in SHARES:
        yield "end", share, {"guidance_end": 1 - share}
    for share in SHARES:
        yield "start", share, {"guidance_start": share}


def skipped(
    pipeline: Pipeline, prompt: str, options: dict[str, Any], seen: Callable[[], object] = lambda: None
) -> list[Skipped]:
    """One picture with guidance everywhere, after one in which networks load, and one for each variant.

    ``seen`` is called after each. Errors as ``Pipeline.generate``: a model without guidance has none to skip.
    """
    from sd_mil import psnr

    def drawn(**more: Any) -> tuple[Any, float]:
        began = time.perf_counter()
        (picture,) = pipeline.generate(prompt, check_safety=False, **options, **more)
        seconds = time.perf_counter() - began
        seen()
        return picture.image, seconds

    import numpy as np

    drawn(guidance_end=1 - SHARES[0])  # refuses models without guidance, and loads the networks
    whole, whole_seconds = drawn()
    found = []
    for at, share, more in variants():
        image, seconds = drawn(**more)
        distance = psnr(np.asarray(whole), np.asarray(image))
        found.append(
            Skipped(
                at,
                share,
                seconds,
                1 - seconds / whole_seconds,
                distance if math.isfinite(distance) else None,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Held:
    """A picture with guidance in some steps and the same with guidance in all: seconds of sampling, dB."""

    seconds: float
    whole_seconds: float
    psnr: float

    def __str__(self) -> str:
        """One line."""
        distance = f"{self.psnr:.1f} dB" if math.isfinite(self.psnr) else "no difference"
        saved = 1 - self.seconds / self.whole_seconds
        return (
            f"guidance left out: {distance} to the picture with all of it, {self.seconds:.2f} s of sampling "
            f"instead of {self.whole_seconds:.2f} s ({saved:.0%} saved)"
        )


def held(pipeline: Pipeline, prompt: str, latent: Any, seconds: float, options: dict[str, Any]) -> Held:
    """What leaving guidance out did to a picture: its last ``latent`` (1, C, h, w), sampled in ``seconds``.

    ``options`` are those of its request, with which the whole is drawn here. Networks are loaded by then.
    """
    import numpy as np
    from sd_mil import psnr

    everywhere = {**options, "guidance_start": None, "guidance_end": None}
    steps = pipeline.steps(prompt, **everywhere)
    began = time.perf_counter()
    *_, last = steps
    whole_seconds = time.perf_counter() - began
    pictures = [np.asarray(pipeline.decode(each)) for each in (last.latent, latent)]
    return Held(seconds, whole_seconds, psnr(*pictures))


#: Of the table.
COLUMNS: Final = ("guidance left out", "s", "time saved", "PSNR to full guidance (dB)")


def row(each: Skipped) -> tuple[str, ...]:
    """The cells under :data:`COLUMNS`."""
    distance = "equal" if each.psnr is None else f"{each.psnr:.1f}"
    return f"{each.share:.0%} at the {each.at}", f"{each.seconds:.2f}", f"{each.saved:.0%}", distance

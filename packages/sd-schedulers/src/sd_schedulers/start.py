"""What to run of a schedule: from noise, from a picture, or from where another sampler stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import Float32, Level, mix
from sd_schedulers.schedule import NoiseSchedule

#: The next array of unit noise, of the latent's shape, for samplers that add some at every step.
Draw: TypeAlias = Callable[[], Float32]


@dataclass(frozen=True, slots=True)
class FromNoise:
    """Unit-variance Gaussian ``noise``, and the whole schedule."""

    noise: Float32


@dataclass(frozen=True, slots=True)
class FromImage:
    """The clean latent ``image`` with ``noise`` added, and the last ``strength`` of the steps.

    ``strength`` of 1 runs them all. As in diffusers, the number of steps is rounded down.

    Source: arXiv 2108.01073 (SDEdit).
    """

    image: Float32
    noise: Float32
    strength: float

    def __post_init__(self) -> None:
        """Refuse a strength outside (0, 1], and noise of another shape."""
        if not 0 < self.strength <= 1:
            raise ScheduleError(f"expected a strength above 0 and up to 1, got {self.strength!r}")
        if self.image.shape != self.noise.shape:
            raise ScheduleError(f"expected noise of shape {self.image.shape}, got {self.noise.shape}")


@dataclass(frozen=True, slots=True)
class Resumed:
    """The ``state`` (a step's ``latent``) of the same sampler that stopped after ``progress`` of the time.

    ``progress`` counts training timesteps: 0.8 leaves the last fifth of them, as diffusers'
    ``denoising_start``; the sampler before had the same number as its ``end``.
    """

    state: Float32
    progress: float

    def __post_init__(self) -> None:
        """Refuse a progress at which there is nothing to resume."""
        if not 0 < self.progress < 1:
            raise ScheduleError(f"expected a progress between 0 and 1, got {self.progress!r}")


Start: TypeAlias = FromNoise | FromImage | Resumed


@dataclass(frozen=True, slots=True)
class Span:
    """What to run of ``count`` steps: from ``start`` to ``end``, a share of the training timesteps.

    ``timesteps``, ``sigmas``, ``eta`` and ``mu`` are those of :func:`~sd_schedulers.sample`, for the
    schedulers that take them.
    """

    count: int
    start: Start
    end: float
    fresh_noise: Draw
    timesteps: tuple[int, ...] | None = None
    eta: float = 0.0
    mu: float | None = None
    sigmas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse an end outside the schedule."""
        if not 0 < self.end <= 1:
            raise ScheduleError(f"expected an end above 0 and up to 1, got {self.end!r}")

    def window(self, timesteps: Sequence[float], schedule: NoiseSchedule) -> range:
        """Which of a sampler's evaluations, at ``timesteps``, to run.

        Raises:
            ScheduleError: none is left.
        """
        first = self.first(timesteps, schedule)
        limit = _timestep_at(self.end, schedule)
        last = first + sum(timestep >= limit for timestep in islice(timesteps, first, None))
        if first >= last:
            raise ScheduleError(
                f"expected at least one of {self.count} steps between start and end, got none: use more steps"
            )
        return range(first, last)

    def first(self, timesteps: Sequence[float], schedule: NoiseSchedule) -> int:
        """The number of the first evaluation to run."""
        match self.start:
            case FromImage(strength=strength):
                return self.count - self.kept(strength)
            case Resumed(progress=progress):
                limit = _timestep_at(progress, schedule)
                return len(timesteps) - sum(timestep < limit for timestep in timesteps)
            case _:
                return 0

    def kept(self, strength: float) -> int:
        """How many of all steps the last ``strength`` of them are.

        Raises:
            ScheduleError: none is.
        """
        kept = int(self.count * strength)
        if kept < 1:
            raise ScheduleError(
                f"expected at least one of {self.count} steps at strength {strength}, got none: "
                "use more steps or a larger strength"
            )
        return kept

    def latent(self, *, at: Level, scale: float = 1.0) -> Float32:
        """Where to start, at level ``at``; ``scale`` is what the sampler multiplies pure noise by."""
        match self.start:
            case FromImage(image, noise):
                return mix(image, noise, at=at)
            case Resumed(state):
                return state
            case FromNoise(noise):
                return noise * scale


def _timestep_at(progress: float, schedule: NoiseSchedule) -> int:
    total = schedule.num_train_timesteps
    return round(total - progress * total)

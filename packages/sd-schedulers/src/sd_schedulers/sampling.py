"""What schedulers take and give: a model, unit noise and a noise schedule in; steps out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar, cast

import numpy as np

from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import Float32
from sd_schedulers.schedule import NoiseSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.start import Draw, Span

#: ``(latent_model_input, timestep) -> model_output``: the network's raw prediction, guidance folded in.
#: The input is what the network was trained on (diffusers' ``scale_model_input`` is already applied).
Model: TypeAlias = Callable[[Float32, float], Float32]

S_contra = TypeVar("S_contra", contravariant=True)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation of the model and what came of it.

    ``latent`` is the sampler's state after the step, in its own scale; after the last step it is the result.
    ``denoised`` is the estimate of the clean latent that this evaluation gives: what to preview.
    """

    index: int
    total: int
    timestep: float
    latent: Float32
    denoised: Float32


class Sampler(Protocol[S_contra]):
    """Integrates from where the span starts to where it ends, one model evaluation a step."""

    def __call__(self, model: Model, schedule: S_contra, span: Span) -> Iterator[Step]:
        """Settings are checked at the call; the model runs when steps are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler(Generic[S]):
    """A scheduler: its config keys and its generator, under a name.

    ``diffusers`` is the class whose configs and results these are, None for one that diffusers lacks; that
    name finds the scheduler too, as ``aliases`` do. ``forms`` are the noise schedules that it integrates.
    ``eta`` is the default of the argument of that name, None where the scheduler has none;
    ``takes_timesteps``, ``takes_sigmas`` and ``takes_mu`` say which others it takes.
    """

    name: str
    diffusers: str | None
    keys: ConfigKeys
    forms: tuple[type[S], ...]
    sampler: Sampler[S]
    aliases: tuple[str, ...] = ()
    eta: float | None = None
    takes_timesteps: bool = False
    takes_sigmas: bool = False
    takes_mu: bool = False

    def steps(self, model: Model, schedule: NoiseSchedule, span: Span) -> Iterator[Step]:
        """Run it.

        Raises:
            ScheduleError: the noise schedule has another form, or a setting is one that it cannot follow.
        """
        if not isinstance(schedule, self.forms):
            expected = " or ".join(form.__name__ for form in self.forms)
            raise ScheduleError(
                f"expected a noise schedule of {expected} for scheduler {self.name!r}, got "
                f"{type(schedule).__name__}: name a scheduler for this model's kind of noise"
            )
        return self.sampler(model, cast(S, schedule), span)


def drawn(arrays: Iterable[Float32], shape: tuple[int, ...]) -> Draw:
    """The ``arrays`` one by one, held to ``shape``."""
    remaining = iter(arrays)

    def draw() -> Float32:
        noise = next(remaining, None)
        if noise is None:
            raise ScheduleError("expected step_noise, an array for every step of this sampler, got too few")
        if np.shape(noise) != shape:
            raise ScheduleError(f"expected step_noise of shape {shape}, got {np.shape(noise)}")
        return np.asarray(noise, np.float32)

    return draw


def checked(model: Model) -> Model:
    """``model`` with its output held to float32 and to the shape of its input.

    The output is copied: samplers remember it, and an engine may reuse its buffer.
    """

    def call(latent: Float32, timestep: float) -> Float32:
        output: Float32 = np.array(model(latent, timestep), dtype=np.float32)
        if output.shape != latent.shape:
            raise ScheduleError(f"expected a model output of shape {latent.shape}, got {output.shape}")
        return output

    return call

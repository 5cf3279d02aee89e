"""PNDM: pseudo linear multistep, after a cold start (PLMS, as Stable Diffusion runs it) or Runge-Kutta.

Source: arXiv 2202.09778 (Pseudo Numerical Methods for Diffusion Models on Manifolds), eq. 9, 12, 13;
diffusers ``PNDMScheduler``, with its rounding of timesteps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import Float32, Level, mix
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.spacing import SCHEDULE_KEYS, spaced_timesteps
from sd_schedulers.start import FromNoise, Span

#: Weights of the latest outputs, newest first, by how many there are.
ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)

KEYS = ConfigKeys(
    honoured=(SCHEDULE_KEYS - {"prediction_type"})
    | {"skip_prk_steps", "set_alpha_to_one", "timestep_spacing", "steps_offset"},
    limited={
        "prediction_type": ("epsilon", "v_prediction"),  # diffusers' class has no other
        "rescale_betas_zero_snr": (False,),  # eq. 9 divides by the signal
    },
)


def pndm(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """Fourth-order multistep sampling.

    With ``skip_prk_steps`` (Stable Diffusion), ``n + 1`` evaluations: the first interval takes two. Without,
    it starts with three Runge-Kutta steps of four evaluations each: ``n + 9``, for ``n`` of 4 or more.

    Started in the middle, it makes the same evaluations as diffusers: its list of them less the first ones.
    The second evaluation of the first interval then goes to the one after, so the history starts a step off.

    Raises:
        ScheduleError: it takes more steps than given to start, or a Runge-Kutta start in the middle.
    """
    settings = schedule.settings
    timesteps = spaced_timesteps(schedule, span.count, default="leading").round().astype(int).tolist()
    bridge = _Bridge(schedule, schedule.num_train_timesteps // span.count)
    if not settings.flag("skip_prk_steps", default=False):
        _check_runge_kutta_start(span)
        noise = span.latent(at=bridge.level(timesteps[0]))
        return _runge_kutta_start(model, noise, bridge, timesteps)
    evaluations = [timesteps[0], *timesteps[1:2], *timesteps[1:]]
    window = span.window(evaluations, schedule)
    latent = span.latent(at=bridge.level(evaluations[window.start]))
    return _cold_start(model, latent, bridge, evaluations[window.start : window.stop])


def _check_runge_kutta_start(span: Span) -> None:
    if span.count < 4:
        raise ScheduleError(f"expected 4 steps or more for pndm without skip_prk_steps, got {span.count}")
    if not isinstance(span.start, FromNoise) or span.end < 1:
        raise ScheduleError(
            "expected the whole schedule from noise for pndm without skip_prk_steps, got a part of it: "
            "use another sampler"
        )


def _cold_start(model: Model, noise: Float32, bridge: _Bridge, timesteps: list[int]) -> Iterator[Step]:
    """The first interval by Heun's method (predict, evaluate at its end, average), then multistep."""
    first = timesteps[0]
    total = len(timesteps)
    output = model(noise, first)
    latent = bridge.cross(noise, output, first, first - bridge.stride)
    yield Step(0, total, first, latent, bridge.denoised(noise, output, first))
    if total == 1:
        return
    second = timesteps[1]
    at_end = model(latent, second)
    estimate = bridge.denoised(latent, at_end, second)
    latent = bridge.cross(noise, _weighted((0.5, 0.5), (output, at_end)), second + bridge.stride, second)
    yield Step(1, total, second, latent, estimate)
    for step in _multistep(model, latent, bridge, timesteps[2:], (output,)):
        yield replace(step, index=step.index + 2, total=total)


def _runge_kutta_start(model: Model, noise: Float32, bridge: _Bridge, timesteps: list[int]) -> Iterator[Step]:
    latent, total, half = noise, len(timesteps) + 9, bridge.stride // 2
    history: tuple[Float32, ...] = ()
    for interval, (start, end) in enumerate(pairwise(timesteps[:4])):
        base = latent
        outputs: tuple[Float32, ...] = ()
        # Where the four evaluations are made, and where the slope found there carries the interval's start.
        stops = ((start, start - half), (end + half, end + half), (end + half, end), (end, end))
        for timestep, target in stops:
            outputs = (*outputs, model(latent, timestep))
            estimate = bridge.denoised(latent, outputs[-1], timestep)
            slope = outputs[-1] if len(outputs) < 4 else _weighted(RUNGE_KUTTA, outputs)
            latent = bridge.cross(base, slope, start, target)
            yield Step(4 * interval + len(outputs) - 1, total, timestep, latent, estimate)
        history = (*history, outputs[0])
    for step in _multistep(model, latent, bridge, timesteps[3:], history):
        yield replace(step, index=step.index + 12, total=total)


def _multistep(
    model: Model, latent: Float32, bridge: _Bridge, timesteps: list[int], history: tuple[Float32, ...]
) -> Iterator[Step]:
    """One evaluation an interval, extrapolated from up to four outputs (eq. 12)."""
    for index, timestep in enumerate(timesteps):
        output = model(latent, timestep)
        estimate = bridge.denoised(latent, output, timestep)
        history = (*history[-3:], output)
        slope = _weighted(ADAMS_BASHFORTH[len(history)], history[::-1])
        latent = bridge.cross(latent, slope, timestep, timestep - bridge.stride)
        yield Step(index, len(timesteps), timestep, latent, estimate)


def _weighted(weights: Sequence[float], outputs: Sequence[Float32]) -> Float32:
    terms = [weight * output for weight, output in zip(weights, outputs, strict=True)]
    return sum(terms[1:], terms[0])


@dataclass(frozen=True, slots=True)
class _Bridge:
    """Carries a latent from one timestep to another along a predicted slope (eq. 9, in the terms of DDIM)."""

    schedule: DDPMSchedule
    stride: int

    def cross(self, latent: Float32, output: Float32, start: int, end: int) -> Float32:
        here, prediction = self.level(start), self.schedule.prediction
        clean = prediction.denoised(output, latent, at=here)
        return mix(clean, prediction.noise(output, latent, at=here), at=self.level(end))

    def denoised(self, latent: Float32, output: Float32, timestep: int) -> Float32:
        return self.schedule.prediction.denoised(output, latent, at=self.level(timestep))

    def level(self, timestep: int) -> Level:
        to_one = self.schedule.settings.flag("set_alpha_to_one", default=False)
        return Level.variance_preserving(
            self.schedule.alpha_cumprod(timestep, beyond=1.0 if to_one else None)
        )


PNDM = Scheduler(
    name="pndm", diffusers="PNDMScheduler", keys=KEYS, forms=(DDPMSchedule,), sampler=pndm, aliases=("plms",)
)

"""diffusers as an oracle: the loop of its pipelines around a toy network, and ours around the same.

The network is nonlinear, mixes its inputs and changes with the timestep, so that a wrong timestep, scale,
order or history shows in the numbers.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from sd_schedulers import SCHEDULERS, FromImage, NoiseSchedule, sample

Array = npt.NDArray[np.float32]
#: Timesteps that the network hears, and the latent after each.
Course = tuple[list[float], list[Array]]

#: Of SD 1.5, without what only some classes read.
DDPM_CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (2, 1, 2, 3)
IMAGE = np.linspace(-1.3, 1.1, 12, dtype=np.float32).reshape(SHAPE)


def toy(latent: Array, timestep: float) -> Array:
    mixed = np.float32(0.7) * latent + np.float32(0.1) * np.roll(latent, 1, -1)
    return np.float32(0.8) * np.tanh(mixed) + np.float32(0.2 * np.sin(timestep / 150))


def unit_noise(seed: int = 7) -> Array:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def step_noise() -> Iterator[Array]:
    random = np.random.default_rng(8)
    while True:
        yield random.standard_normal(SHAPE).astype(np.float32)


def class_of(name: str) -> Any:
    """diffusers' class of a scheduler of ours; its SDE class wants torchsde, which only its noise needs."""
    pytest.importorskip("scipy")
    diffusers = pytest.importorskip("diffusers")
    diffusers.logging.set_verbosity_error()
    if name == "dpmpp_sde":
        with mock.patch.dict(sys.modules, {"torchsde": types.ModuleType("torchsde")}):
            from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler
        return DPMSolverSDEScheduler
    return getattr(diffusers, str(SCHEDULERS[name].diffusers))


def ours(
    name: str, config: Mapping[str, object], count: int, *, image: float | None = None, **arguments: Any
) -> Course:
    schedule = NoiseSchedule.from_config({"_class_name": SCHEDULERS[name].diffusers, **config})
    start = unit_noise() if image is None else FromImage(IMAGE, unit_noise(), image)
    steps = list(
        sample(name, toy, start, schedule, num_inference_steps=count, step_noise=step_noise(), **arguments)
    )
    assert [(step.index, step.total) for step in steps] == [(i, len(steps)) for i in range(len(steps))]
    return [step.timestep for step in steps], [step.latent for step in steps]


def theirs(
    name: str,
    config: Mapping[str, object],
    count: int,
    *,
    image: float | None = None,
    timesteps: list[int] | None = None,
    sigmas: list[float] | None = None,
    eta: float | None = None,
    mu: float | None = None,
) -> Course:
    scheduler = class_of(name).from_config(dict(config))
    import torch

    arguments: dict[str, Any] = {} if mu is None else {"mu": mu}
    if name in ("lcm", "tcd") and image is not None:
        arguments["strength"] = image
    if sigmas is not None:
        scheduler.set_timesteps(sigmas=sigmas)
    elif timesteps is None:
        scheduler.set_timesteps(count, **arguments)
    else:
        scheduler.set_timesteps(timesteps=list(timesteps), **arguments)
    latent = torch.from_numpy(unit_noise()) * getattr(scheduler, "init_noise_sigma", 1.0)
    begin = 0
    if image is not None:
        if "strength" not in arguments:
            begin = (count - min(int(count * image), count)) * scheduler.order
        first = scheduler.timesteps[begin : begin + 1]
        add_noise = getattr(scheduler, "add_noise", None)
        args = torch.from_numpy(IMAGE), torch.from_numpy(unit_noise())
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        latent = add_noise(*args, first) if add_noise else scheduler.scale_noise(args[0], first, args[1])
    if hasattr(scheduler, "set_begin_index"):  # else it looks timesteps up, and some come twice
        scheduler.set_begin_index(begin)
    noise = step_noise()
    if hasattr(scheduler, "sigmas"):  # float32 cancels in the weights of higher orders
        scheduler.sigmas = scheduler.sigmas.double()
    if name == "dpmpp_sde":
        scheduler.noise_sampler = brownian_path(noise)
    course: Course = ([], [])

    def randn_tensor(*_: object, **__: object) -> Any:
        return torch.from_numpy(next(noise))

    extra = {} if eta is None else {"eta": eta}
    with mock.patch(f"{type(scheduler).__module__}.randn_tensor", randn_tensor, create=True):
        for timestep in scheduler.timesteps[begin:]:
            scale = getattr(scheduler, "scale_model_input", lambda latent, _: latent)
            output = toy(scale(latent, timestep).numpy().astype(np.float32), float(timestep))
            step = scheduler.step(torch.from_numpy(output), timestep, latent, **extra)
            latent = step.prev_sample
            course[0].append(float(timestep))
            course[1].append(latent.numpy().astype(np.float32))
    return course


def brownian_path(noise: Iterator[Array]) -> Any:
    """Increments of one path in sigma, at unit variance: each begins where the last ended, or extends it."""
    last: list[Any] = [None, None, None]  # from where, to where, and the increment in between

    def increment(start: Any, end: Any) -> Any:
        import torch

        start, end = float(start), float(end)
        if last[0] is not None and abs(last[0] - start) < 1e-9 * start:
            more = np.sqrt(abs(last[1] - end)) * next(noise)
            last[:] = [start, end, last[2] + more]
        else:
            last[:] = [start, end, np.sqrt(abs(start - end)) * next(noise)]
        return torch.from_numpy((last[2] / np.sqrt(abs(start - end))).astype(np.float32))

    return increment


def assert_same(got: Course, expected: Course, *, tolerance: float = 1e-5) -> None:
    assert got[0] == pytest.approx(expected[0], abs=2e-3, rel=1e-6)
    for number, (latent, reference) in enumerate(zip(got[1], expected[1], strict=True)):
        assert latent.dtype == np.float32
        assert np.isfinite(reference).all()
        error = np.abs(latent - reference).max() / np.abs(reference).max()
        assert error <= tolerance, f"step {number}: {error:.1e}"

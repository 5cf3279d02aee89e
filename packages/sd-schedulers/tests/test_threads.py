"""One noise schedule and one model in many threads: what each of them draws, one alone draws."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sd_schedulers import SCHEDULERS, NoiseSchedule, sample

THREADS = 16
STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CLASSES = {"flow_match_euler": "FlowMatchEulerDiscreteScheduler"}
CLASSES |= {"edm_euler": "EDMEulerScheduler", "edm_dpmpp_2m": "EDMDPMSolverMultistepScheduler"}


@pytest.fixture(autouse=True)
def hasty():
    """Threads change places much more often than they do otherwise."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_one_thread_draws_all_draw(name):
    own = {"_class_name": CLASSES[name]} if name in CLASSES else STABLE_DIFFUSION
    schedule = NoiseSchedule.from_config(own)

    def drawn(seed):
        generator = np.random.default_rng(seed)
        noise = [generator.standard_normal((1, 2, 4, 4), np.float32) for _ in range(20)]
        steps = sample(
            name,
            lambda latent, _: latent * np.float32(0.3),
            noise[0],
            schedule,
            num_inference_steps=5,
            step_noise=iter(noise[1:]),
        )
        return [step.latent.tobytes() for step in steps]

    alone = [drawn(seed) for seed in range(THREADS)]
    assert len({latents[-1] for latents in alone}) == THREADS
    barrier = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS, initializer=barrier.wait) as pool:
        assert list(pool.map(drawn, range(THREADS))) == alone

"""One checkpoint, two roads: diffusers' own pipeline in fp32, and the converted bundle."""

import warnings

import numpy as np
import pytest
from sd_mil import psnr
from sd_runtime import Pipeline
from sdc.commands.demo import demo_captions, draw_all
from sdc.demo.sheet import accuracy

PROMPT, NEGATIVE = "a yellow star on a purple background", "a blue circle on a white background"


@pytest.fixture(scope="module")
def theirs(checkpoint):
    import torch
    from diffusers import StableDiffusionPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def ours(bundle):
    return Pipeline.open(bundle)


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [
        ("pndm", "PNDMScheduler"),
        ("ddim", "DDIMScheduler"),
        ("euler", "EulerDiscreteScheduler"),
        ("dpmpp_2m", "DPMSolverMultistepScheduler"),
        ("heun", "HeunDiscreteScheduler"),
        ("unipc", "UniPCMultistepScheduler"),
        ("ddpm", "DDPMScheduler"),
    ],
)
@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
def test_same_prompt_and_seed_give_the_same_picture(theirs, ours, scheduler, name, guidance_scale):
    import diffusers
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.scheduler = getattr(diffusers, name).from_config(theirs.scheduler.config)
        expected = theirs(
            PROMPT,
            negative_prompt=NEGATIVE,
            num_inference_steps=6,
            guidance_scale=guidance_scale,
            generator=torch.Generator("cpu").manual_seed(11),
            output_type="np",
        ).images[0]
    (drawn,) = ours.generate(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=6,
        guidance_scale=guidance_scale,
        seed=11,
        rng="torch",
        scheduler=scheduler,
    )
    assert psnr(expected, np.asarray(drawn.image, dtype=np.float32) / 255) > 35


def test_the_demo_bundle_draws_what_it_is_asked(bundle):
    """A sample of what tools/judge.py measures; a converter or sampler that is slightly wrong fails it."""
    exhibits = draw_all(bundle, demo_captions(8), num_inference_steps=20)
    assert accuracy(exhibits) >= 0.8, [f"{exhibit.caption}: {exhibit.verdict}" for exhibit in exhibits]


def test_engines_agree(bundle):
    """Two engines, no shared code but the reader: the same latents after two steps."""
    options = {"num_inference_steps": 2, "guidance_scale": 3.0}
    *_, fast = Pipeline.open(bundle, engine="portable").steps(PROMPT, **options)
    *_, slow = Pipeline.open(bundle, engine="reference").steps(PROMPT, **options)
    assert psnr(slow.latent, fast.latent) > 60

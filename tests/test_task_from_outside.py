"""A task in one file outside the packages: what it starts from, what it may be asked, and nothing else.

It starts from the noise of the next seed; so the plain task with that seed is its oracle.
"""

from __future__ import annotations

import numpy as np
import pytest
from sd_runtime import Pipeline, Request, SettingsError, draw_noise
from sd_runtime.tasks import TASKS, Begun, Given, Task
from sd_schedulers import FromNoise

PROMPT = "a red circle on a white background"


def begin(given: Given) -> Begun:
    return Begun(FromNoise(draw_noise(given.model.latent_shape, given.settings.seed + 1)))


NEXT_SEED = Task(name="next-seed", models=frozenset(("text-to-image",)), begin=begin)


@pytest.fixture(scope="module")
def pipeline(bundle) -> Pipeline:
    return Pipeline.open(bundle, tasks=[*TASKS, NEXT_SEED])


def test_it_draws_when_it_is_named(pipeline: Pipeline) -> None:
    request = Request(PROMPT, seed=7, num_inference_steps=2)
    drawn, expected, plain = (
        pipeline.generate(request, **options)[0] for options in ({"task": "next-seed"}, {"seed": 8}, {})
    )
    assert drawn.settings.mode == "next-seed"
    assert plain.settings.mode == expected.settings.mode == "text-to-image"
    np.testing.assert_array_equal(np.asarray(drawn.image), np.asarray(expected.image))
    assert drawn.image != plain.image


def test_what_it_does_not_look_at_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(SettingsError, match="an image to start from for strength"):
        pipeline.settings(PROMPT, task="next-seed", strength=0.5)
    with pytest.raises(SettingsError, match=r"a task of text-to-image, .*, next-seed for .* got 'tripled'"):
        pipeline.settings(PROMPT, task="tripled")

"""One pipeline in many threads: what each of them draws, one alone draws."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sd_runtime import Bundle, FunctionModel, Pipeline, PromptTruncatedWarning
from sd_runtime.model import LoadedModel
from sd_runtime.user_image import read_image

THREADS = 12
#: More prompts than a pipeline remembers, so that texts come and go.
JOBS = [(prompt, seed) for prompt in "abcdefg" for seed in (1, 2)]


@pytest.fixture(autouse=True)
def hasty() -> Iterator[None]:
    """Threads change places much more often than they do otherwise."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(work: Callable[[Any], Any], jobs: list[Any]) -> list[Any]:
    """``work`` of every job, in order, from threads that all begin at once."""
    barrier = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS, initializer=barrier.wait) as pool:
        return list(pool.map(work, jobs))


def drawn(pipeline: Pipeline, job: tuple[str, int]) -> bytes:
    prompt, seed = job
    (picture,) = pipeline.generate(prompt, negative_prompt="z", seed=seed, num_inference_steps=2)
    assert (picture.settings.prompt, picture.settings.seed) == job
    return np.asarray(picture.image).tobytes()


@pytest.fixture
def expected(toy_pipeline: Callable[..., Pipeline]) -> dict[tuple[str, int], bytes]:
    alone = toy_pipeline()
    found = {job: drawn(alone, job) for job in JOBS}
    assert len(set(found.values())) == len(JOBS)
    return found


@pytest.mark.parametrize("reduce_memory", [False, True])
def test_same_pictures_as_alone(
    toy_pipeline: Callable[..., Pipeline], expected: dict[tuple[str, int], bytes], reduce_memory: bool
) -> None:
    pipeline = toy_pipeline()
    pipeline.reduce_memory = reduce_memory
    for job, got in zip(JOBS * 3, in_threads(lambda job: drawn(pipeline, job), JOBS * 3), strict=True):
        assert got == expected[job]


def test_release_while_others_draw(
    toy_pipeline: Callable[..., Pipeline], expected: dict[tuple[str, int], bytes]
) -> None:
    pipeline, done = toy_pipeline(), threading.Event()

    def release_all_the_time() -> None:
        while not done.is_set():
            pipeline.release()
            pipeline.release("denoiser", "text_encoder")

    releasing = [threading.Thread(target=release_all_the_time) for _ in range(2)]
    for each in releasing:
        each.start()
    try:
        results = in_threads(lambda job: drawn(pipeline, job), JOBS)
    finally:
        done.set()
        for each in releasing:
            each.join()
    assert results == [expected[job] for job in JOBS]


def test_steps_of_several_pictures_side_by_side(toy_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = toy_pipeline()

    def last(seed: int) -> bytes:
        *_, step = pipeline.steps("a", seed=seed, num_inference_steps=4)
        return step.latent.tobytes()

    expected = [last(seed) for seed in range(24)]
    assert in_threads(last, list(range(24))) == expected


class Crowded:
    """Networks that take their time to load, and that notice who else runs."""

    def __init__(self, networks: Any) -> None:
        self.networks, self.most, self._inside = networks, 0, 0

    def open(self, component: Any) -> FunctionModel:
        time.sleep(0.01)
        model = self.networks.open(component)

        def call(**inputs: Any) -> Any:
            self._inside += 1
            self.most = max(self.most, self._inside)
            time.sleep(0.001)
            self._inside -= 1
            return model.predict(inputs)

        return FunctionModel(call) if component.name == "unet" else model


def test_a_network_loads_once_and_runs_once_at_a_time(
    toy_bundle: Callable[..., Bundle], toy_networks: Any
) -> None:
    crowded = Crowded(toy_networks)
    pipeline = Pipeline(toy_bundle(), crowded.open)
    in_threads(lambda job: drawn(pipeline, job), JOBS)
    assert sorted(toy_networks.opened) == ["text_encoder", "unet", "vae_decoder"]
    assert crowded.most == 1


def test_a_model_may_call_itself(toy_bundle: Callable[..., Bundle]) -> None:
    component = toy_bundle().only("image_decoder")
    inner: list[LoadedModel] = []

    def call(z: Any) -> Any:
        if z.any():
            return {"image": inner[0].predict("image", z=np.zeros_like(z)) + 1}
        return {"image": np.zeros((1, 3, 64, 64), np.float32)}

    inner.append(LoadedModel(component, FunctionModel(call)))
    assert inner[0].predict("image", z=np.ones((1, 4, 8, 8), np.float32)).max() == 1


def test_reading_pictures_leaves_the_filters_of_warnings(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 30), "red").save(path)
    before = list(warnings.filters)
    assert set(in_threads(lambda _: read_image(path).size, list(range(300)))) == {(40, 30)}
    assert warnings.filters == before


def test_a_long_prompt_warns_every_thread(toy_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = toy_pipeline()
    with pytest.warns(PromptTruncatedWarning) as caught:
        in_threads(lambda _: drawn(pipeline, ("a " * 100, 1)), list(range(THREADS)))
    assert len(caught) == THREADS

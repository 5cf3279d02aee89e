"""The demo bundle in the portable engine: shared by threads, and replaced under an open pipeline."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("sd_mil.engines.openvino.library", exc_type=ImportError)

from sd_runtime import IntegrityError, Pipeline

JOBS = [(prompt, seed) for prompt in ("a red circle", "a blue square", "a green star") for seed in (1, 2)]


def drawn(pipeline, job):
    (picture,) = pipeline.generate(job[0], seed=job[1], num_inference_steps=2)
    return np.asarray(picture.image).tobytes()


def test_what_one_thread_draws_eight_draw(bundle):
    pipeline = Pipeline.open(bundle)
    expected = [drawn(pipeline, job) for job in JOBS]
    assert len(set(expected)) == len(JOBS)
    pipeline.release()  # so that the threads load the networks, too
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda job: drawn(pipeline, job), JOBS * 4)) == expected * 4


def test_a_decoder_of_another_bundle_is_not_loaded(bundle, tmp_path):
    opened, other = tmp_path / "bundle", tmp_path / "other"
    shutil.copytree(bundle, opened)
    shutil.copytree(bundle, other)
    pipeline = Pipeline.open(opened)
    options = {"seed": 1, "num_inference_steps": 1}
    settings = pipeline.settings("a red circle", **options)
    *_, last = pipeline.steps("a red circle", **options)
    opened.rename(tmp_path / "aside")
    other.rename(opened)
    with pytest.raises(IntegrityError, match="the bundle was replaced; open it again"):
        pipeline.finish(last.latent, settings)

"""A bundle that is replaced or written to while it is open: an error, and never a picture of two models."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sd_runtime import Bundle, BundleComponent, IntegrityError, Model, Pipeline

Write = Callable[..., Bundle]


def copied(bundle: Path, to: Path) -> Path:
    """The same bundle as another folder, made later."""
    shutil.copytree(bundle, to, copy_function=shutil.copyfile)
    return to


def swap(bundle: Path) -> None:
    """What ``sdc convert --overwrite`` does."""
    other = copied(bundle, bundle.with_name("other"))
    bundle.rename(bundle.with_name("aside"))
    other.rename(bundle)


@pytest.fixture
def pipeline(toy_bundle: Write, toy_networks: Any) -> Pipeline:
    """Its networks are functions that are opened as packages are: from a path that the bundle gives."""
    bundle = toy_bundle()

    def open_from_path(component: BundleComponent) -> Model:
        assert bundle.package(component).is_dir()
        return toy_networks.open(component)

    return Pipeline(bundle, open_from_path)


OPTIONS: dict[str, Any] = {"seed": 1, "num_inference_steps": 2}


def test_a_network_that_would_load_later(pipeline: Pipeline) -> None:
    (expected,) = pipeline.generate("a", **OPTIONS)
    pipeline.release()
    settings = pipeline.settings("a", **OPTIONS)
    *_, last = pipeline.steps("a", **OPTIONS)
    swap(pipeline.bundle.path)
    with pytest.raises(IntegrityError, match="the bundle was replaced; open it again"):
        pipeline.finish(last.latent, settings)
    shutil.rmtree(pipeline.bundle.path)
    pipeline.bundle.path.with_name("aside").rename(pipeline.bundle.path)  # the very files are back
    assert pipeline.finish(last.latent, settings) == expected


def test_the_next_picture(pipeline: Pipeline) -> None:
    pipeline.generate("a", **OPTIONS)
    swap(pipeline.bundle.path)
    with pytest.raises(IntegrityError, match="another one"):
        pipeline.generate("a", **OPTIONS)


def test_a_bundle_that_is_gone(pipeline: Pipeline) -> None:
    shutil.rmtree(pipeline.bundle.path)
    with pytest.raises(IntegrityError, match=r"manifest\.json: .* got none"):
        pipeline.generate("a", **OPTIONS)


def test_a_tokenizer_of_another_bundle(pipeline: Pipeline) -> None:
    path = pipeline.bundle.path / "tokenizer/vocab.json"
    path.write_bytes(path.read_bytes().replace(b'"a": 0, "b": 1', b'"b": 0, "a": 1'))
    os.utime(path, ns=(1, 1))
    with pytest.raises(IntegrityError, match=r"tokenizer/vocab\.json"):
        pipeline.generate("a", **OPTIONS)

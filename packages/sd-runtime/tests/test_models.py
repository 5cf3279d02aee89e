"""What is in memory when, observed from outside: by which networks are alive when another one is opened."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sd_runtime import Bundle, BundleComponent, FunctionModel, Pipeline

PICTURE = Image.new("RGB", (64, 64), (10, 200, 90))
FEW: dict[str, Any] = {"num_inference_steps": 2}


class Network:
    """A model that can be watched."""

    def __init__(self, model: FunctionModel) -> None:
        self.model = model

    def predict(self, inputs: Mapping[str, Any], /) -> Mapping[str, Any]:
        return self.model.predict(inputs)


class Watched:
    """Opens the toy networks and notes which of those opened before are still alive."""

    def __init__(self, open_model: Callable[[BundleComponent], FunctionModel]) -> None:
        self.open_model = open_model
        self.opened: list[tuple[str, weakref.ref[Network]]] = []
        self.alive: list[tuple[str, list[str]]] = []

    def open(self, component: BundleComponent) -> Network:
        found = [name for name, network in self.opened if network() is not None]
        self.alive.append((component.name, found))
        network = Network(self.open_model(component))
        self.opened.append((component.name, weakref.ref(network)))
        return network


@pytest.fixture(autouse=True)
def _without_the_collector() -> Any:
    """A network must go when its last user goes, not when the collector comes by."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def watched(toy_networks: Any) -> Watched:
    return Watched(toy_networks.open)


def test_text_to_image(toy_bundle: Callable[..., Bundle], watched: Watched) -> None:
    frugal = Pipeline(toy_bundle(), watched.open, reduce_memory=True)
    frugal.generate("a", **FEW)
    assert watched.alive == [("text_encoder", []), ("unet", []), ("vae_decoder", [])]


def test_the_image_encoder_goes_before_the_denoiser_loads(
    toy_bundle: Callable[..., Bundle], watched: Watched
) -> None:
    pipeline = Pipeline(toy_bundle(encoder=True), watched.open, reduce_memory=True)
    pipeline.generate("a", image=PICTURE, **FEW)
    # Those that are small may wait side by side; the denoiser is alone.
    assert dict(watched.alive)["unet"] == []
    assert [name for name, _ in watched.alive] == ["text_encoder", "vae_encoder", "unet", "vae_decoder"]


def test_with_memory_to_spare_all_stay(toy_bundle: Callable[..., Bundle], watched: Watched) -> None:
    pipeline = Pipeline(toy_bundle(encoder=True), watched.open)
    pipeline.generate("a", image=PICTURE, **FEW)
    assert dict(watched.alive)["unet"] == ["text_encoder", "vae_encoder"]
    assert pipeline.models.loaded == ("text_encoder", "vae_encoder", "unet", "vae_decoder")


def test_a_picture_half_done_keeps_its_denoiser_and_no_more(
    toy_bundle: Callable[..., Bundle], watched: Watched
) -> None:
    pipeline = Pipeline(toy_bundle(encoder=True), watched.open)
    steps = pipeline.steps("a", image=PICTURE, num_inference_steps=4)
    next(steps)
    pipeline.release()
    assert [name for name, network in watched.opened if network() is not None] == ["unet"]
    assert np.isfinite(next(steps).latent).all()
    del steps
    assert not any(network() for _, network in watched.opened)


def test_the_refiners_networks_come_after_the_bases_denoiser(
    toy_bundle: Callable[..., Bundle], watched: Watched
) -> None:
    base, refiner = (Pipeline(toy_bundle(), watched.open, reduce_memory=True) for _ in range(2))
    base.generate("a", refiner=refiner, refiner_start=0.5, num_inference_steps=4)
    assert [name for name, _ in watched.alive] == [
        "text_encoder",
        "unet",
        "text_encoder",
        "unet",
        "vae_decoder",
    ]
    assert [found for name, found in watched.alive if name == "unet"] == [[], []]

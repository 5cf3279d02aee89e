"""A denoiser in chunks draws what it draws in one piece; of several picture sizes one is chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sd_runtime import (
    Bundle,
    BundleComponent,
    Chunk,
    FunctionModel,
    ImageSize,
    LatentSize,
    MissingComponentError,
    Model,
    PictureSize,
    Pipeline,
    PortSpec,
    Variant,
)
from sd_runtime.model import ChunkedModel

OPTIONS: dict[str, Any] = {"seed": 3, "num_inference_steps": 3, "negative_prompt": "b"}


def in_chunks(whole: BundleComponent) -> BundleComponent:
    """The toy denoiser in two: the first turns the text into ``said``, the second does the rest."""
    sample, timestep, text = whole.inputs
    said = PortSpec("said", (sample.shape[0], 4, 1, 1), "float32")
    package = whole.package
    first = Chunk(package, "first", (text,), (said,))
    second = Chunk(
        package, "second", (sample, timestep, dataclasses.replace(said, dtype="float16")), whole.outputs
    )
    return dataclasses.replace(whole, variants=(Variant(whole.variant.size, (first, second)),))


def with_components(bundle: Bundle, *components: BundleComponent, **facts: Any) -> Bundle:
    """``bundle`` with these in place of those of the same names, and other facts of the model."""
    new = {component.name: component for component in components}
    manifest = bundle.manifest
    members = tuple(new.get(component.name, component) for component in manifest.components)
    model = dataclasses.replace(manifest.model, **facts)
    return dataclasses.replace(
        bundle, manifest=dataclasses.replace(manifest, model=model, components=members)
    )


def test_chunks_draw_what_the_whole_draws(toy_bundle: Callable[..., Bundle], toy_networks: Any) -> None:
    bundle, calls = toy_bundle(), []

    def first(encoder_hidden_states: Any) -> dict[str, Any]:
        calls.append("first")
        said = encoder_hidden_states.astype(np.float64) @ np.linspace(-1, 1, 77)
        return {"said": np.tanh(said)[:, :4, :, None].astype(np.float32)}

    def second(sample: Any, timestep: Any, said: Any) -> dict[str, Any]:
        calls.append("second")
        assert said.dtype == np.float16  # as its port has it, whatever the first returned
        time = timestep.astype(np.float64)[:, None, None, None] / 5000
        return {"noise_pred": (0.7 * sample.astype(np.float64) + 0.3 * said + time).astype(np.float32)}

    def open_model(component: BundleComponent) -> Model:
        if component.role != "denoiser":
            return toy_networks.open(component)
        return ChunkedModel(component.variant, (FunctionModel(first), FunctionModel(second)))

    (whole,) = Pipeline(bundle, toy_networks.open).generate("a", **OPTIONS)
    chunked = with_components(bundle, in_chunks(bundle.only("denoiser")))
    (drawn,) = Pipeline(chunked, open_model).generate("a", **OPTIONS)
    difference = np.abs(np.asarray(drawn.image, int) - np.asarray(whole.image, int))
    assert difference.max() <= 1  # ``said`` passes through float16
    assert calls == ["first", "second"] * 3


@pytest.fixture
def two_sizes(toy_bundle: Callable[..., Bundle]) -> Bundle:
    """The toy model, also for pictures of 32 by 96."""
    bundle = toy_bundle()
    more = ImageSize(32, 96)
    sizes = (*bundle.manifest.model.sizes, PictureSize(more, LatentSize(4, 4, 12)))

    def resized(port: PortSpec) -> PortSpec:
        shapes = {(8, 8): (4, 12), (64, 64): (32, 96)}
        return dataclasses.replace(
            port, shape=(*port.shape[:-2], *shapes.get(port.shape[-2:], port.shape[-2:]))
        )

    def in_both(component: BundleComponent) -> BundleComponent:
        chunk = component.chunk
        other = dataclasses.replace(
            chunk, inputs=tuple(map(resized, chunk.inputs)), outputs=tuple(map(resized, chunk.outputs))
        )
        return dataclasses.replace(component, variants=(*component.variants, Variant(more, (other,))))

    members = (in_both(bundle.only("denoiser")), in_both(bundle.only("image_decoder")))
    return with_components(bundle, *members, sizes=sizes)


def test_the_first_size_is_drawn(two_sizes: Bundle, toy_bundle: Any, toy_networks: Any) -> None:
    (drawn,) = Pipeline(two_sizes, toy_networks.open).generate("a", **OPTIONS)
    (alone,) = Pipeline(toy_bundle(), toy_networks.open).generate("a", **OPTIONS)
    assert drawn == alone


def test_another_size_is_drawn(two_sizes: Bundle, toy_networks: Any) -> None:
    pipeline = Pipeline(two_sizes.at_size(ImageSize(32, 96)), toy_networks.open)
    (drawn,) = pipeline.generate("a", **OPTIONS)
    assert drawn.image.size == (96, 32)
    assert (drawn.settings.width, drawn.settings.height) == (96, 32)


def test_a_size_that_the_bundle_lacks(two_sizes: Bundle) -> None:
    with pytest.raises(MissingComponentError, match=r"\(64x64, 96x32\), got 32x32"):
        two_sizes.at_size(ImageSize(32, 32))


def test_open_asks_the_bundle_for_the_size(toy_bundle: Callable[..., Bundle]) -> None:
    path = toy_bundle().path
    assert Pipeline.open(path, size=ImageSize(64, 64), engine="portable").settings("a").width == 64
    with pytest.raises(MissingComponentError, match="got 32x32"):
        Pipeline.open(path, size=ImageSize(32, 32), engine="portable")


def test_a_distilled_denoiser_takes_few_steps(toy_bundle: Callable[..., Bundle], toy_networks: Any) -> None:
    bundle = toy_bundle()
    assert Pipeline(bundle, toy_networks.open).settings("a").num_inference_steps == 20
    denoiser = dataclasses.replace(bundle.manifest.model.denoiser, distillation="lcm")
    distilled = Pipeline(with_components(bundle, denoiser=denoiser), toy_networks.open)
    assert distilled.settings("a", scheduler="euler").num_inference_steps == 4
    assert distilled.settings("a", num_inference_steps=7).num_inference_steps == 7

"""What may steer a denoiser, step by step: residuals for a UNet that takes them, against the sum by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from sd_runtime import (
    Bundle,
    Evaluation,
    FunctionModel,
    Pipeline,
    PortsError,
    PortSpec,
    Variant,
    zero_residuals,
)

OPTIONS: dict[str, Any] = {"seed": 3, "num_inference_steps": 3, "guidance_scale": 2.0, "negative_prompt": "b"}


@pytest.fixture
def controlled(toy_bundle: Callable[..., Bundle], toy_networks: Any) -> Callable[..., Pipeline]:
    """The toy denoiser with a port for residuals, which it adds to its prediction."""

    def build(batch: int = 2) -> Pipeline:
        sound = toy_bundle(batch=batch, scheduler={"clip_sample": False})
        unet = sound.only("denoiser")
        residual = PortSpec("additional_residual_0", (batch, 4, 8, 8), "float16")
        chunk = dataclasses.replace(unet.chunk, inputs=(*unet.inputs, residual))
        taking = dataclasses.replace(unet, variants=(Variant(unet.variant.size, (chunk,)),))
        components = tuple(taking if each == unet else each for each in sound.manifest.components)
        bundle = dataclasses.replace(
            sound, manifest=dataclasses.replace(sound.manifest, components=components)
        )

        def open_model(component: Any) -> FunctionModel:
            if component.role != "denoiser":
                return toy_networks.open(component)

            def call(additional_residual_0: Any, **inputs: Any) -> Mapping[str, Any]:
                assert additional_residual_0.shape == (batch, 4, 8, 8)
                plain = toy_networks.unet(*(inputs[port.name].astype(np.float64) for port in unet.inputs))
                return {"noise_pred": plain + additional_residual_0.astype(np.float32)}

            return FunctionModel(call)

        return Pipeline(bundle, open_model)

    return build


def latent(pipeline: Pipeline, **options: Any) -> Any:
    *_, last = pipeline.steps("a", **OPTIONS, **options)
    return last.latent


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_zeros_where_nobody_steers(controlled: Any, toy_pipeline: Any, batch: int) -> None:
    plain = toy_pipeline(batch=batch, scheduler={"clip_sample": False})
    np.testing.assert_array_equal(latent(controlled(batch)), latent(plain))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_residuals_of_every_row_and_step(controlled: Any, batch: int) -> None:
    seen = []

    def steer(evaluation: Evaluation) -> Mapping[str, Any]:
        inputs = evaluation.inputs
        seen.append((evaluation.index, evaluation.total, float(inputs["timestep"][0])))
        assert evaluation.is_negative == (True, False)
        assert inputs["sample"].shape == (2, 4, 8, 8)
        assert inputs["encoder_hidden_states"].shape[0] == 2
        # The row that guidance leads away from gets 1, the other one 3.
        return {"additional_residual_0": np.ones((2, 4, 8, 8), np.float32) * [[[[1]]], [[[3]]]]}

    pipeline = controlled(batch)
    first = next(pipeline.steps("a", **OPTIONS))
    steered = next(pipeline.steps("a", **OPTIONS, steer=steer))
    # DDIM's first step is linear in the prediction, to which guidance adds 1 + 2 (3 - 1).
    alphas = np.cumprod(1 - np.linspace(0.0001**0.5, 0.02**0.5, 1000) ** 2)
    here, there = alphas[int(first.timestep)], alphas[int(first.timestep) - 333]
    slope = (1 - there) ** 0.5 - (there / here) ** 0.5 * (1 - here) ** 0.5
    np.testing.assert_allclose(steered.latent - first.latent, np.full((1, 4, 8, 8), 5 * slope), rtol=0.01)
    latent(pipeline, steer=steer)
    assert seen[1:] == [(0, 3, 667.0), (1, 3, 334.0), (2, 3, 1.0)]


def test_an_input_that_the_denoiser_lacks(toy_pipeline: Any) -> None:
    with pytest.raises(PortsError, match=r"'additional_residual_7'.* got only sample"):
        latent(toy_pipeline(), steer=lambda _: {"additional_residual_7": np.zeros((2, 1), np.float32)})


def test_zero_residuals_are_made_for_residual_ports_only() -> None:
    ports = [
        PortSpec("sample", (2, 4, 8, 8), "float16"),
        PortSpec("additional_residual_0", (1, 3), "float16"),
    ]
    ((name, zeros),) = zero_residuals(ports).items()
    assert (name, zeros.shape, zeros.dtype) == ("additional_residual_0", (1, 3), np.float16)

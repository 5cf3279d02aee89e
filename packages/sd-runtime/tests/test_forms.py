"""A denoiser in several forms: a picture is drawn with the one that it needs, and comes out the same."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from sd_bundle import Form
from sd_runtime import (
    Bundle,
    BundleComponent,
    Evaluation,
    FunctionModel,
    Model,
    Pipeline,
    PortSpec,
    PromptTruncatedWarning,
    SettingsError,
    Variant,
)
from sd_runtime.forms import form_for

OPTIONS: dict[str, Any] = {"seed": 3, "num_inference_steps": 2, "negative_prompt": "b"}
CONTROL = ("controlnet",)
FORMS = (Form(2, 77), Form(1, 77), Form(2, 77, CONTROL), Form(2, 154))
RESIDUAL = "additional_residual_0"


class Forms:
    """The toy pipeline with a denoiser in these forms, and in which ones it was opened and run."""

    def __init__(self, bundle: Bundle, networks: Any, forms: tuple[Form, ...]) -> None:
        self.networks, self.opened, self.run = networks, list[Form](), list[Form]()
        unet = bundle.only("denoiser")
        variants = tuple(self.variant(unet, number, form) for number, form in enumerate(forms))
        taking = dataclasses.replace(unet, variants=variants)
        components = tuple(taking if each == unet else each for each in bundle.manifest.components)
        manifest = dataclasses.replace(bundle.manifest, components=components)
        self.pipeline = Pipeline(dataclasses.replace(bundle, manifest=manifest), self.open)

    @staticmethod
    def variant(unet: BundleComponent, number: int, form: Form) -> Variant:
        assert form.batch is not None
        inputs = [dataclasses.replace(each, shape=(form.batch, *each.shape[1:])) for each in unet.inputs]
        inputs[2] = dataclasses.replace(inputs[2], shape=(*inputs[2].shape[:3], form.tokens or 0))
        if form.takes:
            inputs.append(PortSpec(RESIDUAL, (form.batch, 4, 8, 8), "float16"))
        (output,) = unet.outputs
        outputs = (dataclasses.replace(output, shape=(form.batch, *output.shape[1:])),)
        chunk = dataclasses.replace(unet.chunk, function=str(number), inputs=tuple(inputs), outputs=outputs)
        return Variant(unet.variants[0].size, (chunk,))

    def open(self, component: BundleComponent) -> Model:
        if component.role != "denoiser":
            opened: Model = self.networks.open(component)
            return opened
        form = component.variant.form
        self.opened.append(form)

        def call(**inputs: Any) -> Mapping[str, Any]:
            self.run.append(form)
            for port in component.inputs:
                assert inputs[port.name].shape == port.shape
            first, *rest = (inputs[name] for name in ("sample", "timestep"))
            text = inputs["encoder_hidden_states"][..., :77]
            plain = self.networks.unet(first.astype(np.float64), rest[0].astype(np.float64), text)
            return {"noise_pred": plain + inputs.get(RESIDUAL, np.float32(0))}

        return FunctionModel(call)

    def latent(self, prompt: str = "a", **options: Any) -> Any:
        *_, last = self.pipeline.steps(prompt, **{**OPTIONS, **options})
        return last.latent


@pytest.fixture
def forms(toy_bundle: Callable[..., Bundle], toy_networks: Any) -> Callable[..., Forms]:
    def build(*forms: Form) -> Forms:
        return Forms(toy_bundle(scheduler={"clip_sample": False}), toy_networks, forms)

    return build


class Steer:
    """Ones for the residuals; says what it runs."""

    takes = CONTROL

    def __call__(self, evaluation: Evaluation) -> Mapping[str, Any]:
        return {RESIDUAL: np.ones_like(evaluation.inputs["sample"])}


LONG = "a " * 100


@pytest.mark.parametrize(
    ("prompt", "options", "expected"),
    [
        ("a", {}, FORMS[0]),
        ("a", {"guidance_scale": 1.0}, FORMS[1]),
        ("a", {"guidance_method": "perp_neg"}, FORMS[1]),  # three rows: three calls of one, not two of two
        ("a", {"steer": Steer()}, FORMS[2]),
        (LONG, {}, FORMS[3]),
        ("a", {"negative_prompt": LONG}, FORMS[3]),
        ("a", {"negative_prompt": LONG, "guidance_scale": 1.0}, FORMS[1]),  # plays no part
    ],
)
def test_the_form_that_a_picture_needs(
    forms: Callable[..., Forms], prompt: str, options: dict[str, Any], expected: Form
) -> None:
    several, alone = forms(*FORMS), forms(expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PromptTruncatedWarning)
        np.testing.assert_array_equal(several.latent(prompt, **options), alone.latent(prompt, **options))
    assert several.opened == [expected]
    assert set(several.run) == {expected}


def test_one_form_is_kept_and_what_else_is_loaded_is_shared(forms: Callable[..., Forms]) -> None:
    several = forms(*FORMS)
    first = several.latent()
    several.latent(guidance_scale=1.0)
    np.testing.assert_array_equal(several.latent(), first)
    assert several.opened == [FORMS[0], FORMS[1], FORMS[0]]
    assert several.networks.opened.count("text_encoder") == 1
    assert sorted(several.pipeline.models.loaded) == ["text_encoder", "unet"]


def test_a_prompt_too_long_for_all_is_cut_for_the_longest(forms: Callable[..., Forms]) -> None:
    several = forms(*FORMS)
    with pytest.warns(PromptTruncatedWarning, match="than the 154 tokens"):
        several.latent("a " * 200)
    assert several.opened == [FORMS[3]]


def test_none_takes_what_steers(forms: Callable[..., Forms]) -> None:
    several = forms(FORMS[0], FORMS[1])
    with pytest.raises(
        SettingsError, match="what controlnet gives, got only: batch 2, 77 tokens; batch 1, 77 tokens"
    ):
        several.latent(steer=Steer())
    assert not several.opened


def test_a_steer_that_does_not_say_gets_all_inputs() -> None:
    assert form_for(FORMS, takes=None, rows=2, fits=lambda _: True) == FORMS[2]
    assert form_for(FORMS, takes=(), rows=2, fits=lambda _: True) == FORMS[0]
    controlled_alone = (Form(2, 77, CONTROL), Form(1, 154, CONTROL))
    assert form_for(controlled_alone, takes=(), rows=2, fits=lambda _: False) == controlled_alone[1]

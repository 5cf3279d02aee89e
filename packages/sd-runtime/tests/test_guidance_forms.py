"""Ways to join predictions, against diffusers' own functions; and where in the steps they are joined."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sd_bundle import PortSpec
from sd_runtime import BundleComponent, FunctionModel, LoadedModel
from sd_runtime.conditioning.conditions import Conditions
from sd_runtime.conditioning.guidance import (
    adaptive_projected,
    classifier_free,
    optimally_scaled,
    perpendicular_negative,
    rescaled,
)
from sd_runtime.denoiser import guided_denoiser, predict_rows
from sd_runtime.errors import SettingsError
from sd_runtime.noise import draw_noise
from sd_runtime.request import Request

SCALE = 7.5


@pytest.fixture
def predictions() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 2, 4, 8, 8)).astype(np.float32)


def in_torch() -> Any:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("diffusers")
    return torch


def test_rescaled_is_that_of_diffusers(predictions: np.ndarray) -> None:
    torch = in_torch()
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    rows = predictions[0]
    plain = classifier_free(SCALE)
    expected = rescale_noise_cfg(torch.tensor(plain(rows)), torch.tensor(rows[1:]), guidance_rescale=0.7)
    np.testing.assert_allclose(rescaled(plain, 0.7)(rows), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_perpendicular_negative_is_that_of_its_paper(predictions: np.ndarray) -> None:
    """ComfyUI's ``perp_neg``, word for word, on [empty, negative, positive]."""
    torch = in_torch()
    rows = predictions[:, 0]
    nocond, negative, positive = (torch.tensor(row[None]) for row in rows)
    pos, neg = positive - nocond, negative - nocond
    perp = neg - ((torch.mul(neg, pos).sum()) / (torch.norm(pos) ** 2)) * pos
    expected = nocond + SCALE * (pos - perp * 1.0)
    np.testing.assert_allclose(perpendicular_negative(SCALE)(rows), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_a_negative_along_the_prompt_takes_nothing_away(predictions: np.ndarray) -> None:
    empty, _, positive = predictions[:, 0]
    rows = np.stack([empty, empty + 0.6 * (positive - empty), positive])
    plain = classifier_free(SCALE)(np.stack([empty, positive]))
    np.testing.assert_allclose(perpendicular_negative(SCALE)(rows), plain, atol=1e-4)
    same = perpendicular_negative(SCALE)(np.stack([empty, empty, empty]))
    np.testing.assert_allclose(same[0], empty, atol=1e-6)


def test_three_rows_are_predicted(toy_pipeline: Any, toy_networks: Any) -> None:
    """With no negative prompt it is classifier-free guidance; the empty prompt is a row of its own."""
    pipeline = toy_pipeline(batch=1)
    few = {"num_inference_steps": 2, "guidance_scale": 4.0}
    (perp,), (plain,) = (pipeline.generate("a", guidance_method=name, **few) for name in ("perp_neg", "cfg"))
    assert np.abs(np.asarray(perp.image, int) - np.asarray(plain.image, int)).max() <= 1
    assert len(toy_networks.calls["unet"]) == 2 * (3 + 2)
    (other,) = pipeline.generate("a", negative_prompt="b", guidance_method="perp_neg", **few)
    assert other.image != perp.image


def test_adaptive_projected_is_that_of_diffusers(predictions: np.ndarray) -> None:
    torch = in_torch()
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

    guide, buffer = adaptive_projected(SCALE, momentum=-0.5, threshold=7.5, eta=0.2), MomentumBuffer(-0.5)
    for rows in predictions:  # of steps: the momentum is carried over
        negative, positive = (torch.tensor(row[None]) for row in rows)
        expected = normalized_guidance(
            positive, negative, SCALE - 1, buffer, 0.2, 7.5, use_original_formulation=True
        )
        np.testing.assert_allclose(guide(rows), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_optimally_scaled_is_that_of_diffusers(predictions: np.ndarray) -> None:
    torch = in_torch()
    from diffusers.guiders.classifier_free_zero_star_guidance import cfg_zero_star_scale

    negative, positive = (torch.tensor(row[None]) for row in predictions[0])
    scaled = negative * cfg_zero_star_scale(positive.flatten(1), negative.flatten(1)).view(-1, 1, 1, 1)
    expected = scaled + SCALE * (positive - scaled)
    np.testing.assert_allclose(
        optimally_scaled(SCALE)(predictions[0]), expected.numpy(), rtol=1e-4, atol=1e-5
    )


class Unet:
    """Predicts a row's own number, and counts its rows."""

    class component:  # noqa: N801 - as LoadedModel's attribute
        inputs = ()

    def __init__(self) -> None:
        self.rows: list[int] = []

    def input(self, _: str) -> Any:
        return np.zeros((1, 1))

    def predict_all(self, outputs: list[str], **rows: np.ndarray) -> dict[str, np.ndarray]:
        self.rows.append(len(rows["sample"]))
        return {outputs[0]: rows["encoder_hidden_states"].reshape(-1, 1, 1, 1)}


def test_outside_the_span_the_positive_row_alone_is_predicted() -> None:
    unet: Any = Unet()
    texts = np.array([[1.0], [3.0]], np.float32)
    given = Conditions({"encoder_hidden_states": texts}, None, classifier_free(2.0), (True, False))
    denoise = guided_denoiser(unet, given, total=5, guided=(0.2, 0.6))
    latent = np.zeros((1, 1, 1, 1), np.float32)
    found = [float(denoise(latent, 1.0).item()) for _ in range(5)]
    assert found == [3.0, 5.0, 5.0, 3.0, 3.0]
    assert len(unet.rows) == 7


@pytest.mark.parametrize(
    "options",
    [
        {"guidance_method": "none"},
        {"guidance_rescale": 1.5},
        {"guidance_rescale": float("nan")},
        {"guidance_start": 0.5, "guidance_end": 0.5},
        {"guidance_end": 0.0},
    ],
)
def test_values_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="guidance"):
        Request("a cat", **options)


def test_noise_of_a_cuda_device() -> None:
    """``torch.manual_seed(0); torch.randn(3, 4, device="cuda")``, as torch prints it; then the next draw."""
    expected = [
        [-0.9247, -0.4253, -2.6438, 0.1452],
        [-0.1209, -0.5797, -0.6229, -0.3284],
        [-1.0745, -0.3631, -1.6711, 2.2655],
    ]
    np.testing.assert_allclose(draw_noise((3, 4), 0, "torch_cuda"), expected, atol=6e-5)
    many = draw_noise((100_000,), 2**40 + 3, "torch_cuda")
    assert abs(many.mean()) < 0.01
    assert abs(many.std() - 1) < 0.01
    assert not np.array_equal(many[:100], draw_noise((100,), 3, "torch_cuda"))


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_any_number_of_rows_in_calls_of_any_size(batch: int, count: int) -> None:
    asked: list[tuple[int, ...]] = []

    def call(sample: Any, bias: Any) -> dict[str, Any]:
        asked.append(tuple(sample[:, 0].astype(int)))
        return {"noise_pred": sample * 2 + bias}

    component = BundleComponent.of_package(
        "unet.mlpackage",
        name="safety_checker",  # the role that needs no size
        role="safety_checker",
        size=None,
        inputs=[PortSpec("sample", (batch, 1), "float32"), PortSpec("bias", (1,), "float32")],
        outputs=[PortSpec("noise_pred", (batch, 1), "float32")],
        attention_implementation=None,
        compute_unit="CPU_ONLY",
        deployment_target="macOS13",
    )
    model = LoadedModel(component, FunctionModel(call))
    rows, fixed = {"sample": np.float32(range(count))[:, None]}, {"bias": np.float32([7])}
    found = predict_rows(model, ["noise_pred"], rows, fixed)["noise_pred"]
    assert np.array_equal(found, rows["sample"] * 2 + 7)
    last = count - 1
    assert asked == [
        tuple(min(row, last) for row in range(start, start + batch)) for start in range(0, count, batch)
    ]

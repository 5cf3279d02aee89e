"""Variations of a seed, and pictures that grow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sd_runtime import Bundle, Pipeline, SettingsError, draw_noise, read_settings, reused
from sd_runtime.outpainting import padded
from sd_runtime.variations import slerp

OPTIONS: Any = {"num_inference_steps": 2, "rng": "torch"}


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_slerp_is_that_of_the_web_ui(share: float) -> None:
    torch = pytest.importorskip("torch")
    noises = [draw_noise((1, 4, 8, 6), seed, "torch") for seed in (1, 2)]

    def theirs(val: float, low: Any, high: Any) -> Any:
        """modules/rng.py, on latents without a first axis."""
        low_norm = low / torch.norm(low, dim=1, keepdim=True)
        high_norm = high / torch.norm(high, dim=1, keepdim=True)
        omega = torch.acos((low_norm * high_norm).sum(1))
        so = torch.sin(omega)
        first = (torch.sin((1.0 - val) * omega) / so).unsqueeze(1) * low
        return first + (torch.sin(val * omega) / so).unsqueeze(1) * high

    expected = theirs(share, *(torch.from_numpy(noise[0]) for noise in noises)).numpy()
    np.testing.assert_allclose(slerp(*noises, share)[0], expected, atol=1e-5)
    np.testing.assert_allclose(slerp(noises[0], noises[0], share), noises[0], atol=1e-6)


def test_variations_go_from_one_seed_to_the_other(
    toy_pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    pipeline = toy_pipeline()

    def drawn(**own: Any) -> Any:
        return np.asarray(pipeline.generate("a", **OPTIONS, **own)[0].image).astype(int)

    one, two = drawn(seed=1), drawn(seed=2)
    between = drawn(seed=1, variation_seed=2, variation_strength=0.3)
    assert 0 < np.abs(between - one).mean() < np.abs(between - two).mean()
    whole = drawn(seed=1, variation_seed=2, variation_strength=1.0)
    np.testing.assert_allclose(whole, two, atol=1)

    several = pipeline.generate(
        "a", image_count=2, seed=1, variation_seed=5, variation_strength=0.1, **OPTIONS
    )
    assert [(each.settings.seed, each.settings.variation_seed) for each in several] == [(1, 5), (1, 6)]
    several[1].save(tmp_path / "a.png")
    assert read_settings(tmp_path / "a.png").variation_seed == 6
    (again,) = pipeline.generate(**reused(tmp_path / "a.png").with_options({}))
    np.testing.assert_array_equal(np.asarray(again.image), np.asarray(several[1].image))


def test_padding_is_painted_and_the_rest_kept(toy_bundle: Callable[..., Bundle], toy_networks: Any) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (48, 32, 3), np.uint8)
    image, mask = padded(Image.fromarray(pixels), (16, 0, 16, 16))
    assert image.size == mask.size == (64, 64)
    np.testing.assert_array_equal(np.asarray(image)[:48, 16:48], pixels)
    np.testing.assert_array_equal(np.asarray(image)[60, 20], pixels[47, 4])
    assert not np.asarray(mask)[:48, 16:48].any()
    assert (np.asarray(mask) == 255).sum() == 64 * 64 - 48 * 32

    pipeline = Pipeline(toy_bundle(encoder=True), toy_networks.open)
    (grown,) = pipeline.generate("a", image=Image.fromarray(pixels), outpaint=(16, 0, 16, 16), **OPTIONS)
    (masked,) = pipeline.generate("a", image=image, mask=mask, **OPTIONS)
    np.testing.assert_array_equal(np.asarray(grown.image), np.asarray(masked.image))
    assert (grown.settings.outpaint, grown.settings.mode) == ((16, 0, 16, 16), "inpainting")
    assert masked.settings.outpaint is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variation_seed": 1}, "variation_seed and variation_strength together"),
        ({"variation_seed": -1, "variation_strength": 0.5, "rng": "numpy"}, "expected a seed from 0"),
        ({"variation_seed": 1, "variation_strength": 1.5}, "above 0 and up to 1"),
        ({"outpaint": (8, 0, 0, 0)}, "an image for outpaint"),
        ({"outpaint": (0, 0, 0, 0)}, "four whole numbers"),
        ({"outpaint": (-8, 16, 0, 0)}, "four whole numbers"),
        ({"outpaint": (8, 0, 0, 0), "mask": "a.png", "image": "b.png"}, "outpaint or a mask"),
    ],
)
def test_nonsense_is_refused(
    toy_pipeline: Callable[..., Pipeline], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        toy_pipeline().settings("a", **options)

"""Weights in prompts, as the web UI applies them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sd_runtime import Pipeline, SettingsError, read_settings
from sd_runtime.conditioning.prompt import emphasized

OPTIONS: Any = {"num_inference_steps": 2, "rng": "torch"}


def test_emphasis_is_that_of_the_web_ui() -> None:
    torch = pytest.importorskip("torch")
    z = torch.randn(1, 7, 5, generator=torch.Generator().manual_seed(0)) + 0.2
    multipliers = torch.tensor([[1.0, 1.1, 1.5, 0.3, 1.0, 1.0, 1.0]])
    # EmphasisOriginal.after_transformers
    weighted = z * multipliers.reshape((*multipliers.shape, 1)).expand(z.shape)
    expected = weighted * (z.mean() / weighted.mean())
    ours = emphasized(z.numpy(), multipliers[0].tolist())
    np.testing.assert_allclose(ours, expected.numpy(), rtol=2e-6)


def test_weights_are_opt_in_and_recorded(toy_pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    pipeline = toy_pipeline()
    plain = pipeline.prompts.encode("(a:1.5) b").states
    weighted = pipeline.prompts.encode("(a:1.5) b", "a1111").states
    alone = pipeline.prompts.encode("a b").states
    assert np.abs(plain - weighted).max() > 0.1
    ratio = weighted / alone
    np.testing.assert_allclose(ratio[:, :, :, 1] / ratio[:, :, :, 2], 1.5, rtol=1e-5)
    np.testing.assert_allclose(weighted.mean(), alone.mean(), rtol=1e-4)

    (drawn,) = pipeline.generate("(a:1.5) b", prompt_syntax="a1111", **OPTIONS)
    drawn.save(tmp_path / "a.png")
    assert read_settings(tmp_path / "a.png").prompt_syntax == "a1111"
    (same,) = pipeline.generate("(a:1.0) b", prompt_syntax="a1111", **OPTIONS)
    (other,) = pipeline.generate("a b", **OPTIONS)
    assert other.settings.prompt_syntax is None
    np.testing.assert_array_equal(np.asarray(same.image), np.asarray(other.image))
    assert (np.asarray(drawn.image) != np.asarray(other.image)).any()


def test_what_cannot_be_honoured_is_refused(toy_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = toy_pipeline()
    with pytest.raises(SettingsError, match="prompt_syntax of plain, a1111"):
        pipeline.settings("a", prompt_syntax="compel")
    with pytest.raises(SettingsError, match="BREAK before window 2"):
        pipeline.generate("a BREAK b", prompt_syntax="a1111", **OPTIONS)

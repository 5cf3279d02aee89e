"""What the denoiser is told, against diffusers and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sd_runtime.clip_vision import clip_input
from sd_runtime.conditioning.guidance import classifier_free, guidance_embedding, instructed
from sd_runtime.noise import NoiseStream


@pytest.mark.parametrize("width", [2, 7, 16, 256])
@pytest.mark.parametrize("weight", [-1.0, 0.0, 0.5, 7.5])
def test_guidance_embedding_is_that_of_diffusers(weight: float, width: int) -> None:
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    if width == 2:  # diffusers divides by zero there
        assert np.isfinite(guidance_embedding(weight, width)).all()
        return
    embed = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding
    expected = embed(None, torch.tensor([weight]), embedding_dim=width).numpy()
    np.testing.assert_allclose(guidance_embedding(weight, width), expected, atol=2e-3)


def test_guides() -> None:
    rows = np.float32([[1.0], [10.0], [100.0]])
    np.testing.assert_allclose(classifier_free(3.0)(rows[:2]), [[1 + 3 * 9]])
    text, picture, neither = rows
    expected = neither + 2.0 * (text - picture) + 1.5 * (picture - neither)
    np.testing.assert_allclose(instructed(2.0, 1.5)(rows), [expected])


@pytest.mark.parametrize("size", [(16, 16), (300, 200), (90, 400), (225, 224)])
def test_clip_input_is_that_of_the_feature_extractor(size: tuple[int, int]) -> None:
    transformers = pytest.importorskip("transformers")
    processor = getattr(transformers, "CLIPImageProcessorPil", None)
    if processor is None:
        pytest.skip("this transformers resizes otherwise")
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8))
    expected = processor()(picture, return_tensors="np").pixel_values
    np.testing.assert_allclose(clip_input(picture, 224), expected, atol=1e-5)


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 4, 8, 8), (1, 4, 8, 8), (3,), (1, 4, 8, 8)],
        [(3,), (5,), (15,), (16,), (1,), (17,), (2,)],
        [(1,), (1,), (1, 4, 5, 5), (1,)],
    ],
)
@pytest.mark.parametrize("rng", ["numpy", "torch"])
def test_a_stream_goes_on_where_it_stopped(shapes: list[tuple[int, ...]], rng: str) -> None:
    stream = NoiseStream(93, rng)  # type: ignore[arg-type]
    drawn = [stream.draw(shape) for shape in shapes]
    if rng == "numpy":
        engine = np.random.RandomState(93)
        expected = [engine.randn(*shape).astype(np.float32) for shape in shapes]
    else:
        torch = pytest.importorskip("torch")
        if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
            pytest.skip("torch's numbers are those of AVX2")
        generator = torch.Generator().manual_seed(93)
        expected = [torch.randn(shape, generator=generator).numpy() for shape in shapes]
    for ours, theirs in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)

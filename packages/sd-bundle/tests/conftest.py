"""A small sound bundle to write, read and break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sd_bundle import (
    BundleComponent,
    ConditioningFacts,
    DenoiserFacts,
    Draft,
    ImageSize,
    LatentSize,
    ModelFacts,
    PictureSize,
    PortSpec,
    Provenance,
    VaeFacts,
    new_bundle,
)

FACTS = ModelFacts(
    identifier="org/tiny",
    family="sd1",
    task="text-to-image",
    denoiser=DenoiserFacts("unet", None),
    prediction_type="epsilon",
    scheduler="scheduler/scheduler_config.json",
    sizes=(PictureSize(ImageSize(64, 64), LatentSize(4, 8, 8)),),
    vae=VaeFacts(0.18215, 0.0, "moments"),
    text_encoders=(),
    conditioning=ConditioningFacts("none", zero_empty_negative=False, guidance_embedding=False),
)
PROVENANCE = Provenance("org/tiny", None, {"sd-runtime": "0.1.0"}, "2026-01-31T12:00:00Z")
UNET = BundleComponent.of_package(
    "Stable_Diffusion_version_org_tiny_unet.mlpackage",
    name="unet",
    role="denoiser",
    size=ImageSize(64, 64),
    inputs=(PortSpec("sample", (2, 4, 8, 8), "float16"),),
    outputs=(PortSpec("noise_pred", (2, 4, 8, 8), "float32"),),
    attention_implementation="ORIGINAL",
    compute_unit="CPU_AND_GPU",
    deployment_target="macOS13",
)


def fill(draft: Draft, weights: bytes = b"weights") -> None:
    """What a converter would do."""
    package = draft.add_component(UNET)
    (package / "Data").mkdir(parents=True)
    (package / "Data/weight.bin").write_bytes(weights)
    draft.add_file("scheduler/scheduler_config.json", b'{"num_train_timesteps": 1000}')


@pytest.fixture
def write_bundle() -> Callable[..., None]:
    """Write a bundle at a path; ``weights`` tells two of them apart, ``spoil`` comes last in the block."""

    def write(
        path: Path,
        *,
        weights: bytes = b"weights",
        overwrite: bool = False,
        spoil: Callable[[Draft], object] = lambda _: None,
    ) -> None:
        with new_bundle(path, FACTS, provenance=PROVENANCE, overwrite=overwrite) as draft:
            fill(draft, weights)
            spoil(draft)

    return write


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither find nor leave anything in the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        # the variable, not a patched function: a test of the caches sets its own over it
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield

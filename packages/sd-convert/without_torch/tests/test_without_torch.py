"""``pip install sd-convert`` alone: what converts without torch, and what says that it takes it.

Not among the other tests, whose fixtures are made with torch; ``tools/isolation.py`` runs these where it is
not installed. Where it is, its imports are blocked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from sd_bundle import open_bundle
from sd_convert import (
    Checkpoint,
    ConversionOptions,
    Likeness,
    MissingLibrariesError,
    convert,
    open_checkpoint,
    plan,
    verify,
)
from sd_convert.components import description
from sd_mil import MLModel

STACK = ("torch", "diffusers", "transformers", "coremltools", "sd_attention")
DEMO = Path(__file__).resolve().parents[4] / "apps/sdc/src/sdc/demo/checkpoint"
SAID = r"takes torch, diffusers, transformers, coremltools, .*: pip install 'sd-convert\[torch\]'"


@pytest.fixture(autouse=True, scope="module")
def _without_the_stack() -> Iterator[None]:
    """Neither modules nor metadata of the stack are to be had."""

    def version(package: str) -> str:
        if package in STACK:
            raise metadata.PackageNotFoundError(package)
        return metadata.version(package)

    with pytest.MonkeyPatch.context() as patch:
        for name in list(sys.modules):
            if name.partition(".")[0] in STACK:
                patch.delitem(sys.modules, name)
        for name in STACK:
            patch.setitem(sys.modules, name, None)
        patch.setattr(description, "version", version)
        yield


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint(DEMO)


@pytest.fixture(scope="module")
def bundle(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "demo"
    report = convert(checkpoint, path)
    assert {component.program for component in report.components} == {"sd-convert"}
    assert [component.name for component in report.components] == list(checkpoint.components)
    return path


def test_the_demo_checkpoint_becomes_a_bundle_that_runs(bundle: Path) -> None:
    """Its autoencoder's float32 check has run too: on sd-mil's engine."""
    opened = open_bundle(bundle)
    opened.check_integrity()
    unet = opened.only("denoiser")
    rng = np.random.default_rng(0)
    inputs = {port.name: rng.standard_normal(port.shape).astype(port.dtype) for port in unet.inputs}
    outputs = MLModel(opened.package(unet), "reference").predict(inputs)
    assert np.isfinite(outputs["noise_pred"]).all()
    assert set(opened.manifest.provenance.tools) == {"sd-convert"}


def test_the_plan_says_that_nothing_is_lowered(checkpoint: Checkpoint) -> None:
    assert all(component.is_reused for component in plan(checkpoint).components)


def test_new_weights_into_old_programs(bundle: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    report = convert(checkpoint, tmp_path / "again", like=Likeness.of(bundle))
    assert {component.program for component in report.components} == {str(bundle)}


@pytest.mark.parametrize("make", [plan, convert])
def test_another_architecture_takes_torch(make: object, checkpoint: Checkpoint, tmp_path: Path) -> None:
    options = ConversionOptions(components=("unet",), unet_batch_one=True)
    arguments = (checkpoint, options) if make is plan else (checkpoint, tmp_path / "out", options)
    with pytest.raises(MissingLibrariesError, match=f"^unet: no program is kept for .*{SAID}"):
        make(*arguments)  # type: ignore[operator]
    assert not (tmp_path / "out").exists()


def test_verifying_takes_torch(bundle: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(MissingLibrariesError, match=f"own network: that {SAID}"):
        verify(bundle, checkpoint)

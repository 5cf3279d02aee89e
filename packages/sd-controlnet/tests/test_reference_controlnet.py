"""A converted ControlNet against the package that Apple's converter made of the same checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sd_mil import MLModel, Package, psnr, read_package

pytest.importorskip("sd_convert")
REFERENCE = Path(__file__).resolve().parents[4] / "shared/reference"
pytestmark = [
    pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the reference packages"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # coremltools leaves temporary folders
]
NAME = "ControlNet_tiny-controlnet.mlpackage"


def described(package: Package) -> list[tuple[str, str]]:
    ports = (*package.description.inputs, *package.description.outputs)
    return [(str(port), port.description) for port in ports]


def test_the_same_ports_and_the_same_numbers(tmp_path: Path) -> None:
    from sd_controlnet.conversion import with_controlnets
    from sd_convert import KINDS, ConversionOptions, convert, open_checkpoint

    opened = open_checkpoint(REFERENCE / "tiny-sd", components=["unet"])
    opened, kinds = with_controlnets(opened, [REFERENCE / "tiny-controlnet"])
    options = ConversionOptions(components=("tiny-controlnet",))
    bundle = convert(opened, tmp_path / "bundle", options, kinds=(*KINDS, *kinds)).bundle
    theirs, ours = REFERENCE / "reference-packages/controlnet" / NAME, bundle / NAME
    assert described(read_package(ours)) == described(read_package(theirs))
    assert read_package(ours).description.author == read_package(theirs).description.author
    random = np.random.default_rng(0)
    model, reference = MLModel(ours), MLModel(theirs)
    inputs = {name: random.random(port.shape).astype(port.dtype) for name, port in reference.inputs.items()}
    expected, found = reference.predict(inputs), model.predict(inputs)
    for name, values in expected.items():
        assert np.std(values) > 0.01
        assert psnr(np.asarray(values), np.asarray(found[name])) >= 60, name

"""A UNet converted for ControlNet, fed zeros, is the plain UNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sd_controlnet import ControlNetError, zero_residuals
from sd_mil import MLModel
from sd_runtime import PortSpec

REFERENCE = Path(__file__).resolve().parents[4] / "shared/reference/reference-packages"
SAMPLE = PortSpec("sample", (2, 4, 8, 8), "float16")


def residual(index: int) -> PortSpec:
    return PortSpec(f"additional_residual_{index}", (2, 16 + index, 8, 8), "float16")


def test_every_residual_port_and_no_other() -> None:
    zeros = zero_residuals([SAMPLE, *(residual(index) for index in range(12))])
    assert list(zeros) == [f"additional_residual_{index}" for index in range(12)]
    for index, array in enumerate(zeros.values()):
        assert (array.shape, array.dtype) == ((2, 16 + index, 8, 8), np.float16)
        assert not array.any()


@pytest.mark.parametrize("ports", [[], [SAMPLE], [SAMPLE, residual(1)], [residual(0), residual(2)]])
def test_other_networks_are_refused(ports: list[PortSpec]) -> None:
    with pytest.raises(ControlNetError, match="expected the input ports of a UNet converted for ControlNet"):
        zero_residuals(ports)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the reference packages")
def test_the_controlled_unet_draws_as_the_plain_one() -> None:
    plain = MLModel(REFERENCE / "split_einsum/Stable_Diffusion_version_tiny-sd_unet.mlpackage")
    controlled = MLModel(REFERENCE / "controlnet/Stable_Diffusion_version_tiny-sd_control-unet.mlpackage")
    random = np.random.default_rng(0)
    inputs = {
        name: random.standard_normal(port.shape).astype(port.dtype) for name, port in plain.inputs.items()
    }
    expected = plain.predict(inputs)["noise_pred"]
    zeros = zero_residuals(controlled.inputs.values())
    found = controlled.predict(inputs | zeros)["noise_pred"]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    ones = {name: array + 1 for name, array in zeros.items()}
    assert np.abs(controlled.predict(inputs | ones)["noise_pred"] - expected).max() > 0.1

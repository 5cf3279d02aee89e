"""The packages that Apple's converter made, on the portable engine, against torch's recorded outputs."""

from collections import Counter

import numpy as np
import pytest
from sd_mil import MLModel, psnr, read_package

pytest.importorskip("openvino")

RECORDED = {
    "split_einsum/Stable_Diffusion_version_tiny-sd_unet": "unet",
    "original/Stable_Diffusion_version_tiny-sd_unet": "unet",
    "split_einsum_v2/Stable_Diffusion_version_tiny-sd_unet": "unet",
    "split_einsum/Stable_Diffusion_version_tiny-sd_text_encoder": "text_encoder",
    "split_einsum/Stable_Diffusion_version_tiny-sd_vae_decoder": "vae_decoder",
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_portable_engine_agrees_with_torch(reference_packages, name):
    recorded = np.load(reference_packages / f"{RECORDED[name]}_io.npz")
    model = MLModel(reference_packages / f"{name}.mlpackage")
    for port, value in model.predict({port: recorded[port] for port in model.inputs}).items():
        assert psnr(recorded[port], value) >= 60, port


@pytest.mark.parametrize("name", [name for name in RECORDED if name.endswith("unet")])
def test_every_attention_of_a_unet_is_merged(reference_packages, name):
    from sd_mil.rewriting import rewrite

    program = read_package(reference_packages / f"{name}.mlpackage").program
    kinds = Counter(operation.type for operation in rewrite(program).operations())
    assert kinds["scaled_dot_product_attention"] == 8
    assert not {"einsum", "matmul", "softmax"} & set(kinds)

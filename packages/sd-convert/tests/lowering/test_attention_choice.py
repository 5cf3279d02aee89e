"""Each attention implementation, on numbers of tokens that chunks do not divide, against torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sd_attention import CHUNK_SIZE, opaque
from sd_convert import open_checkpoint
from sd_convert.conversion.options import ConversionOptions
from sd_convert.errors import OptionsError
from sd_convert.lowering.choice import chooser
from sd_convert.targets import TARGETS
from sd_mil import MLModel, psnr, read_package
from torch import Tensor, nn

pytestmark = pytest.mark.long


class Attend(nn.Module):
    """Self-attention, with a mask for each query if asked for one."""

    def __init__(self, *, masked: bool) -> None:
        super().__init__()
        self.masked, self.qkv = masked, nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        length = x.shape[1]
        causal = torch.ones(1, 1, length, length, dtype=torch.bool, device=x.device).tril()
        return opaque(q, k, v, causal if self.masked else None, 2)


class AttendMasked(nn.Module):
    """Attention whose mask is an input."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return opaque(x, x, x, mask, 2)


@pytest.mark.parametrize("attention", ["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "SDPA"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 520), (1, 2, 520, 520)])
def test_masks_that_are_inputs(shape, attention, convert):
    torch.manual_seed(0)
    inputs = {"x": torch.randn(1, 520, 4), "mask": torch.randn(shape)}
    options = {"attention": attention, "precision": "float32", "target": "iOS18"}
    convert(AttendMasked(), inputs, **options).close(3e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [1, CHUNK_SIZE, CHUNK_SIZE + 1, 640])
def test_chunks_of_any_length_equal_torch(length, masked, convert):
    torch.manual_seed(0)
    x = {"x": torch.randn(1, length, 4)}
    converted = convert(Attend(masked=masked), x, attention="SPLIT_EINSUM_V2", precision="float32")
    converted.close(3e-6)
    chunks = -(-length // CHUNK_SIZE)
    assert converted.operations["einsum"] == 2 * 2 * chunks


@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_operation_equals_torch(masked, convert):
    torch.manual_seed(0)
    options = {"attention": "SDPA", "precision": "float32", "target": "iOS18"}
    converted = convert(Attend(masked=masked), {"x": torch.randn(2, 9, 4)}, **options)
    converted.close(3e-6)
    assert converted.operations["scaled_dot_product_attention"] == 1
    assert not {"softmax", "matmul", "einsum"} & converted.operations.keys()


@pytest.mark.parametrize(
    ("unit", "target", "sizes", "expected"),
    [
        (None, "macOS13", (2, 4096, 4096, 8, 40), ("SPLIT_EINSUM_V2", 512)),
        ("CPU_AND_NE", "iOS18", (2, 4096, 77, 8, 40), ("SPLIT_EINSUM", None)),
        ("CPU_AND_GPU", "macOS14", (2, 4096, 4096, 8, 40), ("ORIGINAL", None)),
        ("CPU_AND_GPU", "macOS15", (2, 4096, 4096, 8, 40), ("SDPA", None)),
    ],
)
def test_auto_follows_the_target_and_the_sizes(unit, target, sizes, expected):
    choice = chooser("AUTO", compute_unit=unit, target=TARGETS[target])(*sizes)
    assert (choice.implementation, choice.chunk_size) == expected


def test_fused_attention_is_refused_where_a_system_lacks_it():
    ConversionOptions(attention_implementation="SDPA", target="iOS18")
    with pytest.raises(OptionsError, match=r"SDPA needs a target out of iOS18, .*, got iOS17"):
        ConversionOptions(attention_implementation="SDPA", target="iOS17")


@pytest.mark.parametrize(
    ("attention", "target", "unit"),
    [("SPLIT_EINSUM_V2", "macOS13", None), ("SDPA", "macOS15", None), ("AUTO", "macOS15", "CPU_AND_GPU")],
)
def test_a_tiny_unet_of_an_odd_size_equals_torch(attention, target, unit, tiny, tmp_path):
    from sd_convert.components import build_component
    from sd_convert.conversion.write import write_component

    options = ConversionOptions(latent_height=24, latent_width=40)  # 960 tokens, 512 and 448
    component = build_component("unet", open_checkpoint(tiny), options)
    written = write_component(
        component, Path(tmp_path / "net.mlpackage"), attention=attention, target=target, compute_unit=unit
    )
    generator = np.random.default_rng(0)
    inputs = {p.name: generator.standard_normal(p.shape).astype(p.dtype) for p in component.inputs}
    inputs["timestep"][:] = [981, 37]
    got = MLModel(written.path, engine="reference").predict(inputs)["noise_pred"]
    module = component.module.to_empty(device="cpu").eval()
    weights = {n: torch.from_numpy(component.weights[n].astype(np.float32)) for n in module.state_dict()}
    module.load_state_dict(weights)
    with torch.no_grad():
        expected = module(*(torch.from_numpy(array.astype(np.float32)) for array in inputs.values()))
    assert psnr(expected[0].numpy(), got) > 80
    kinds = Counter(op.type for op in read_package(written.path).program.operations())
    fused = kinds["scaled_dot_product_attention"] > 0
    assert fused == (attention != "SPLIT_EINSUM_V2")

"""coremltools' own torch front end, with all its passes, as an oracle: outputs and kinds of operations."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from sd_convert.coreml import import_coremltools
from sd_mil import MLModel, psnr, read_package
from torch import Tensor, nn


class Residual(nn.Module):
    """The kinds of layers that a VAE is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.GroupNorm(4, 16), nn.GroupNorm(2, 16, eps=1e-6)
        self.wide, self.narrow = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.down = nn.Conv2d(16, 8, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(nn.functional.silu(self.second(self.wide(nn.functional.silu(self.first(x))))))
        x = nn.functional.interpolate(x + y, scale_factor=2.0)
        return self.down(nn.functional.pad(x, (0, 1, 0, 1)))


def stock(module: nn.Module, inputs: dict[str, Tensor], path: Path) -> Path:
    coremltools = import_coremltools()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing is deprecated, and the front end says so in many voices
        traced = torch.jit.trace(module, tuple(inputs.values()))
        model = coremltools.convert(
            traced,
            inputs=[
                coremltools.TensorType(name, tuple(tensor.shape), dtype=np.float16)
                for name, tensor in inputs.items()
            ],
            outputs=[coremltools.TensorType("output_0", dtype=np.float32)],
            minimum_deployment_target=coremltools.target.macOS13,
            skip_model_load=True,
        )
        model.save(str(path))
    return path


def test_a_residual_block_is_what_the_stock_converter_makes_of_it(convert, tmp_path):
    torch.manual_seed(0)
    module = Residual().eval()
    for norm in (module.first, module.second):  # ones and zeros would be optimised away
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
    module = module.half().float()
    x = torch.randn(1, 16, 8, 6).half()
    theirs = stock(module, {"x": x.float()}, tmp_path / "stock.mlpackage")
    ours = convert(module, {"x": x})
    predicted = MLModel(theirs, engine="reference").predict({"x": x.numpy()})["output_0"]
    assert psnr(predicted, ours.got[0]) > 80
    kinds = {operation.type for operation in read_package(theirs).program.operations()}
    assert kinds == {*ours.operations, "const"}

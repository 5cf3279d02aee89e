"""Every ATen operation that is lowered, against torch, through the reference engine."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from sd_convert.lowering.registry import lowered_operations
from torch import Tensor, nn
from torch.nn import functional as F


class Function(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


class Likeness(nn.Module):
    """What the safety checker does with its concepts, which depend on no input."""

    def __init__(self) -> None:
        super().__init__()
        self.concepts = nn.Parameter(normal(3, 12))

    def forward(self, x: Tensor) -> Tensor:
        return x @ F.normalize(self.concepts).transpose(0, 1)


class Pooling(nn.Module):
    """What a CLIP text encoder does with ids, without its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.positions = nn.Embedding(50_000, 6), nn.Embedding(5, 6)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        ids = ids.to(torch.int64).view(-1, ids.shape[-1])
        rows = self.table(ids) + self.positions(torch.arange(5, device=ids.device)[None])
        ends = (ids.to(dtype=torch.int32, device=ids.device) == 49_407).int().argmax(dim=-1)
        return rows, rows[torch.arange(1, device=ids.device), ends]


IMAGE, TOKENS = normal(2, 8, 6, 4), normal(2, 5, 12)
QUERIES, KEYS = normal(2, 3, 5, 4), normal(2, 3, 7, 4)
SEEN = torch.ones(5, 7, dtype=torch.bool).tril(2)

#: name -> module, inputs, the ATen operation that must occur in the exported graph
CASES: dict[str, tuple[nn.Module, tuple[Tensor, ...], str]] = {
    "conv": (nn.Conv2d(8, 4, 3, padding=1), (IMAGE,), "aten.conv2d.default"),
    "conv strided, dilated, grouped": (
        nn.Conv2d(8, 4, (3, 1), stride=(2, 1), padding=(2, 0), dilation=2, groups=2, bias=False),
        (IMAGE,),
        "aten.conv2d.default",
    ),
    "conv with a tiny bias": (nn.Conv2d(8, 2, 1), (IMAGE,), "aten.conv2d.default"),
    "linear": (nn.Linear(12, 7), (TOKENS,), "aten.linear.default"),
    "linear without bias": (nn.Linear(12, 7, bias=False), (TOKENS[0],), "aten.linear.default"),
    "layer norm": (nn.LayerNorm(12), (TOKENS,), "aten.layer_norm.default"),
    "layer norm over two axes": (
        nn.LayerNorm((5, 12), elementwise_affine=False),
        (TOKENS,),
        "aten.layer_norm.default",
    ),
    "group norm of images": (nn.GroupNorm(4, 8, eps=1e-3), (IMAGE * 3 + 1,), "aten.group_norm.default"),
    "group norm of sequences": (nn.GroupNorm(2, 8), (normal(2, 8, 9),), "aten.group_norm.default"),
    "group norm without weights": (nn.GroupNorm(2, 8, affine=False), (IMAGE,), "aten.group_norm.default"),
    "silu": (nn.SiLU(), (TOKENS,), "aten.silu.default"),
    "silu in place": (
        nn.Sequential(nn.Linear(12, 12), nn.SiLU(inplace=True)),
        (TOKENS,),
        "aten.silu_.default",
    ),
    "gelu": (nn.GELU(), (TOKENS,), "aten.gelu.default"),
    "gelu tanh": (nn.GELU(approximate="tanh"), (TOKENS,), "aten.gelu.default"),
    "quick gelu": (Function(lambda x: x * torch.sigmoid(1.702 * x)), (TOKENS,), "aten.sigmoid.default"),
    "tanh": (nn.Tanh(), (TOKENS,), "aten.tanh.default"),
    "relu": (nn.ReLU(), (TOKENS,), "aten.relu.default"),
    "relu in place": (
        nn.Sequential(nn.Linear(12, 12), nn.ReLU(inplace=True)),
        (TOKENS,),
        "aten.relu_.default",
    ),
    "mish": (nn.Mish(), (TOKENS,), "aten.mish.default"),
    "mish in place": (
        nn.Sequential(nn.Linear(12, 12), nn.Mish(inplace=True)),
        (TOKENS,),
        "aten.mish_.default",
    ),
    "softmax": (nn.Softmax(1), (TOKENS,), "aten.softmax.int"),
    "sin of large angles": (
        Function(lambda x: torch.sin(x * 0.7)),
        (torch.tensor([1.0, 999.0]),),
        "aten.sin.default",
    ),
    "cos": (Function(torch.cos), (TOKENS,), "aten.cos.default"),
    "add": (Function(operator.add), (TOKENS, TOKENS[:, :1]), "aten.add.Tensor"),
    "add a constant": (
        Function(lambda x: x + torch.arange(12.0, device=x.device)),
        (TOKENS,),
        "aten.add.Tensor",
    ),
    "sub": (Function(lambda x, y: (x - y) - 1), (TOKENS, TOKENS[0]), "aten.sub.Tensor"),
    "a number less a tensor": (Function(lambda x: 1 - x), (TOKENS,), "aten.rsub.Scalar"),
    "greater": (Function(lambda x: x.gt(0.2).float()), (TOKENS,), "aten.gt.Scalar"),
    "mean": (
        Function(lambda x: x.mean(dim=1, keepdim=True) + x.mean(dim=(0, -1))[None, :, None]),
        (TOKENS,),
        "aten.mean.dim",
    ),
    "sum": (
        Function(lambda x: x.sum(dim=1, keepdim=True) + x.sum(dim=(0, -1))[None, :, None]),
        (TOKENS,),
        "aten.sum.dim_IntList",
    ),
    "at least": (Function(lambda x: x.clamp_min(0.3)), (TOKENS,), "aten.clamp_min.default"),
    "norm": (Function(F.normalize), (TOKENS,), "aten.linalg_vector_norm.default"),
    "mul": (Function(lambda x: x * 3 * x), (TOKENS,), "aten.mul.Tensor"),
    "div": (Function(lambda x, y: x / (2 + y * y) / 1.0), (TOKENS, TOKENS), "aten.div.Tensor"),
    "matmul": (Function(torch.matmul), (TOKENS, TOKENS.mT.contiguous()), "aten.matmul.default"),
    "bmm": (Function(torch.bmm), (TOKENS, TOKENS.mT.contiguous()), "aten.bmm.default"),
    "view": (Function(lambda x: x.view(2, -1, 3)), (TOKENS,), "aten.view.default"),
    "reshape, uneven": (
        Function(lambda x: x.transpose(1, 2).reshape(2, 10, 6)),
        (TOKENS,),
        "aten.reshape.default",
    ),
    "permute": (Function(lambda x: x.permute(0, -1, 1, 2)), (IMAGE,), "aten.permute.default"),
    "transpose": (Function(lambda x: x.transpose(-1, 1).contiguous()), (IMAGE,), "aten.transpose.int"),
    "unsqueeze": (Function(lambda x: x.unsqueeze(-1).unsqueeze(1)), (TOKENS,), "aten.unsqueeze.default"),
    "squeeze": (Function(lambda x: x[:, :1].squeeze(1).squeeze(0)), (TOKENS,), "aten.squeeze.dim"),
    "flatten": (Function(lambda x: x.flatten(1, 2)), (IMAGE,), "aten.flatten.using_ints"),
    "expand": (Function(lambda x: x[:, :1].expand(3, -1, 4, -1)), (TOKENS[:1],), "aten.expand.default"),
    "cat": (Function(lambda x, y: torch.cat([x, y, x], -1)), (TOKENS, TOKENS), "aten.cat.default"),
    "expand as": (Function(lambda x: x[:, :1].expand_as(x)), (TOKENS,), "aten.expand_as.default"),
    "concat": (Function(lambda x, y: torch.concat([x, y], 1)), (TOKENS, TOKENS), "aten.concat.default"),
    "cat a constant": (
        Function(lambda x: torch.cat([torch.ones(2, 1, 12, device=x.device), x], 1)),
        (TOKENS,),
        "aten.cat.default",
    ),
    "chunk": (Function(lambda x: torch.cat(x.chunk(3, 1)[1:], 1)), (TOKENS,), "aten.chunk.default"),
    "split": (Function(lambda x: torch.cat(x.split(5, 2)[::-1], 2)), (TOKENS,), "aten.split.Tensor"),
    "select": (Function(lambda x: x[:, -2]), (TOKENS,), "aten.select.int"),
    "slice": (Function(lambda x: x[:, 1:-1, -4:]), (TOKENS,), "aten.slice.Tensor"),
    "pad": (Function(lambda x: F.pad(x, (0, 1, 2, 3), value=0.5)), (IMAGE,), "aten.pad.default"),
    "upsample": (nn.Upsample(scale_factor=(2.0, 3.0)), (IMAGE,), "aten.upsample_nearest2d.vec"),
    "upsample to a size": (nn.Upsample(size=(12, 8)), (IMAGE,), "aten.upsample_nearest2d.vec"),
    "upsample to odd sizes": (nn.Upsample(size=(11, 7)), (IMAGE,), "aten.upsample_nearest2d.vec"),
    "pixel unshuffle": (nn.PixelUnshuffle(2), (IMAGE,), "aten.pixel_unshuffle.default"),
    "average": (nn.AvgPool2d(2), (IMAGE,), "aten.avg_pool2d.default"),
    "average of odd sizes": (
        nn.AvgPool2d(2, stride=2, ceil_mode=True),
        (normal(1, 4, 5, 7),),
        "aten.avg_pool2d.default",
    ),
    "upsample unevenly": (nn.Upsample(size=(8, 9)), (IMAGE,), "aten.upsample_nearest2d.vec"),
    "dropout": (nn.Sequential(nn.Dropout(0.5), nn.SiLU()), (TOKENS,), "aten.dropout.default"),
    "clone": (Function(lambda x: x.clone() + 1), (TOKENS,), "aten.clone.default"),
    "attention": (
        Function(F.scaled_dot_product_attention),
        (QUERIES, KEYS, KEYS),
        "aten.scaled_dot_product_attention.default",
    ),
    "attention with a mask": (
        Function(lambda q, k: F.scaled_dot_product_attention(q, k, k, SEEN.to(q.device), scale=0.3)),
        (QUERIES, KEYS),
        "aten.scaled_dot_product_attention.default",
    ),
    "attention with a mask that is known late": (
        Function(lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m)),
        (QUERIES, KEYS, normal(2, 1, 1, 7)),
        "aten.scaled_dot_product_attention.default",
    ),
    "attention with a comparison as a mask": (
        Function(lambda q, k, m: F.scaled_dot_product_attention(q, k, k, m.gt(-0.5))),
        (QUERIES, KEYS, normal(5, 7)),
        "aten.scaled_dot_product_attention.default",
    ),
    "causal attention": (
        Function(lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True)),
        (QUERIES,),
        "aten.scaled_dot_product_attention.default",
    ),
    "weights alone": (Likeness(), (TOKENS,), "aten.linalg_vector_norm.default"),
    "token ids": (Pooling(), (torch.tensor([[3.0, 49_405, 49_407, 7, 49_407]]),), "aten.embedding.default"),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_torch(case, convert):
    module, inputs, _ = CASES[case]
    named = {f"x{i}": tensor for i, tensor in enumerate(inputs)}
    convert(module, named, precision="float32").close(3e-6)


@pytest.mark.parametrize(
    "case", ["conv", "group norm of images", "layer norm", "attention with a mask", "token ids"]
)
def test_equals_torch_with_float16_weights(case, convert):
    module, inputs, _ = CASES[case]
    named = {f"x{i}": tensor.float() for i, tensor in enumerate(inputs)}
    convert(module, named).close(2e-3)


def exported_names(module: nn.Module, inputs: tuple[Tensor, ...]) -> set[str]:
    program = torch.export.export(module.eval(), inputs, strict=False)
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


def test_the_table_is_what_it_says_and_leaves_nothing_out():
    seen: set[str] = set()
    for case, (module, inputs, name) in CASES.items():
        names = exported_names(module, inputs)
        assert name in names, case
        seen |= names
    elsewhere = {"getitem", "sd_attention.attention.default"}  # both in test_layout
    unneeded = {"aten._unsafe_view.default", "aten.to.dtype_layout", "aten.alias.default"}  # other spellings
    assert set(lowered_operations()) - seen - elsewhere - unneeded == set()

"""What the rewrites emit is in the vocabulary of coremltools' own converter, by both of its front ends."""

import logging
import warnings
from collections import Counter
from functools import partial

import pytest
import torch
from sd_attention import on_bsc, original, rewrite, sdpa, split_einsum, split_einsum_v2
from torch import nn

np = pytest.importorskip("numpy")
pytest.importorskip("coremltools", exc_type=ImportError)
pytest.importorskip("sd_mil")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.long]

HEADS, LENGTH, CHANNELS = 2, 20, 16
FUNCTIONS = {
    "original": original,
    "split_einsum": split_einsum,
    "in chunks": partial(split_einsum_v2, chunk_size=12),
    "in one chunk": split_einsum_v2,
    "sdpa": sdpa,
}
CAUSAL = torch.ones(LENGTH, LENGTH).tril().bool()
PADDING = torch.arange(LENGTH)[None, None, None] < 15
MASKS = {
    "none": None,
    "causal": CAUSAL,
    "additive": torch.zeros(LENGTH, LENGTH).masked_fill(~CAUSAL, -torch.inf),
    "blind rows": CAUSAL & (torch.arange(LENGTH) > 3),
    "by head": torch.rand(1, HEADS, LENGTH, LENGTH, generator=torch.Generator().manual_seed(0)) > 0.3,
}


def converted(module, arguments, way, *, fused=False):
    """The package's model, and how many operations it has of each kind."""
    import coremltools as ct
    from sd_mil import MLModel

    logging.getLogger("coremltools").setLevel(logging.ERROR)
    settings = {
        "minimum_deployment_target": ct.target.iOS18 if fused else ct.target.iOS16,
        "compute_precision": ct.precision.FLOAT32,
        "skip_model_load": True,
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if way == "trace":
            inputs = [ct.TensorType(f"x{i}", shape=each.shape) for i, each in enumerate(arguments)]
            model = ct.convert(torch.jit.trace(module, arguments), inputs=inputs, **settings)
        else:
            exported = torch.export.export(module, arguments, strict=False).run_decompositions({})
            model = ct.convert(exported, **settings)

    def save(folder):
        model.save(str(folder / "m.mlpackage"))
        found = MLModel(folder / "m.mlpackage", engine="reference")
        return found, Counter(operation.type for operation in found.package.program.operations())

    return save


def agrees(module, arguments, way, folder, *, expected=None, fused=False):
    found, kinds = converted(module, arguments, way, fused=fused)(folder)
    with torch.no_grad():
        wanted = (module if expected is None else expected)(*arguments).numpy()
    given = {name: each.numpy() for name, each in zip(found.inputs, arguments, strict=True)}
    (got,) = found.predict(given).values()
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    return kinds


class Attending(nn.Module):
    """Attention of a tensor to itself; the mask is a constant, or is made of an input."""

    def __init__(self, function, mask, *, computed=False):
        super().__init__()
        self.function, self.mask, self.computed = function, mask, computed

    def forward(self, x, shown=None):
        mask = shown > 0 if self.computed else self.mask
        return self.function(x, x * 0.5 + 0.1, x * 0.3, mask, HEADS)


@pytest.mark.parametrize("way", ["trace", "export"])
@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("original", "none"),
        ("original", "causal"),
        ("original", "additive"),
        ("split_einsum", "none"),
        ("split_einsum", "blind rows"),
        ("split_einsum", "additive"),
        ("in chunks", "additive"),
        ("in chunks", "by head"),
        ("in one chunk", "causal"),
        ("sdpa", "none"),
        ("sdpa", "additive"),
    ],
)
def test_functions_and_masks(name, mask, way, tmp_path):
    x = torch.randn(1, CHANNELS, 1, LENGTH, generator=torch.Generator().manual_seed(1))
    module = Attending(FUNCTIONS[name], MASKS[mask]).eval()
    kinds = agrees(module, (x,), way, tmp_path, fused=name == "sdpa")
    expected = {"split_einsum": 2 * HEADS, "in one chunk": 2 * HEADS, "in chunks": 4 * HEADS}
    assert kinds["einsum"] == expected.get(name, 0)
    assert kinds["scaled_dot_product_attention"] == (name == "sdpa")


@pytest.mark.parametrize("way", ["trace", "export"])
@pytest.mark.parametrize("name", ["original", "in chunks"])
def test_a_mask_that_is_computed(name, way, tmp_path):
    x = torch.randn(1, CHANNELS, 1, LENGTH, generator=torch.Generator().manual_seed(1))
    module = Attending(FUNCTIONS[name], None, computed=True).eval()
    agrees(module, (x, PADDING.float()), way, tmp_path)


def vit():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    from sd_attention.transformers import attention

    return transformers.ViTModel(config), attention, torch.randn(1, 3, 32, 32)


def distilbert():
    transformers = pytest.importorskip("transformers")
    config = transformers.DistilBertConfig(vocab_size=50, dim=32, n_heads=4, n_layers=1, hidden_dim=64)
    from sd_attention.transformers import attention

    model = transformers.DistilBertModel(config)
    return model, attention, torch.randn(1, 12, 32)


def encoder():
    from sd_attention import multihead_attention

    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    return model, multihead_attention, torch.randn(1, 10, 32)


class Plain(nn.Module):
    """One tensor in, one tensor out."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        named = {"inputs_embeds": x} if type(self.inner).__name__ == "DistilBertModel" else None
        result = self.inner(x) if named is None else self.inner(**named)
        return result if isinstance(result, torch.Tensor) else result.last_hidden_state


@pytest.mark.parametrize("way", ["trace", "export"])
@pytest.mark.parametrize("function", ["split_einsum", "original"])
@pytest.mark.parametrize("make", [vit, distilbert, encoder], ids=lambda make: make.__name__)
def test_rewritten_models(make, function, way, tmp_path):
    torch.manual_seed(0)
    model, rule, x = make()
    model.eval()
    rewritten = rewrite(model, [rule(on_bsc(FUNCTIONS[function]))]).module
    kinds = agrees(Plain(rewritten).eval(), (x,), way, tmp_path, expected=Plain(model))
    assert kinds["einsum"] == (8 if function == "split_einsum" else 0)


def test_the_guide_runs(tmp_path, monkeypatch, capsys):
    import re
    from pathlib import Path

    pytest.importorskip("transformers")
    pytest.importorskip("openvino")
    guide = (Path(__file__).parents[1] / "docs/coreml.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", guide, re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "coreml.md", "exec"), {"__name__": "guide"})  # noqa: S102
    assert capsys.readouterr().out.count(" dB") == 2

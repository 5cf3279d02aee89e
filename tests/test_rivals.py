"""The rules of other tools, as their sources state them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rivals  # noqa: E402
from sd_compress import (  # noqa: E402
    Candidate,
    Keep,
    Palettize,
    Sensitivity,
    Weight,
    optimal_palette,
)
from sd_mil import Constant, TensorType  # noqa: E402


def weight(values, name="w"):
    return Weight(name, "main", "linear", "op", "weight", Constant(TensorType("fp16", values.shape), values))


def sensitivity(name, noises):
    """16 bits of 8 bytes, then 4 and 2 of 2 and 1."""
    widths = ((Keep(), 8), (Palettize(4), 2), (Palettize(2), 1))
    pairs = zip(widths, (0.0, *noises), strict=True)
    return Sensitivity(name, 4, tuple(Candidate(*width, noise) for width, noise in pairs))


WEIGHTS = (sensitivity("a", (0.1, 0.5)), sensitivity("b", (0.2, 0.3)))


@pytest.mark.parametrize(
    ("budget", "bits"),
    [(16, (16, 16)), (10, (4, 16)), (9, (4, 4)), (4, (4, 4)), (3, (4, 2)), (2, (2, 2))],
)
def test_the_greedy_recipe_applies_what_is_quietest_until_the_size_is_met(budget, bits):
    found = rivals.by_greed(WEIGHTS, budget)
    assert tuple(getattr(found.schemes[name], "nbits", 16) for name in "ab") == bits


def test_a_size_that_no_greedy_recipe_has_is_refused():
    with pytest.raises(ValueError, match="at least 2 bytes, got 1"):
        rivals.by_greed(WEIGHTS, 1)


def test_the_threshold_is_the_same_for_all_weights():
    assert {str(one) for one in rivals.by_threshold(WEIGHTS, 3).schemes.values()} == {
        str(Palettize(4)),
        str(Palettize(2)),
    }


class Layer(torch.nn.Module):
    """A network of one layer that is called as a UNet is."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(6, 4, bias=False)
        torch.nn.init.normal_(self.fc.weight, generator=torch.Generator().manual_seed(0))
        self.fc.weight.data = self.fc.weight.data.half().float()

    def forward(self, sample, *_):
        return type("Output", (), {"sample": self.fc(sample)})


def network(count):
    unet, rng = Layer(), np.random.default_rng(0)
    scales = np.array([5, 1, 1, 0.2, 1, 0.01])
    runs = [
        {
            "sample": rng.standard_normal((1, 6)) * scales,
            "timestep": np.ones(1),
            "encoder_hidden_states": np.ones((1, 2, 1, 3)),
        }
        for _ in range(count)
    ]
    one = weight(unet.fc.weight.detach().numpy().astype(np.float16), "unet_fc_weight")
    return rivals.Network.of(unet, [one], runs), one, runs


def test_squared_gradients_are_those_of_the_outputs():
    """Of a layer they are the squares of its inputs, times those of the noise of its outputs."""
    known, _, runs = network(400)
    (found,) = rivals.squared_gradients(known).values()
    exact = np.mean([np.square(one["sample"][0]) for one in runs], axis=0)
    assert np.allclose(found.mean(axis=0) / found.mean(axis=0).max(), exact / exact.max(), rtol=0.2)


def test_elements_that_matter_have_their_values_in_the_table():
    known, one, _ = network(8)
    how, assign = rivals.coreai_palettes(known)
    importance = rivals.squared_gradients(known)["unet_fc_weight"]
    values = one.read().astype(np.float64)

    def cost(find):
        return float((importance * (find(one, Palettize(2)).decode() - values) ** 2).sum())

    assert cost(assign) < 0.9 * cost(optimal_palette)
    assert how in ("its rule", "its own code")


def test_the_rule_finds_the_palettes_of_coreai_opt():
    pytest.importorskip("coreai_opt")
    known, one, _ = network(8)
    rule = rivals.WeightedKMeans(rivals.squared_gradients(known))
    for nbits in (1, 2, 3):
        ours, theirs = (find(one, Palettize(nbits)) for find in (rule, rivals.OwnCode(known)))
        assert np.allclose(ours.tables, theirs.tables, rtol=2e-3)
        assert np.array_equal(ours.indices, theirs.indices)


def test_the_checkpoint_of_another_bundle_is_refused():
    known, one, runs = network(1)
    with pytest.raises(ValueError, match="the checkpoint of the bundle, got another unet_fc_weight"):
        rivals.Network.of(known.unet, [weight(one.read() * 2, "unet_fc_weight")], runs)

"""A network trained in values of tables: what its gradients are, what it keeps, what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402 - torch may not be here
from hypothesis import strategies as st  # noqa: E402
from sd_compress.training import (  # noqa: E402
    MIN_ELEMENTS,
    LearnedTables,
    TrainingError,
    finalize,
    prepare,
)
from torch import Tensor, nn  # noqa: E402

pytestmark = pytest.mark.long

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def perceptron(width: int = 64) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width), nn.Linear(width, 1))


def descend(network: nn.Module, target: nn.Module, steps: int, rate: float = 3e-3) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(steps):
        x = torch.randn(128, 64)
        loss = (network(x) - target(x)).square().mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()


def distinct(weight: Tensor) -> int:
    """As many distinct values as the fp16 weight of a package has; numpy may sort fp16 wrongly (AVX-512)."""
    return len(np.unique(weight.detach().half().float().numpy()))


def dense(weight: Tensor, tables: Tensor) -> Tensor:
    """The slow way: every distance of every element, a one-hot choice, and its product with the table."""
    rows = weight.reshape(len(tables), -1)
    choice = (rows[..., None] - tables[:, None]).abs().argmin(-1)
    hard = nn.functional.one_hot(choice, tables.shape[1]).to(tables.dtype)
    values = torch.einsum("gnk,gk->gn", hard, tables)
    return (values + rows - rows.detach()).reshape(weight.shape)


@settings(max_examples=20, deadline=None)
@given(nbits=st.integers(1, 4), groups=st.sampled_from([1, 2, 4]), seed=st.integers(0, 1000))
def test_values_and_gradients_are_those_of_all_distances(nbits: int, groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(8, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    learned = LearnedTables(weight, nbits, groups)
    learned.tables.data = learned.tables.flip(1)  # training need not keep them ascending
    pull = torch.randn(8, 3, 5, generator=generator, dtype=torch.float64)
    got, wanted = learned(weight), dense(weight, learned.tables)
    torch.testing.assert_close(got, wanted)
    leaves = (weight, learned.tables)
    ours = torch.autograd.grad((got * pull).sum(), leaves)
    for gradient, true in zip(ours, torch.autograd.grad((wanted * pull).sum(), leaves), strict=True):
        torch.testing.assert_close(gradient, true)


@pytest.mark.parametrize("nbits", [1, 2, 3, 4])
def test_the_first_table_is_nearly_the_best(nbits: int) -> None:
    """Against the optimum of coremltools' own solver of k-means in one dimension."""
    kmeans = pytest.importorskip("coremltools._deps.kmeans1d")
    weight = torch.randn(64, 64)
    labels, centroids = kmeans.cluster(weight.flatten().double().numpy(), 2**nbits)
    best = (weight.flatten() - torch.tensor(centroids)[torch.tensor(labels)]).square().sum().item()
    error = (LearnedTables(weight, nbits)(weight) - weight).square().sum().item()
    assert best * 0.999 <= error <= best * 1.1


@pytest.mark.parametrize(("nbits", "group_size"), [(1, None), (2, None), (2, 16), (4, 32)])
def test_trained_weights_hold_as_many_values_as_their_tables(nbits: int, group_size: int | None) -> None:
    network, target = perceptron(), perceptron()
    assert prepare(network, nbits=nbits, group_size=group_size) == ("0", "2")
    descend(network, target, 20)
    assert finalize(network) == ("0", "2")
    for weight in (network[0].weight, network[2].weight):
        groups = weight.split(group_size or len(weight))
        assert max(map(distinct, groups)) <= 2**nbits
        assert torch.equal(weight, weight.half().float())
    assert distinct(network[3].weight) > 2**nbits
    assert network.state_dict().keys() == perceptron().state_dict().keys()


def test_training_finds_what_rounding_loses() -> None:
    target = perceptron().requires_grad_(False)
    rounded, trained = perceptron(), perceptron()
    for network in (rounded, trained):
        network.load_state_dict(target.state_dict())
        prepare(network, nbits=2)
    descend(trained, target, 200)
    x = torch.randn(1000, 64)
    before, after = ((finalize(n), (n(x) - target(x)).square().mean())[1] for n in (rounded, trained))
    assert after < before / 4


def test_what_the_network_says_is_what_it_says_afterwards() -> None:
    network = perceptron()
    prepare(network, nbits=3)
    x = torch.randn(5, 64)
    before = network(x)
    finalize(network)
    torch.testing.assert_close(network(x), before, atol=1e-3, rtol=1e-3)  # its tables are fp16 now


def test_constant_weights_keep_their_value() -> None:
    layer = nn.Sequential(nn.Linear(64, 64))
    nn.init.constant_(layer[0].weight, 0.5)
    prepare(layer, nbits=2)
    finalize(layer)
    assert torch.equal(layer[0].weight, torch.full((64, 64), 0.5))


def test_layers_are_chosen_by_size_and_by_name() -> None:
    network = nn.Sequential(nn.Conv2d(MIN_ELEMENTS // 4, 4, 1), nn.Conv2d(4, MIN_ELEMENTS // 4 - 1, 1))
    assert prepare(network) == ("0",)
    assert prepare(perceptron(), select=lambda name, _: name == "3") == ("3",)


def shared() -> nn.Module:
    network = perceptron()
    network[2].weight = network[0].weight
    return network


def broken() -> nn.Module:
    network = perceptron()
    network[2].weight.data[3, 3] = float("nan")
    return network


def prepared() -> nn.Module:
    network = perceptron()
    prepare(network)
    return network


@pytest.mark.parametrize(
    ("network", "options", "said"),
    [
        (perceptron, {"nbits": 5}, r"nbits: expected one of \(1, 2, 3, 4, 6, 8\), got 5"),
        (perceptron, {"group_size": 24}, "0.weight: expected a group_size that divides its 64 channels"),
        (perceptron, {"group_size": 0}, "group_size"),
        (lambda: perceptron(8), {}, "no layer of Sequential is selected"),
        (perceptron, {"select": lambda name, _: name == "1"}, "1: expected a layer with a weight"),
        (broken, {}, "2.weight: expected finite numbers"),
        (shared, {}, "2.weight: is the weight of 0 too"),
        (prepared, {}, "0.weight: is parametrized already"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(network, options, said) -> None:  # type: ignore[no-untyped-def]
    given = network()
    before = [name for name, _ in given.named_parameters()]
    with pytest.raises(TrainingError, match=said):
        prepare(given, **options)
    assert [name for name, _ in given.named_parameters()] == before


def test_finalize_wants_a_prepared_network_and_finite_tables() -> None:
    with pytest.raises(TrainingError, match="call prepare first"):
        finalize(perceptron())
    network = prepared()
    for name, parameter in network.named_parameters():
        if name == "2.parametrizations.weight.0.tables":
            parameter.data.fill_(1e6)
    with pytest.raises(TrainingError, match=r"2\.weight: its table left the range of fp16"):
        finalize(network)


def test_without_torch_the_message_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import sd_compress\n"
        "try:\n    import sd_compress.training\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "sd-compress[train]"' in done.stdout


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```py\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(block, str(README), "exec"), {})  # noqa: S102
    assert capsys.readouterr().out == "4 values\n"

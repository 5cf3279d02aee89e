"""A network that is fine-tuned in weights that are values of small tables, and that keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import nn
from torch.nn.utils import parametrize

from sd_compress.errors import TrainingError
from sd_compress.schemes import PALETTE_BITS

from .tables import LearnedTables

#: Which layers to palettize, by their name in the network and the layer itself; each has a ``weight``.
Select: TypeAlias = Callable[[str, nn.Module], bool]

#: Below this a table costs about what it saves; the threshold of Apple's tools too.
MIN_ELEMENTS = 2048

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def is_large_layer(name: str, layer: nn.Module) -> bool:  # noqa: ARG001 - a Select may go by the name
    """Whether it is a convolution or a linear layer of at least ``MIN_ELEMENTS`` weights."""
    return isinstance(layer, _LAYERS) and layer.weight.numel() >= MIN_ELEMENTS


def prepare(
    network: nn.Module,
    *,
    nbits: int = 2,
    group_size: int | None = None,
    select: Select = is_large_layer,
) -> tuple[str, ...]:
    """Give the selected layers, in place, weights of ``2**nbits`` values each; returns the layers' names.

    Then train ``network`` with any loss and any optimiser over its ``parameters()``: the tables, the weights
    underneath and everything else learn together. :func:`finalize` ends it.

    Args:
        network: of floating point weights.
        nbits: one of ``PALETTE_BITS``.
        group_size: output channels that share a table; None gives one table to the whole weight.
        select: which layers; the large convolutions and linear layers if not given.

    Raises:
        TrainingError: nothing is selected, or a weight cannot have such tables. The network is as it was.
    """
    if nbits not in PALETTE_BITS:
        raise TrainingError(f"nbits: expected one of {PALETTE_BITS}, got {nbits}")
    chosen = {name: layer for name, layer in network.named_modules() if select(name, layer)}
    if not chosen:
        raise TrainingError(f"no layer of {type(network).__name__} is selected; see select=")
    groups = {name: _groups(name, layer, group_size) for name, layer in chosen.items()}
    _refuse_shared(network, chosen)
    for name, layer in chosen.items():
        tables = LearnedTables(_weight(name, layer), nbits, groups[name])
        parametrize.register_parametrization(layer, "weight", tables)
    return tuple(chosen)


def finalize(network: nn.Module) -> tuple[str, ...]:
    """Leave, in place, weights that hold at most ``2**nbits`` distinct fp16 values per table.

    Plain palettization of the converted network, of as many bits and the same groups, then loses nothing.
    Returns the names of the layers.

    Raises:
        TrainingError: the network was not prepared, or a table learned what fp16 does not have.
    """
    layers = dict(_prepared(network))
    if not layers:
        raise TrainingError(f"{type(network).__name__} has no layer with tables; call prepare first")
    for name, (_, learned) in layers.items():
        learned.round_to_half()
        if not learned.tables.isfinite().all():
            raise TrainingError(f"{name}.weight: its table left the range of fp16; train at a lower rate")
    for layer, _ in layers.values():
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return tuple(layers)


def _prepared(network: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, LearnedTables]]]:
    for name, layer in network.named_modules():
        if parametrize.is_parametrized(layer, "weight"):
            (learned, *_) = layer.parametrizations["weight"]
            if isinstance(learned, LearnedTables):
                yield name, (layer, learned)


def _groups(name: str, layer: nn.Module, group_size: int | None) -> int:
    weight = _weight(name, layer)
    if parametrize.is_parametrized(layer, "weight"):
        raise TrainingError(f"{name}.weight: is parametrized already")
    if not weight.isfinite().all():
        raise TrainingError(f"{name}.weight: expected finite numbers, got NaN or infinity")
    if group_size is None:
        return 1
    if group_size < 1 or weight.shape[0] % group_size:
        channels = weight.shape[0]
        raise TrainingError(
            f"{name}.weight: expected a group_size that divides its {channels} channels, got {group_size}"
        )
    return weight.shape[0] // group_size


def _weight(name: str, layer: nn.Module) -> torch.Tensor:
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point() or not weight.numel():
        raise TrainingError(f"{name}: expected a layer with a weight of floating point numbers")
    return weight


def _refuse_shared(network: nn.Module, chosen: dict[str, nn.Module]) -> None:
    """A weight of two layers would be trained as two."""
    owners: dict[int, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        layer = name.rpartition(".")[0]
        other = owners.setdefault(id(parameter), layer)
        if other != layer and {other, layer} & chosen.keys():
            raise TrainingError(f"{name}: is the weight of {other} too; leave both out with select=")

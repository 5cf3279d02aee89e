"""How Apple's tools choose the bits and the tables of weights, to be held against ours at equal size.

The rules choose among the same candidates as ours, on the same sensitivities. Sources: the threshold of
ml-stable-diffusion's ``mixed_bit_compression_apply.py``; of coreai-opt 0.4, the greedy recipe of its
documentation ("Mixed-Precision Compression", stage 2), and its k-means weighted with squared gradients
(``KMeansPalettizer.calibration_mode``, after SqueezeLLM, arXiv 2306.07629). coreai-opt's own code finds the
tables where it is installed (``uv run --with coreai-opt``); :class:`WeightedKMeans` is the same rule here.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sd_compress import Assign, Palette, Palettize, Recipe, Sensitivity, Weight
from sd_compress.clustering import Histogram, kmeans
from sd_compress.palettes import nearest_entries

Array = npt.NDArray[Any]
#: Squared gradients below this share of the largest count as much: coreai-opt's ``_SENSITIVITY_CLIP_THR``.
LEAST_IMPORTANCE = 1e-12


def by_threshold(weights: Sequence[Sensitivity], stored_bytes: float) -> Recipe:
    """Apple's rule: the fewest bits with less noise than a threshold, the one that leads to that size."""

    def chosen(threshold: float) -> dict[str, Any]:
        picked = {}
        for weight in weights:
            ordered = sorted(weight.candidates, key=lambda one: one.stored_bytes)
            picked[weight.weight] = next((one for one in ordered if one.noise < threshold), ordered[-1])
        return picked

    levels = sorted({one.noise for weight in weights for one in weight.candidates})
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        size = sum(one.stored_bytes for one in chosen(levels[middle] * 1.001).values())
        low, high = (low, middle) if size <= stored_bytes else (middle + 1, high)
    return Recipe({name: one.scheme for name, one in chosen(levels[low] * 1.001).items()})


def by_greed(weights: Sequence[Sensitivity], stored_bytes: float) -> Recipe:
    """coreai-opt's recipe: all candidates of all weights by their noise, the least first; each is applied.

    A later one of the same weight replaces an earlier one, until the size is met.

    Raises:
        ValueError: it is not met when all are applied.
    """
    recipe = {weight.weight: weight.candidates[0] for weight in weights}
    size = sum(one.stored_bytes for one in recipe.values())
    steps = [(one.noise, weight.weight, one) for weight in weights for one in weight.candidates[1:]]
    for _, name, one in sorted(steps, key=lambda step: step[0]):
        if size <= stored_bytes:
            break
        size += one.stored_bytes - recipe[name].stored_bytes
        recipe[name] = one
    if size > stored_bytes:
        raise ValueError(f"expected a budget of at least {size} bytes, got {stored_bytes:.0f}")
    return Recipe({name: one.scheme for name, one in recipe.items()})


def open_unet(checkpoint: Path) -> Any:
    """The UNet of a diffusers checkpoint, in fp32."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(checkpoint / "unet", torch_dtype=torch.float32)


@dataclass(frozen=True)
class Network:
    """The UNet of a checkpoint in torch, and what it is given; ``names``: its modules by weights' names."""

    unet: Any
    runs: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
    names: Mapping[str, str]

    @classmethod
    def of(cls, unet: Any, weights: Sequence[Weight], runs: Sequence[Mapping[str, Array]]) -> Network:
        """For a program with these ``weights`` that was converted from it, and recorded ``runs`` of that.

        Raises:
            ValueError: weights that the UNet has not under such a name, or with other numbers.
        """
        modules = {f"unet_{name.replace('.', '_')}_weight": name for name, _ in unet.named_modules()}
        for weight in weights:
            found = unet.get_submodule(modules[weight.name]).weight if weight.name in modules else None
            values = None if found is None else found.detach().half().numpy().reshape(-1)
            if values is None or not np.array_equal(values, weight.read().reshape(-1)):
                raise ValueError(f"expected the checkpoint of the bundle, got another {weight.name}")
        names = {weight.name: modules[weight.name] for weight in weights}
        return cls(unet.float().eval(), [_in_torch(one) for one in runs], names)

    def targets(self, unet: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The output of each run, and a target beside it, as far off as noise of variance 1.

        The squared gradients of the loss between them are then, on average, those of the outputs.
        """
        generator = torch.Generator().manual_seed(0)
        for sample, timestep, states in self.runs:
            output = unet(sample, timestep, states).sample
            noise = torch.randn(output.shape, generator=generator)
            yield output, output.detach() + noise


def _in_torch(run: Mapping[str, Array]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    sample, timestep, states = (
        torch.from_numpy(np.asarray(run[name], np.float32))
        for name in ("sample", "timestep", "encoder_hidden_states")
    )
    return sample, timestep, states.squeeze(2).transpose(1, 2)


def squared_gradients(network: Network) -> dict[str, Array]:
    """What coreai-opt weighs the elements with, by the name of the weight: summed over runs, at most 1."""
    unet = copy.deepcopy(network.unet).requires_grad_(True)
    sums = {name: np.zeros(unet.get_submodule(one).weight.shape) for name, one in network.names.items()}
    for output, target in network.targets(unet):
        unet.zero_grad()
        torch.autograd.backward(torch.nn.functional.mse_loss(output, target))
        for name, one in network.names.items():
            sums[name] += np.square(unet.get_submodule(one).weight.grad.numpy())
    largest = {name: float(one.max()) for name, one in sums.items()}
    return {
        name: np.maximum(one / largest[name], LEAST_IMPORTANCE) if largest[name] else np.ones_like(one)
        for name, one in sums.items()
    }


@dataclass(frozen=True)
class WeightedKMeans:
    """The best table under squared errors that count as much as ``importance`` has it, by weight."""

    importance: Mapping[str, Array]

    def __call__(self, weight: Weight, scheme: Palettize) -> Palette:
        """The palette of one weight."""
        values = weight.read()
        distinct, places = np.unique(values.astype(np.float64), return_inverse=True)
        weights = self.importance[weight.name].reshape(-1)
        counts = np.bincount(places.reshape(-1), weights=weights).astype(np.float64)
        table = kmeans(Histogram(distinct, counts), 1 << scheme.nbits)
        return _palette(values, table, scheme)


@dataclass
class OwnCode:
    """What coreai-opt itself makes of the weights, for one table a weight."""

    network: Network
    _made: dict[int, Mapping[str, Array]] = field(default_factory=dict)
    _one_at_a_time: Lock = field(default_factory=Lock)

    def __call__(self, weight: Weight, scheme: Palettize) -> Palette:
        """The palette of one weight."""
        with self._one_at_a_time:
            if scheme.nbits not in self._made:
                self._made[scheme.nbits] = self._palettized(scheme.nbits)
        values = self._made[scheme.nbits][weight.name].reshape(weight.shape)
        table = np.unique(values.astype(np.float32))  # of many fp16, numpy 2.4's AVX-512 sort is wrong
        return _palette(values, table, scheme)

    def _palettized(self, nbits: int) -> Mapping[str, Array]:
        from coreai_opt import ExportBackend  # type: ignore[import-not-found]
        from coreai_opt.palettization import (  # type: ignore[import-not-found]
            KMeansPalettizer,
            KMeansPalettizerConfig,
            ModuleKMeansPalettizerConfig,
            PalettizationSpec,
        )
        from coreai_opt.palettization.spec import PerTensorGranularity  # type: ignore[import-not-found]

        spec = PalettizationSpec(n_bits=nbits, granularity=PerTensorGranularity())
        each = ModuleKMeansPalettizerConfig(op_state_spec={"weight": spec})
        config = KMeansPalettizerConfig(
            global_config=None, module_name_configs=dict.fromkeys(self.network.names.values(), each)
        )
        palettizer = KMeansPalettizer(copy.deepcopy(self.network.unet), config)
        prepared = palettizer.prepare(example_inputs=self.network.runs[0])
        with palettizer.calibration_mode(loss_fn=torch.nn.functional.mse_loss) as calibration:
            for output, target in self.network.targets(prepared):
                calibration.step(output, target)
        made = palettizer.finalize(backend=ExportBackend.Torch)
        return {
            name: made.get_submodule(one).weight.detach().half().numpy()
            for name, one in self.network.names.items()
        }


def _palette(values: Array, table: Array, scheme: Palettize) -> Palette:
    """``values`` as the next of the numbers of ``table``, in their dtype."""
    entries = np.unique(table.astype(values.dtype))
    full = np.full((1, 1 << scheme.nbits), entries[-1])
    full[0, : len(entries)] = entries
    return Palette(full, nearest_entries(values, entries))


def coreai_palettes(network: Network) -> tuple[str, Assign]:
    """Who finds palettes as coreai-opt does, and whether that is its own code."""
    if importlib.util.find_spec("coreai_opt") is not None:
        return "its own code", OwnCode(network)
    return "its rule", WeightedKMeans(squared_gradients(network))

"""LoRAs merged into a checkpoint: its networks with changes that are computed when a weight is read."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sd_convert.checkpoint.checkpoint import TOKENIZERS, Checkpoint
from sd_convert.checkpoint.sources import Source
from sd_convert.checkpoint.tensors import LazyTensor
from sd_convert.checkpoint.weights import LazyWeights
from sd_convert.errors import CheckpointError, WeightsMismatchError
from sd_convert.families import FAMILIES

from .changes import Change, ChangedTensor
from .file import Lora, Modules, make_changes, read_alphas, read_modules
from .keys import find_networks, index_modules

_SHOWN: Final = 3
_NETWORKS: Final = ("unet", *TOKENIZERS)

#: What the keys of the text attention's input tell about the base that a LoRA was trained on.
_BASES: Final = {family.text_width: family.title for family in FAMILIES.values()}


@dataclass(frozen=True, slots=True)
class WithLoras:
    """The network ``folder`` of ``base`` with LoRAs, see :class:`sd_convert.checkpoint.sources.Source`."""

    base: Source
    folder: str
    loras: tuple[Lora, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of ``base``."""
        return self.base.files

    def open(self) -> LazyWeights:
        """The tensors, those that a LoRA changes computed when they are read."""
        entries = dict(self.base.open().entries)
        changes: defaultdict[str, list[Change]] = defaultdict(list)
        for lora in self.loras:
            fitted, _ = fit(lora, read_modules(lora.file), {self.folder: entries})
            for name, several in fitted.get(self.folder, {}).items():
                changes[name].extend(several)
        return LazyWeights(
            entries | {name: ChangedTensor(entries[name], tuple(those)) for name, those in changes.items()}
        )


def with_loras(checkpoint: Checkpoint, loras: Sequence[Lora]) -> Checkpoint:
    """``checkpoint`` with ``loras`` merged, in their order.

    Modules of networks that were not opened are left out of account.

    Raises:
        WeightsMismatchError: a LoRA has modules that the checkpoint lacks, or has in another shape; the
            message has the first of them, and the base that the LoRA seems to be for.
        CheckpointError: a file is malformed.
        UnsupportedArchitectureError: a LoRA of a kind that is not merged.
    """
    if not loras:
        return checkpoint
    tensors = {f: source.open().entries for f, source in checkpoint.sources.items() if f in _NETWORKS}
    closed = {folder for folder in _NETWORKS if folder in checkpoint.configs and folder not in tensors}
    for lora in loras:
        modules = read_modules(lora.file)
        _, unfit = fit(lora, modules, tensors)
        strange = [m for m in unfit if not closed & set(find_networks(m)[0])]
        if strange:
            raise _misfit(lora, modules, strange, checkpoint)
    merged = {folder: WithLoras(checkpoint.sources[folder], folder, tuple(loras)) for folder in tensors}
    return replace(checkpoint, sources={**checkpoint.sources, **merged})


def fit(
    lora: Lora, modules: Modules, tensors: Mapping[str, Mapping[str, LazyTensor]]
) -> tuple[dict[str, dict[str, list[Change]]], list[str]]:
    """The changes by folder and tensor, and the modules that fit none of ``tensors``.

    A file may spell one module in two ways, as files joined from several trainers do: both change it.

    Raises:
        CheckpointError: two changes of one weight of which one sets its norm (DoRA).
    """
    settings = read_alphas(lora.file)
    indices = {folder: index_modules(folder, names) for folder, names in tensors.items()}
    changes: dict[str, dict[str, list[Change]]] = {folder: {} for folder in tensors}
    unfit = []
    for module, parts in modules.items():
        folder, name = _find(module, indices)
        text_scale = lora.scale if lora.text_scale is None else lora.text_scale
        made = _made(lora, module, parts, settings, lora.scale if folder == "unet" else text_scale)
        named = {f"{name}.{kind}": change for kind, change in made.items()}
        if folder and all(_fits(change, tensors[folder].get(path)) for path, change in named.items()):
            for path, change in named.items():
                _add(changes[folder].setdefault(path, []), change, f"{lora.file}: {path}")
        else:
            unfit.append(module)
    return changes, unfit


def _add(changes: list[Change], change: Change, where: str) -> None:
    changes.append(change)
    if len(changes) > 1 and any(one.magnitude is not None for one in changes):
        raise CheckpointError(f"{where}: expected one change of a weight whose norm a DoRA sets, got two")


def _made(
    lora: Lora, module: str, parts: Any, settings: Mapping[str, Any], scale: float
) -> dict[str, Change]:
    try:
        return make_changes(module, parts, settings, scale=scale)
    except CheckpointError as error:
        raise CheckpointError(f"{lora.file}: {error}") from error


def _find(module: str, indices: Mapping[str, Mapping[str, str]]) -> tuple[str, str]:
    folders, spelling = find_networks(module)
    for folder in folders:
        if folder in indices and spelling in indices[folder]:
            return folder, indices[folder][spelling]
    return "", ""


def _fits(change: Change, weight: LazyTensor | None) -> bool:
    """Whether the difference has the weight's elements, output channels and rest apart."""
    if weight is None or not weight.shape:
        return False
    shapes = {name: part.shape for name, part in change.parts.items()}
    rows, columns = _ROWS_AND_COLUMNS[change.kind](shapes) or (0, 0)
    size = (weight.shape[0], math.prod(weight.shape[1:]))
    magnitude = change.magnitude
    axis = 0 if change.by_output else 1
    return (rows, columns) == size and (
        magnitude is None or (len(weight.shape) > 1 and math.prod(magnitude.shape) == weight.shape[axis])
    )


Shapes = Mapping[str, tuple[int, ...]]


def _low_rank(shapes: Shapes) -> tuple[int, int] | None:
    up, down = shapes["up"], shapes["down"]
    if len(up) < 2 or len(down) < 2 or math.prod(up[1:]) != down[0]:
        return None
    if "mid" not in shapes:
        return up[0], math.prod(down[1:])
    mid = shapes["mid"]
    fits = len(mid) > 2 and mid[:2] == (up[1], down[0]) and math.prod(down[2:]) == 1
    return (up[0], down[1] * math.prod(mid[2:])) if fits else None


def _hadamard(shapes: Shapes) -> tuple[int, int] | None:
    sizes = {_product(shapes, which) for which in "12"}
    return sizes.pop() if len(sizes) == 1 else None


def _product(shapes: Shapes, which: str) -> tuple[int, int] | None:
    first, second = shapes[f"hada_w{which}_a"], shapes[f"hada_w{which}_b"]
    core = shapes.get(f"hada_t{which}")
    if len(first) != 2 or len(second) != 2:
        return None
    if core is None:
        return (first[0], second[1]) if first[1] == second[0] else None
    fits = len(core) > 2 and core[:2] == (first[0], second[0])
    return (first[1], second[1] * math.prod(core[2:])) if fits else None


def _kronecker(shapes: Shapes) -> tuple[int, int] | None:
    first, second = _kronecker_factor(shapes, "1"), _kronecker_factor(shapes, "2")
    if first is None or second is None or len(first) != 2:
        return None
    return first[0] * second[0], first[1] * math.prod(second[1:])


def _kronecker_factor(shapes: Shapes, which: str) -> tuple[int, ...] | None:
    whole, core = shapes.get(f"lokr_w{which}"), shapes.get(f"lokr_t{which}")
    if whole is not None:
        return whole if len(whole) >= 2 else None
    left, right = shapes.get(f"lokr_w{which}_a", ()), shapes.get(f"lokr_w{which}_b", ())
    if len(left) != 2 or len(right) < 2:
        return None
    if core is None:
        return (left[0], *right[1:]) if left[1] == right[0] else None
    fits = len(core) > 2 and core[:2] == (left[0], right[0]) and len(right) == 2
    return (left[1], right[1], *core[2:]) if fits else None


def _whole(shapes: Shapes) -> tuple[int, int] | None:
    shape = shapes["diff"]
    return (shape[0], math.prod(shape[1:])) if shape else None


_ROWS_AND_COLUMNS: Final[Mapping[str, Any]] = {
    "low rank": _low_rank,
    "LoHa": _hadamard,
    "LoKr": _kronecker,
    "difference": _whole,
}


def _misfit(
    lora: Lora, modules: Modules, strange: Sequence[str], checkpoint: Checkpoint
) -> WeightsMismatchError:
    keys = [f"{m}.{next(iter(modules[m]))}" for m in strange[:_SHOWN]]
    base = _base(modules)
    width = checkpoint.configs.get("unet", {}).get("cross_attention_dim")
    own = _BASES.get(width, "another base") if isinstance(width, int) else "another base"
    guess = f"; it is for {base}, the checkpoint is {own}" if base and base != own else ""
    return WeightsMismatchError(
        f"{lora.file}: expected a LoRA for {checkpoint.name}, got {len(strange)} of {len(modules)} modules "
        f"that it does not have in that shape: {', '.join(keys)}{guess}"
    )


def _base(modules: Modules) -> str | None:
    """The base that a LoRA was trained on, from the width of the text that its UNet attends to."""
    spellings: Collection[str] = modules.keys()
    for mark, base in (("double_blocks", "Flux"), ("joint_blocks", "Stable Diffusion 3")):
        if any(mark in module for module in spellings):
            return base
    for module, parts in modules.items():
        down = parts.get("down") or parts.get("hada_w1_b")
        if module.replace(".", "_").endswith("attn2_to_k") and down is not None and len(down.shape) >= 2:
            return _BASES.get(down.shape[1])
    return FAMILIES["sdxl"].title if any(module.startswith("lora_te2_") for module in spellings) else None

"""A LoRA file: its tensors by module, and for each module the change that they make."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from sd_convert.documents import read_json
from sd_convert.errors import CheckpointError, UnsupportedArchitectureError
from sd_convert.weights import LazyTensor, TensorEntry, open_weights

from .changes import Change
from .keys import split_name

Modules: TypeAlias = Mapping[str, Mapping[str, TensorEntry]]

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "low rank": ("up", "down"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "LoKr": (),
    "difference": ("diff",),
}


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA to merge. ``scale`` is for the UNet, and for the text encoders where ``text_scale`` is None."""

    file: Path
    scale: float = 1.0
    text_scale: float | None = None

    def __post_init__(self) -> None:
        """Refuse scales that are no numbers."""
        for scale in (self.scale, self.text_scale or 0.0):
            if not math.isfinite(scale):
                raise CheckpointError(f"{self.file}: expected a finite scale, got {scale}")


def read_modules(file: Path) -> Modules:
    """The tensors of a LoRA file by the module, as it spells it, and the part that each is.

    Raises:
        CheckpointError: the file is malformed.
        UnsupportedArchitectureError: a tensor of a kind that is not merged (OFT, GLoRA, ...), by name.
    """
    modules: defaultdict[str, dict[str, TensorEntry]] = defaultdict(dict)
    unknown = []
    for name, entry in open_weights([file]).entries.items():
        if (found := split_name(name)) is None:
            unknown.append(name)
        else:
            modules[found[0]][found[1]] = entry
    if unknown or not modules:
        raise UnsupportedArchitectureError(
            f"{file}: expected a LoRA (kohya, diffusers, PEFT; LoCon, LoHa, LoKr, DoRA), got "
            f"{len(unknown)} tensors of another kind: {', '.join(unknown[:4])}"
        )
    return modules


def read_alphas(file: Path) -> Mapping[str, Any]:
    """PEFT's settings, which say ``lora_alpha`` for all modules: in the metadata, or in a file beside it.

    Source: peft's ``LoraConfig``; diffusers keeps one for each network in the metadata.
    """
    metadata = open_weights([file]).metadata.get("lora_adapter_metadata")
    beside = file.with_name("adapter_config.json")
    if metadata is not None:
        try:
            content = json.loads(metadata)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise CheckpointError(f"{file}: expected JSON as lora_adapter_metadata, got {metadata:.80}")
        return content
    return read_json(beside) if beside.is_file() else {}


def make_changes(
    module: str, parts: Mapping[str, TensorEntry], settings: Mapping[str, Any], *, scale: float
) -> dict[str, Change]:
    """What ``parts`` do to the tensors of a module, by ``weight`` and ``bias``.

    Raises:
        CheckpointError: parts are missing, or alpha is not a number.
    """
    changes: dict[str, Change] = {}
    if "diff_b" in parts:
        changes["bias"] = Change("difference", {"diff": parts["diff_b"]}, 1.0, scale)
    kind = _kind(parts)
    if kind is None:
        if not changes:
            raise CheckpointError(f"{module}: expected the parts of a LoRA, got only {', '.join(parts)}")
        return changes
    missing = [part for part in _NEEDED[kind] if part not in parts]
    if missing:
        raise CheckpointError(f"{module}: expected {', '.join(missing)} of its {kind} LoRA, got none")
    own = {part: entry for part, entry in parts.items() if part in _own(kind, parts)}
    magnitude = parts.get("dora_scale") or parts.get("magnitude_vector")
    changes["weight"] = Change(
        kind,
        own,
        factor=_factor(module, kind, parts, settings),
        scale=scale,
        magnitude=magnitude,
        by_output="magnitude_vector" in parts or magnitude is None or _by_output(magnitude),
    )
    return changes


def _kind(parts: Mapping[str, LazyTensor]) -> str | None:
    if "up" in parts or "down" in parts:
        return "low rank"
    for kind, prefix in (("LoHa", "hada_"), ("LoKr", "lokr_"), ("difference", "diff")):
        if any(part.startswith(prefix) and part != "diff_b" for part in parts):
            return kind
    return None


def _own(kind: str, parts: Mapping[str, LazyTensor]) -> tuple[str, ...]:
    prefix = {"LoHa": "hada_", "LoKr": "lokr_"}.get(kind)
    return tuple(p for p in parts if p.startswith(prefix)) if prefix else ("up", "down", "mid", "diff")


def _by_output(magnitude: TensorEntry) -> bool:
    """LyCORIS writes (O, 1, ...) or, by default, (1, I, ...)."""
    return len(magnitude.shape) < 2 or magnitude.shape[0] != 1


def _factor(module: str, kind: str, parts: Mapping[str, TensorEntry], settings: Mapping[str, Any]) -> float:
    """alpha / rank; alpha is the rank where nothing says it."""
    rank = _rank(kind, parts)
    if rank is None:
        return 1.0
    alpha = _setting(module, settings, rank) if "alpha" not in parts else _scalar(module, parts["alpha"])
    if _flag(settings, "use_rslora"):
        return alpha / math.sqrt(rank)
    return alpha / rank


def _rank(kind: str, parts: Mapping[str, TensorEntry]) -> int | None:
    """None where the parts are whole, so that alpha means nothing."""
    names = {"low rank": ("down",), "LoHa": ("hada_w1_b",), "LoKr": ("lokr_w1_b", "lokr_w2_b")}.get(kind, ())
    for name in names:
        if name in parts and parts[name].shape:
            return max(1, parts[name].shape[0])
    return None


def _scalar(module: str, alpha: TensorEntry) -> float:
    value = np.asarray(alpha.read(), dtype=np.float64)
    if value.size != 1 or not np.isfinite(value).all():
        raise CheckpointError(f"{module}: expected one number as alpha, got {list(value.shape)}")
    return float(value.reshape(()))


def _setting(module: str, settings: Mapping[str, Any], rank: int) -> float:
    """``lora_alpha``, of the module's network or of all; ``alpha_pattern`` names modules that differ."""
    network = module.partition(".")[0]
    alpha = settings.get(f"{network}.lora_alpha", settings.get("lora_alpha", rank))
    pattern = settings.get(f"{network}.alpha_pattern", settings.get("alpha_pattern"))
    for name, value in pattern.items() if isinstance(pattern, dict) else ():
        if module == name or module.endswith(f".{name}"):
            alpha = value
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise CheckpointError(f"{module}: expected a number as lora_alpha, got {alpha!r:.80}")
    return float(alpha)


def _flag(settings: Mapping[str, Any], name: str) -> bool:
    return any(key.rpartition(".")[2] == name and value is True for key, value in settings.items())

"""A LoRA file: its tensors by module, and for each module the change that they make."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from sd_convert.checkpoint.documents import read_json
from sd_convert.checkpoint.tensors import LazyTensor, TensorEntry
from sd_convert.checkpoint.weights import open_weights
from sd_convert.errors import CheckpointError, UnsupportedArchitectureError

from .bundled import is_bundled
from .changes import Change
from .keys import split_name

Modules: TypeAlias = Mapping[str, Mapping[str, TensorEntry]]

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "low rank": ("up", "down"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "LoKr": (),
    "difference": ("diff",),
}


#: What peft's ``init_lora_weights`` starts with where the base weights are changed too.
_OTHER_BASES: Final = ("pissa", "olora", "corda", "loftq")

#: In one pattern; each multiplies the time of matching by the length of a name.
_MOST_REPETITIONS: Final = 3

#: A repetition of something that repeats, for which matching takes exponential time.
_NESTED_REPETITION: Final = re.compile(r"[+*}]\)*[+*{]|[+*}][^()]*\)[+*{]")


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

    Embeddings that the file brings along are left to :mod:`sd_convert.checkpoint.lora.bundled`.

    Raises:
        CheckpointError: the file is malformed, or has two adapters.
        UnsupportedArchitectureError: a tensor of a kind that is not merged (OFT, GLoRA, ...), by name.
    """
    modules: defaultdict[str, dict[str, TensorEntry]] = defaultdict(dict)
    unknown = []
    for name, entry in open_weights([file]).entries.items():
        if is_bundled(name):
            continue
        if (found := split_name(name)) is None:
            unknown.append(name)
        elif found[1] in modules[found[0]]:
            raise CheckpointError(
                f"{file}: expected one {found[1]!r} of module {found[0]}, got a second in {name}: "
                "a file of two adapters? save each in a file of its own"
            )
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
    content: Any = {}
    if metadata is not None:
        try:
            content = json.loads(metadata)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise CheckpointError(f"{file}: expected JSON as lora_adapter_metadata, got {metadata:.80}")
    else:
        content = dict(read_json(beside)) if beside.is_file() else {}
    _refuse_other_bases(file, content)
    return dict(content)


def _refuse_other_bases(file: Path, settings: Mapping[str, Any]) -> None:
    """Settings under which the same tensors mean another change.

    PiSSA and its like take a part of the weights away before training, which the file does not have.
    """
    for key, value in settings.items():
        name = key.rpartition(".")[2]
        started = str(value).lower().startswith(_OTHER_BASES)
        if (name == "init_lora_weights" and started) or (name == "fan_in_fan_out" and value is True):
            raise UnsupportedArchitectureError(
                f"{file}: expected a LoRA that is added to the weights, got {key} = {value!r:.40}; "
                "convert it to a plain one with peft (path_initial_model_for_weight_conversion)"
            )


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
    if _of_network(module, settings, "use_rslora", False) is True:
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
    value = alpha.number()
    if value is None or not math.isfinite(value):
        raise CheckpointError(f"{module}: expected one number as alpha, got {alpha.dtype}{list(alpha.shape)}")
    return value


def _setting(module: str, settings: Mapping[str, Any], rank: int) -> float:
    """``lora_alpha``, of the module's network or of all; ``alpha_pattern`` names modules that differ.

    Its keys are regular expressions, and the first that matches counts.
    Source: ``get_pattern_key`` in peft's utils/other.py.
    """
    alpha = _of_network(module, settings, "lora_alpha", rank)
    pattern = _of_network(module, settings, "alpha_pattern", {})
    inner = _inner(module)
    for key, value in pattern.items() if isinstance(pattern, dict) else ():
        if _matches(key, inner):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise CheckpointError(f"{module}: expected a number as lora_alpha, got {alpha!r:.80}")
    return float(alpha)


def _matches(key: str, module: str) -> bool:
    """Raises: CheckpointError when the key is no regular expression, or one that would take for ever."""
    repeats = max(len(re.findall(r"[*+{]", choice)) for choice in key.split("|"))
    try:
        if repeats > _MOST_REPETITIONS or _NESTED_REPETITION.search(key):
            raise ValueError("more repetitions than the name of a module takes")
        return re.match(rf"(.*\.)?({key})$", module) is not None
    except (ValueError, RecursionError, OverflowError, re.error) as error:
        raise CheckpointError(f"expected patterns in alpha_pattern, got {key!r:.80}: {error}") from error


def _of_network(module: str, settings: Mapping[str, Any], name: str, default: Any) -> Any:
    """A setting of the module's network, as diffusers keeps them apart, or of all."""
    network = module.partition(".")[0]
    return settings.get(f"{network}.{name}", settings.get(name, default))


def _inner(module: str) -> str:
    """The module as the network itself names it."""
    for prefix in ("base_model.model.", "unet.", "text_encoder_2.", "text_encoder."):
        module = module.removeprefix(prefix)
    return module

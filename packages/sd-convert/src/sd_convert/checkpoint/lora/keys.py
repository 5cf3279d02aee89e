"""The names in LoRA files: what each tensor is, and of which module of which network.

Modules are told by one spelling, with underscores for dots, because kohya's names have no dots to split at:
``lora_unet_mid_block_attentions_0_proj_in`` and ``unet.mid_block.attentions.0.proj_in`` are the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from sd_convert.checkpoint.single_file.blocks import diffusers_blocks, unet_table
from sd_convert.checkpoint.single_file.renaming import rename

_PARTS: Final = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"(?P<module>.+?)(?:_lora|\.lora|\.lora_linear_layer)\.(?P<part>down|up)\.weight",
        r"(?P<module>.+)\.lora_(?P<part>down|up|mid)\.weight",
        r"(?P<module>.+)\.lora_(?P<part>A|B)(?:\.\w+)?\.weight",
        r"(?P<module>.+)\.lora_(?P<part>magnitude_vector)(?:\.\w+)?",
        r"(?P<module>.+?)(?:_lora)?\.(?P<part>alpha|dora_scale|diff|diff_b|w_norm|b_norm)",
        r"(?P<module>.+)\.(?P<part>hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))",
    )
)
_SAME_PART: Final[Mapping[str, str]] = {"A": "down", "B": "up", "w_norm": "diff", "b_norm": "diff_b"}

#: In front of the spelling: the networks in which the rest is looked up, the longest first.
_PREFIXES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("lora_unet_", ("unet",)),
    ("lora_te1_", ("text_encoder",)),
    ("lora_te2_", ("text_encoder_2",)),
    ("lora_te_", ("text_encoder",)),
    ("text_encoder_2_", ("text_encoder_2",)),
    ("text_encoder_", ("text_encoder",)),
    ("base_model_model_", ("unet", "text_encoder", "text_encoder_2")),
    ("model_diffusion_model_", ("unet",)),
    ("diffusion_model_", ("unet",)),
    ("unet_", ("unet",)),
    ("", ("unet",)),
)
_OLD_ATTENTION: Final[Mapping[str, str]] = {
    "to_q": "q_proj",
    "to_k": "k_proj",
    "to_v": "v_proj",
    "to_out": "out_proj",
}


def split_name(name: str) -> tuple[str, str] | None:
    """The module, as the file spells it, and the part (``down``, ``up``, ``alpha``, ...); None if unknown.

    Example: ``split_name("unet.conv_in.lora_A.weight")`` is ``("unet.conv_in", "down")``.
    """
    for pattern in _PARTS:
        if match := pattern.fullmatch(name):
            return match["module"], _SAME_PART.get(match["part"], match["part"])
    return None


def find_networks(module: str) -> tuple[tuple[str, ...], str]:
    """The folders whose network a module may belong to, and its spelling in their index."""
    spelling = _spell(module.replace(".processor.", "."))
    for prefix, folders in _PREFIXES:
        if spelling.startswith(prefix):
            return folders, spelling.removeprefix(prefix)
    raise AssertionError("the last prefix is empty")


def index_modules(folder: str, names: Collection[str]) -> dict[str, str]:
    """Spellings of the modules of a network to their names, given the names of its tensors."""
    modules = dict.fromkeys(name.rpartition(".")[0] for name in names if "." in name)
    return _index_unet(modules, names) if folder == "unet" else _index_text(modules)


def _index_unet(modules: Iterable[str], names: Collection[str]) -> dict[str, str]:
    """diffusers' names and the original ones, which trainers of SDXL use."""
    original = {ours: theirs for theirs, ours in unet_table(diffusers_blocks(names)).items()}
    index: dict[str, str] = {}
    for module in modules:
        index[_spell(module)] = module
        if (theirs := rename(module, original)) is not None:
            index.setdefault(_spell(theirs), module)
        if module.endswith(".to_out.0"):
            index.setdefault(_spell(module.removesuffix(".0")), module)
    return index


def _index_text(modules: Iterable[str]) -> dict[str, str]:
    """With ``text_model`` in front whether the names have it or not.

    And with diffusers' old attention names.
    """
    index: dict[str, str] = {}
    for module in modules:
        inner = module.removeprefix("text_model.")
        full = inner if inner == "text_projection" else f"text_model.{inner}"
        index[_spell(full)] = module
        for old, new in _OLD_ATTENTION.items():
            if full.endswith(f".self_attn.{new}"):
                index[_spell(f"{full.removesuffix(new)}{old}")] = module
    return index


def _spell(module: str) -> str:
    return module.replace(".", "_")

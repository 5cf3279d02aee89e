"""Which of the weights files in a folder to read.

Names are ``<stem>[.VARIANT].safetensors`` or, sharded, ``<stem>.safetensors.index[.VARIANT].json`` beside the
shards that the index names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from sd_convert.errors import IncompleteCheckpointError, UnsafeWeightsError, VariantError

_STEM: Final = r"(?:diffusion_pytorch_model|model)"
_SHARD: Final = re.compile(rf"{_STEM}.*-\d{{5}}-of-\d{{5}}.*\.safetensors")


def _index(stem: str) -> tuple[str, str]:
    """Both places where the variant is written."""
    variant = r"(?:\.(?P<variant>[^.]+))?"
    return rf"{stem}\.safetensors\.index{variant}\.json", rf"{stem}{variant}\.safetensors\.index\.json"


#: The first that is there counts, as in the library that loads it: diffusers looks for an index before a
#: single file (``_get_checkpoint_shard_files`` in models/modeling_utils.py), transformers after it.
_NAMES: Final = tuple(
    re.compile(pattern)
    for pattern in (
        *_index("diffusion_pytorch_model"),
        rf"{_STEM}(?:\.(?P<variant>[^.]+))?\.safetensors",
        *_index("model"),
    )
)
_PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth")


def find_variants(names: Iterable[str]) -> dict[str, str]:
    """Variant to the file, or the index of the shards, that holds it; ``""`` is the one without a name."""
    variants: dict[str, str] = {}
    files = sorted(name for name in names if not _SHARD.fullmatch(name))
    for pattern in _NAMES:
        for name in files:
            if match := pattern.fullmatch(name):
                variants.setdefault(match["variant"] or "", name)
    return variants


def choose_variant(names: Iterable[str], *, variant: str | None, where: str) -> tuple[str, str]:
    """The variant to read and its file: the one asked for; else fp16, the unnamed one, or the only one.

    Example: ``choose_variant(["model.fp16.safetensors"], variant=None, where="unet")`` is
    ``("fp16", "model.fp16.safetensors")``.

    Raises:
        VariantError: not the variant asked for, or several and no rule to choose.
        UnsafeWeightsError: only pickles.
        IncompleteCheckpointError: no weights at all.
    """
    names = tuple(names)
    found = find_variants(names)
    if not found:
        raise _no_weights(names, where)
    if variant is not None:
        if variant not in found:
            raise VariantError(f"{where}: expected variant {_said(variant)}, got {_choices(found)}")
        return variant, found[variant]
    for preferred in ("fp16", "", *found) if len(found) == 1 else ("fp16", ""):
        if preferred in found:
            return preferred, found[preferred]
    raise VariantError(
        f"{where}: expected one variant of the weights, got {_choices(found)}; name one (variant=)"
    )


def _no_weights(names: tuple[str, ...], where: str) -> Exception:
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    if any(_SHARD.fullmatch(name) for name in names):
        return IncompleteCheckpointError(
            f"{where}: expected an index beside the shards, got none; download it again"
        )
    if any(name.endswith(".incomplete") for name in names):
        return IncompleteCheckpointError(
            f"{where}: the download of the weights was not finished; download it again"
        )
    if pickles:
        return UnsafeWeightsError(
            f"{where}: expected .safetensors weights, got only {', '.join(pickles)}, pickles, which run code "
            "when they are read; save the checkpoint again with safe_serialization=True"
        )
    return IncompleteCheckpointError(f"{where}: expected .safetensors weights, got none; download it again")


def _choices(found: Mapping[str, str]) -> str:
    return " and ".join(f"{_said(variant)} ({name})" for variant, name in sorted(found.items()))


def _said(variant: str) -> str:
    return repr(variant) if variant else "'' (no variant)"

"""Which file of a folder is which network, by the names that Apple's converter and Swift package have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sd_bundle import BundleError

#: Apple's name of a component in the middle of a file name (torch2coreml.py), by the ecosystem's.
_PACKAGE: Final = re.compile(
    r"Stable_Diffusion_version_(?P<model>.+)_(?P<network>text_encoder_2|text_encoder|control-unet|unet|refiner|"
    r"vae_decoder|vae_encoder|safety_checker)(_chunk(?P<chunk>[1-9][0-9]*))?\.(mlpackage|mlmodelc)"
)
#: The names that the Swift package loads (ResourceURLs in StableDiffusionPipeline+Resources.swift).
_RESOURCES: Final[Mapping[str, str]] = {
    "TextEncoder": "text_encoder",
    "TextEncoder2": "text_encoder_2",
    "Unet": "unet",
    "UnetRefiner": "refiner",
    "ControlledUnet": "control-unet",
    "VAEDecoder": "vae_decoder",
    "VAEEncoder": "vae_encoder",
    "SafetyChecker": "safety_checker",
}
_RESOURCE: Final = re.compile(rf"({'|'.join(_RESOURCES)})(?:Chunk([1-9][0-9]*))?\.(?:mlmodelc|mlpackage)")
_DEPTH: Final = 3  # of the Hub's trees: repository/split_einsum/compiled
_MOST_FOLDERS: Final = 1000


@dataclass(frozen=True, slots=True)
class Found:
    """The networks of a folder: for each, its package, or its chunks in order; and the model's name."""

    folder: Path
    model: str
    networks: Mapping[str, tuple[Path, ...]]

    @property
    def has_tokenizer(self) -> bool:
        """Whether the vocabulary lies beside the networks, as in Swift's ``Resources``."""
        return (self.folder / "vocab.json").is_file() and (self.folder / "merges.txt").is_file()


def is_foreign(folder: Path) -> bool:
    """Whether there is a network of one of the layouts in the folder or below it."""
    return folder.is_dir() and next(_candidates(folder), None) is not None


def find_networks(folder: str | Path) -> Found:
    """The networks of the one folder at or below ``folder`` that has some.

    Where a network is there whole and in chunks, the whole one is taken.

    Raises:
        BundleError: there is none, or several folders have some: give one of those; or a chunk is missing.
    """
    root = Path(folder)
    found = list(_candidates(root))
    if not found:
        raise BundleError(
            f"expected Stable_Diffusion_version_… packages, or TextEncoder.mlmodelc and its like, in {root}, "
            "got none"
        )
    if len(found) > 1:
        names = ", ".join(one.relative_to(root).as_posix() for one in found)
        raise BundleError(
            f"expected the networks of one model in {root}, got those of {names}: give one of them"
        )
    return _found(found[0])


def _candidates(folder: Path, depth: int = 0) -> Iterator[Path]:
    if any(_network(path.name) for path in _listing(folder)):
        yield folder
        return
    if depth < _DEPTH:
        for path in _listing(folder):
            if path.is_dir() and not path.is_symlink() and path.suffix not in (".mlpackage", ".mlmodelc"):
                yield from _candidates(path, depth + 1)


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:_MOST_FOLDERS]
    except OSError:
        return []


def _network(name: str) -> tuple[str, str, int] | None:
    """The model, the network and the number of the chunk (0 of a whole one) that a file name tells."""
    if match := _PACKAGE.fullmatch(name):
        return match["model"], match["network"], int(match["chunk"] or 0)
    if match := _RESOURCE.fullmatch(name):
        return "", _RESOURCES[match[1]], int(match[2] or 0)
    return None


def _found(folder: Path) -> Found:
    parts: dict[str, dict[int, Path]] = {}
    models = []
    for path in _listing(folder):
        if told := _network(path.name):
            model, network, chunk = told
            models.append(model)
            if chunk in parts.setdefault(network, {}):
                raise BundleError(
                    f"expected each network of {folder} once, got {network} again in {path.name}"
                )
            parts[network][chunk] = path
    different = sorted(set(filter(None, models)))
    if len(different) > 1:
        raise BundleError(
            f"expected one model in {folder}, got {', '.join(different)}: give each its own folder"
        )
    model = different[0] if different else _name_of(folder)
    return Found(folder, model, {network: _in_order(folder, network, one) for network, one in parts.items()})


def _in_order(folder: Path, network: str, parts: Mapping[int, Path]) -> tuple[Path, ...]:
    if 0 in parts:
        return (parts[0],)
    numbers = sorted(parts)
    if numbers != list(range(1, len(numbers) + 1)) or len(numbers) < 2:
        raise BundleError(f"{folder}: expected all chunks of {network} from 1 on, got {numbers}")
    return tuple(parts[number] for number in numbers)


def _name_of(folder: Path) -> str:
    """Of a repository's tree, the repository: the others are called alike in all."""
    generic = ("resources", "compiled", "packages", "original", "split_einsum", "split_einsum_v2")
    path = folder.resolve()
    while path.name.lower() in generic and path.parent != path:
        path = path.parent
    return path.name or "model"

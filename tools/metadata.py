"""What every package says about itself, in one place: authors, links, keywords, classifiers, licence.

    uv run python tools/metadata.py --write      after a change of the values below
    uv run python tools/metadata.py --check      that every pyproject.toml and LICENSE agree with them
    uv run python tools/metadata.py --release    also that a maintainer has set REPOSITORY and AUTHORS

Each ``pyproject.toml`` has the block between two comments, which this writes and nobody edits.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PLACEHOLDER: Final = "OWNER"

#: A maintainer sets these two before the first release; ``--release`` fails until then.
REPOSITORY: Final = f"https://github.com/{PLACEHOLDER}/sdc"
AUTHORS: Final = ("The sdc authors",)

_BEGIN: Final = "# shared: tools/metadata.py --write"
_END: Final = "# end of shared"
_BLOCK: Final = re.compile(rf"^{re.escape(_BEGIN)}\n.*?^{re.escape(_END)}\n", re.DOTALL | re.MULTILINE)
_COMMON: Final = (
    "Development Status :: 4 - Beta",
    "Intended Audience :: Developers",
    "Operating System :: MacOS",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3 :: Only",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Typing :: Typed",
)


@dataclass(frozen=True)
class Words:
    """What is said of one package: a sentence for strangers, words to search for, more classifiers."""

    description: str
    keywords: tuple[str, ...]
    classifiers: tuple[str, ...] = ()


#: By the folder of the package.
PACKAGES: Final = {
    "apps/sdc": Words(
        "Convert Stable Diffusion checkpoints to Core ML, prove the result, compress it and draw with it,"
        " on Linux or a Mac: the sdc command.",
        ("stable-diffusion", "coreml", "diffusers", "iphone", "mlpackage", "converter", "cli"),
        ("Environment :: Console", "Topic :: Multimedia :: Graphics"),
    ),
    "packages/sd-mil": Words(
        "Read, run, compare and lint Core ML models (.mlpackage, .mlmodelc) on any machine, without a Mac.",
        ("coreml", "mlpackage", "mlmodel", "interpreter", "debugging", "openvino", "pytest"),
        ("Topic :: Software Development :: Testing", "Framework :: Pytest"),
    ),
    "packages/sd-bundle": Words(
        "A strict folder format for Stable Diffusion models made of Core ML packages: reader and writer.",
        ("stable-diffusion", "coreml", "mlpackage", "manifest"),
    ),
    "packages/sd-tokenize": Words(
        "CLIP's tokenizer with the token ids of transformers: long prompts and textual inversion, no torch.",
        ("clip", "tokenizer", "stable-diffusion", "textual-inversion", "bpe"),
        ("Topic :: Text Processing",),
    ),
    "packages/sd-schedulers": Words(
        "The schedulers of Stable Diffusion (Euler, DPM-Solver++, UniPC, LCM, …) in numpy, without torch.",
        ("stable-diffusion", "diffusion", "scheduler", "sampler", "numpy"),
        ("Topic :: Scientific/Engineering :: Mathematics",),
    ),
    "packages/sd-attention": Words(
        "Exact attention rewrites for any torch Transformer: for the Neural Engine, a GPU or less memory.",
        ("attention", "transformer", "coreml", "neural-engine", "torch"),
    ),
    "packages/sd-runtime": Words(
        "Draw pictures with Stable Diffusion from Core ML packages, on Linux or a Mac, without torch.",
        ("stable-diffusion", "coreml", "text-to-image", "inference"),
        ("Topic :: Multimedia :: Graphics",),
    ),
    "packages/sd-compress": Words(
        "Palettize, quantize and prune Core ML packages on any machine, with the loss measured in dB.",
        ("coreml", "quantization", "palettization", "pruning", "compression", "mlpackage"),
    ),
    "packages/sd-convert": Words(
        "Convert Stable Diffusion checkpoints (diffusers, .safetensors, LoRA) to Core ML, and verify it.",
        ("stable-diffusion", "coreml", "converter", "diffusers", "safetensors", "lora"),
    ),
    "packages/sd-controlnet": Words(
        "ControlNets and adapters for Stable Diffusion on Core ML: conversion, hints, steering.",
        ("stable-diffusion", "controlnet", "coreml"),
        ("Topic :: Multimedia :: Graphics",),
    ),
}


class MetadataError(ValueError):
    """A ``pyproject.toml`` that the shared block does not fit into."""


def block(folder: str) -> str:
    """The shared lines of one package's ``[project]`` table."""
    words = PACKAGES[folder]
    authors = ", ".join(f'{{ name = "{author}" }}' for author in AUTHORS)
    links = {
        "Homepage": REPOSITORY,
        "Source": f"{REPOSITORY}/tree/main/{folder}",
        "Issues": f"{REPOSITORY}/issues",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
    }
    return "\n".join(
        (
            _BEGIN,
            f'description = "{words.description}"',
            'license = "MIT"',
            'license-files = ["LICENSE"]',
            f"authors = [{authors}]",
            f"keywords = [{', '.join(map(_quoted, words.keywords))}]",
            "classifiers = [",
            *(f"    {_quoted(line)}," for line in sorted({*_COMMON, *words.classifiers})),
            "]",
            *(f"urls.{name} = {_quoted(link)}" for name, link in links.items()),
            _END,
            "",
        )
    )


def _quoted(text: str) -> str:
    return f'"{text}"'


def rewritten(text: str, folder: str) -> str:
    """A ``pyproject.toml`` with its shared block as it should be.

    Raises:
        MetadataError: there is no such block.
    """
    if len(_BLOCK.findall(text)) != 1:
        raise MetadataError(
            f"{folder}/pyproject.toml: expected one block from {_BEGIN!r} to {_END!r}, got "
            f"{len(_BLOCK.findall(text))}; put the two lines into [project]"
        )
    return _BLOCK.sub(lambda _: block(folder), text)


def wanted(root: Path) -> dict[Path, str]:
    """Every file that this writes, and what it should hold."""
    files: dict[Path, str] = {}
    licence = (root / "LICENSE").read_text(encoding="utf-8")
    for folder in PACKAGES:
        project = root / folder / "pyproject.toml"
        files[project] = rewritten(project.read_text(encoding="utf-8"), folder)
        files[root / folder / "LICENSE"] = licence  # a wheel takes files of its own folder only
    return files


def stale(root: Path) -> list[Path]:
    """The files that are not as they should be, and members of the workspace that have no entry here."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    members = set(table["tool"]["uv"]["workspace"]["members"])
    files = [path for path, text in wanted(root).items() if not path.exists() or path.read_text() != text]
    return files + [root / folder for folder in sorted(members ^ PACKAGES.keys())]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Write, or say what differs; 1 where something does."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action = parser.add_mutually_exclusive_group(required=True)
    for name in ("--write", "--check", "--release"):
        action.add_argument(name, action="store_true")
    options = parser.parse_args(arguments)
    if options.write:
        for path, text in wanted(root).items():
            path.write_text(text, encoding="utf-8")
    differing = [
        f"{path.relative_to(root)}: not as tools/metadata.py has it (--write)" for path in stale(root)
    ]
    if options.release and PLACEHOLDER in REPOSITORY:
        differing.append(
            f"tools/metadata.py: expected the repository's address, got {REPOSITORY}; set REPOSITORY"
        )
    print("\n".join(differing), end="\n" if differing else "", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())

"""Every public name of every package and of its rooms: what a release promises to keep.

    uv run python tools/public_names.py            what came and what went since it was written down
    uv run python tools/public_names.py --write    write it down (tests/public_names.json)

A name that goes has to be deprecated first: CONTRIBUTING.md, Releases.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PINNED: Final = ROOT / "tests" / "public_names.json"
#: The front doors, and the rooms that others enter by their own.
MODULES: Final = (
    "sd_attention",
    "sd_attention.diffusers",
    "sd_attention.transformers",
    "sd_bundle",
    "sd_compress",
    "sd_compress.report",
    "sd_compress.training",
    "sd_controlnet",
    "sd_convert",
    "sd_mil",
    "sd_mil.analysis.lint",
    "sd_mil.engines",
    "sd_mil.format",
    "sd_mil.ir",
    "sd_mil.rewriting",
    "sd_mil.testing",
    "sd_runtime",
    "sd_runtime.tasks",
    "sd_schedulers",
    "sd_tokenize",
)


def source(module: str) -> Path:
    """The file of a module of this workspace."""
    package, *rooms = module.split(".")
    base = ROOT.joinpath("packages", package.replace("_", "-"), "src", package, *rooms)
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def names_of(text: str) -> list[str]:
    """``__all__`` of a module, sorted, or its functions and classes. Read, not run: torch is slow."""
    defined = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return sorted(ast.literal_eval(node.value))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            defined.append(node.name)
    return sorted(defined)


def public_names() -> dict[str, list[str]]:
    """The names of every module."""
    return {name: names_of(source(name).read_text(encoding="utf-8")) for name in MODULES}


def differences(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> list[str]:
    """One line for each name that went (``-``) or came (``+``)."""
    old, new = ({f"{m}.{n}" for m, names in side.items() for n in names} for side in (before, after))
    return [f"- {name}" for name in sorted(old - new)] + [f"+ {name}" for name in sorted(new - old)]


def main(arguments: Sequence[str] | None = None, pinned: Path = PINNED) -> int:
    """Print the differences; 1 where there are any and they are not written down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    names = public_names()
    before = json.loads(pinned.read_text()) if pinned.exists() else {}
    lines = differences(before, names)
    print("\n".join(lines), end="\n" if lines else "")
    if options.write:
        pinned.write_text(json.dumps(names, indent=1) + "\n")
        return 0
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())

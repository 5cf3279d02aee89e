"""Print how long files and functions are: a number to look at, not a gate.

uv run python tools/size.py
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Name and number of lines, docstring left out, of every function."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield node.name, lines - (docstring.count("\n") + 1 if docstring else 0)


def main() -> None:
    """One row for each package, then the longest rooms."""
    longest: list[tuple[int, str]] = []
    print(f"{'package':16} {'files':>5} {'lines':>6}  file med/max   function med/p90/max")
    for source in sorted([*ROOT.glob("packages/*/src/*"), *ROOT.glob("apps/*/src/*")]):
        files, lengths = [], []
        for path in sorted(source.rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            files.append(text.count("\n"))
            for name, lines in functions(ast.parse(text)):
                lengths.append(lines)
                longest.append((lines, f"{path.relative_to(ROOT)}: {name}"))
        if not lengths:
            continue
        ninety = sorted(lengths)[int(0.9 * (len(lengths) - 1))]
        print(
            f"{source.name:16} {len(files):5} {sum(files):6}  {statistics.median(files):5.0f}/{max(files):<6}"
            f"  {statistics.median(lengths):5.0f}/{ninety}/{max(lengths)}"
        )
    for lines, name in sorted(longest, reverse=True)[:5]:
        print(f"{lines:4} {name}")


if __name__ == "__main__":
    main()

"""The pages of the reference: every public name under the module that users import it from.

Docstrings are rendered by mkdocstrings, which wants to know where a name is defined: that is read from the
sources, as are the ``#:`` comments of constants. Nothing is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from public_names import names_of, source


@dataclass(frozen=True)
class Origin:
    """Where a name is defined, and for a constant what the comment above it says."""

    module: str
    name: str
    comment: str = ""

    @property
    def path(self) -> str:
        """``sd_mil.predict.model.MLModel``."""
        return f"{self.module}.{self.name}"


@cache
def _file(module: str) -> tuple[str, Path, ast.Module]:
    path = source(module)
    text = path.read_text(encoding="utf-8")
    return text, path, ast.parse(text)


@cache
def origin(module: str, name: str) -> Origin:
    """Follow ``from … import name`` to where it is defined.

    Raises:
        LookupError: the module has no such name.
    """
    text, path, tree = _file(module)
    for node in _statements(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return origin(_absolute(module, path, node), alias.name)
        elif name in _defined(node):
            constant = isinstance(node, ast.Assign | ast.AnnAssign)
            return Origin(module, name, _comment(text, node.lineno) if constant else "")
    raise LookupError(f"expected a definition of {name!r} in {module}, got none")


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """What stands at the top of a module, and there under ``if TYPE_CHECKING``."""
    for node in tree.body:
        yield from node.body if isinstance(node, ast.If) else [node]


def _absolute(module: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - node.level + (path.name == "__init__.py")]
    return ".".join([*base, *filter(None, [node.module])])


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    yield from (target.id for target in targets if isinstance(target, ast.Name))


def _comment(text: str, line: int) -> str:
    found: list[str] = []
    for above in reversed(text.splitlines()[: line - 1]):
        if not above.startswith("#:"):
            break
        found.insert(0, above[2:].strip())
    return " ".join(found)


def home(names: Mapping[str, list[str]]) -> dict[str, str]:
    """For every definition the module that documents it: of its own package, the front door first."""
    homes: dict[str, str] = {}
    for module in sorted(names, key=lambda name: (name.count("."), name)):
        for name in names[module]:
            found = origin(module, name)
            if found.module.partition(".")[0] == module.partition(".")[0]:
                homes.setdefault(found.path, module)
    return homes


def pages(modules: tuple[str, ...]) -> dict[str, str]:
    """The text of each module's page."""
    names = {module: names_of(_file(module)[0]) for module in modules}
    homes = home(names)
    return {module: _page(module, names[module], homes) for module in modules}


def _page(module: str, names: list[str], homes: Mapping[str, str]) -> str:
    introduction = ast.get_docstring(_file(module)[2]) or ""
    paragraph = introduction.partition("\n\n")[0]
    elsewhere, parts = [], [f"# {module}", paragraph]
    for name in names:
        found = origin(module, name)
        owner = homes[found.path]
        if owner != module:
            elsewhere.append(f"[`{name}`]({owner}.md#{found.path})")
            continue
        parts.append(f"::: {found.path}\n    options:\n      show_root_heading: true\n")
        said = found.comment if name == found.name else f"Imported as `{name}`. {found.comment}"
        parts += [said] if said else []
    if elsewhere:
        parts.append(f"## From elsewhere\n\nAlso importable from here: {', '.join(elsewhere)}.")
    return "\n\n".join(part for part in parts if part) + "\n"

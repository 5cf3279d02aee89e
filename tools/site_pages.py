"""A hook of mkdocs: pages that are made from the code, or that lie beside it.

The reference has a page for each public module (``reference.py``); formats, operations and the changelog are
the repository's own files, shown where they are read, so that there is one copy of each.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT: Final = Path(__file__).resolve().parent.parent
#: Where a file of the repository is read on the site, with its title in the menu.
DOCUMENTS: Final = {
    "packages/sd-bundle/FORMAT.md": ("formats/bundle.md", "The bundle"),
    "packages/sd-mil/docs/ops.md": ("formats/operations.md", "Operations and engines"),
    "packages/sd-mil/docs/compiled.md": ("formats/compiled.md", "Compiled models"),
    "packages/sd-attention/docs/coreml.md": ("guides/from-torch.md", "From torch to a verified package"),
    "action/README.md": ("guides/action.md", "A GitHub Action"),
    "CHANGELOG.md": ("changelog.md", "Changelog"),
    "SECURITY.md": ("security.md", "Security"),
    "CONTRIBUTING.md": ("contributing.md", "Contributing"),
}
#: Sections of a document that are pages: path, title, document, its heading.
SECTIONS: Final = (
    ("apple.md", "Coming from Apple's converter", "README.md", "Coming from Apple's ml-stable-diffusion"),
    ("checked.md", "What was checked on a Mac", "README.md", "What was run, and what was not"),
)
_LINK: Final = re.compile(r"\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")
#: Roles that our docstrings have for other tools: the name is enough.
_ROLE: Final = re.compile(r":(?:class|func|meth|data|mod|attr|exc):(?=<code>)")


def section(text: str, heading: str) -> str:
    """What stands below a heading of the second level, to the next one.

    Raises:
        ValueError: there is no such heading.
    """
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"expected a heading '## {heading}', got none")
    return found[1].strip() + "\n"


def relinked(text: str, source: str, documents: dict[str, tuple[str, str]]) -> str:
    """Links between the repository's files as links between pages; those to what is no page lose theirs."""
    here = posixpath.dirname(source)
    place = posixpath.dirname(documents[source][0])

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, match[1]))
        if target not in documents:
            return f"]({_repository()}/blob/main/{target})"
        return f"]({posixpath.relpath(documents[target][0], place)}{match[2] or ''})"

    return _LINK.sub(link, text)


def _repository() -> str:
    sys.path.insert(0, str(ROOT / "tools"))
    from metadata import REPOSITORY

    return REPOSITORY


def pages() -> dict[str, tuple[str, str]]:
    """Every page that is made: its path, title and text."""
    sys.path.insert(0, str(ROOT / "tools"))
    from public_names import MODULES
    from reference import pages as reference_pages

    made = {f"reference/{name}.md": (name, text) for name, text in reference_pages(MODULES).items()}
    for path, title, source, heading in SECTIONS:
        text = section((ROOT / source).read_text(encoding="utf-8"), heading)
        made[path] = (title, f"# {title}\n\n{relinked(text, source, {**DOCUMENTS, source: (path, title)})}")
    for source, (path, title) in DOCUMENTS.items():
        made[path] = (title, relinked((ROOT / source).read_text(encoding="utf-8"), source, DOCUMENTS))
    return made


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the made pages into the menu."""
    made: dict[str, list[dict[str, str]]] = {}
    in_menu = {path for path, *_ in SECTIONS}
    for path, (title, _) in pages().items():
        if path in in_menu:
            continue
        made.setdefault(posixpath.dirname(path), []).append({title: path})
    nav: list[Any] = list(config.nav or [])
    for entry in nav:
        if "Guides" in entry:
            entry["Guides"] = [*entry["Guides"], *made["guides"]]
    nav += [{"Reference": made["reference"]}, {"Formats": made["formats"]}, {"The project": made[""]}]
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the made pages."""
    from mkdocs.structure.files import File

    for path, (_, text) in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Roles of docstrings go."""
    return _ROLE.sub("", html)

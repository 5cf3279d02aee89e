"""What holds between the packages: cheap imports, front doors, one version."""

import ast
import importlib
import itertools
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("packages/*/src/sd_*"), *ROOT.glob("apps/*/src/*")])
PACKAGES = [source.name for source in SOURCES]
HEAVY = {"torch", "diffusers", "transformers", "coremltools", "openvino", "scipy", "sklearn"}
#: What is slow to import for what it gives. Torch brings it; converting reads other packages' versions.
SLOW = {"email", "socket", "importlib.metadata", "asyncio", "unittest", "xml", "http", "urllib.request"}
#: What else the front doors do not bring, which are entered before anything is asked for.
DOORS = {
    "sd_runtime": {"numpy", "PIL", "sd_mil", "sd_schedulers", "sd_tokenize"},
    "sdc": {"numpy", "sd_runtime"},
}
LIGHT_COMMAND = (
    "import sys, json, logging; import {name}; "
    "print(json.dumps([sorted(set(sys.modules) & set({heavy!r})), logging.root.handlers != []]))"
)


def test_every_package_is_here():
    members = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]
    assert sorted(PACKAGES) == sorted(Path(member).name.replace("-", "_") for member in members)


@pytest.mark.parametrize("name", PACKAGES)
def test_importing_does_nothing(name):
    heavy = HEAVY | DOORS.get(name, set()) | (set() if name in ("sd_attention", "sd_convert") else SLOW)
    command = LIGHT_COMMAND.format(name="sdc.cli" if name == "sdc" else name, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    loaded, logs = json.loads(done.stdout)
    assert set(loaded) <= ({"torch"} if name == "sd_attention" else set())
    assert not logs
    assert done.stderr == ""


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != "sdc"])
def test_front_door_is_complete(name):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__) > 0
    assert all(hasattr(module, public) for public in module.__all__)


def test_names_that_come_when_asked_for_are_those_that_types_see():
    """``sd_runtime`` says twice where a name lives: to type checkers, and to ``__getattr__``."""
    module = importlib.import_module("sd_runtime")
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    (typed,) = (node.body for node in tree.body if isinstance(node, ast.If))
    rooms = {alias.name: node.module for node in typed for alias in node.names}
    assert rooms == {name: f"sd_runtime.{room}" for name, room in module._ROOMS.items()}
    assert set(rooms) <= set(module.__all__) == set(dir(module))
    assert all(getattr(module, name) is vars(importlib.import_module(rooms[name]))[name] for name in rooms)
    with pytest.raises(AttributeError, match="module 'sd_runtime' has no attribute 'no_such'"):
        module.no_such  # noqa: B018


def imports_of(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


#: Rooms of a package that others enter too, by their own front doors.
ROOMS = {
    "sd_mil": {"analysis.lint", "ir", "format", "constexpr", "rewriting", "engines", "testing"},
    "sd_bundle": {"drafts"},
    "sd_compress": {"report"},
    "sd_controlnet": {"conversion"},
    "sd_runtime": {"tasks"},
}


@pytest.mark.parametrize("source", SOURCES, ids=PACKAGES)
def test_siblings_are_entered_by_a_front_door(source):
    for path in source.rglob("*.py"):
        for module in imports_of(path):
            package, _, inner = module.partition(".")
            if package in PACKAGES and package != source.name and inner:
                assert inner in ROOMS.get(package, ()), f"{path.relative_to(ROOT)} imports {module}"


def modules_of(source: Path) -> dict[str, Path]:
    """Every module of a package, by its name."""
    names = {}
    for path in source.rglob("*.py"):
        parts = path.relative_to(source.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported(name: str, path: Path, known: set[str]) -> set[str]:
    """The modules of the same package that a module imports, at whatever moment; types alone do not count."""
    found = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    pending = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level])
            base = ".".join(filter(None, (above if node.level else "", node.module)))
            found |= {
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names
            }
    return found & known - {name}


def circles(edges: dict[str, set[str]]) -> list[str]:
    """What is left when modules that import nothing of the rest are taken away, again and again."""
    rest = dict(edges)
    while leaves := [name for name, targets in rest.items() if not targets & rest.keys()]:
        for name in leaves:
            del rest[name]
    return sorted(rest)


@pytest.mark.parametrize("source", SOURCES, ids=PACKAGES)
def test_imports_go_in_no_circle(source):
    modules = modules_of(source)
    assert circles({name: imported(name, path, set(modules)) for name, path in modules.items()}) == []


def test_a_circle_is_seen(tmp_path):
    (tmp_path / "a.py").write_text("def late():\n    from p.b import x\n")
    (tmp_path / "b.py").write_text("from .a import late\nimport p.c\n")
    edges = {f"p.{one}": imported(f"p.{one}", tmp_path / f"{one}.py", {"p.a", "p.b", "p.c"}) for one in "ab"}
    assert circles({**edges, "p.c": set()}) == ["p.a", "p.b"]


def projects():
    for source in SOURCES:
        yield tomllib.loads((source.parent.parent / "pyproject.toml").read_text())["project"]


def test_versions_move_together():
    versions = {project["version"] for project in projects()}
    assert len(versions) == 1
    major, minor, _ = versions.pop().split(".")
    wanted = f">={major}.{minor}.0,<{major}.{int(minor) + 1}"
    for project in projects():
        extras = project.get("optional-dependencies", {}).values()
        for requirement in itertools.chain(project["dependencies"], *extras):
            if requirement.startswith("sd-"):
                assert wanted in requirement, f"{project['name']}: {requirement}"


#: What comes with something that is declared, or is there whenever the importing code runs.
UNDECLARED = {
    "sd_compress": {"markupsafe"},  # jinja2's own
    "sd_mil": {"PIL", "pytest"},  # where pictures are given; for the plugin of pytest
}


def distribution(requirement):
    """Its name, as indices compare names."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


@cache
def declared(name):
    """Names of all that a package of this workspace, and those that it builds on, say they need."""
    homes = {distribution(project["name"]): project for project in projects()}
    project = homes[name]
    extras = project.get("optional-dependencies", {}).values()
    direct = {distribution(each) for each in itertools.chain(project["dependencies"], *extras)}
    return direct.union({name}, *(declared(each) for each in direct & homes.keys() - {name}))


def run_imports(node):
    """Modules that are imported when the code runs, wherever in it."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        children = node.orelse
    else:
        children = ast.iter_child_nodes(node)
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield node.module
    for child in children:
        yield from run_imports(child)


def undeclared(source, names):
    """Top-level modules that ``source`` imports, of which none of ``names`` is the distribution."""
    found = {
        module.partition(".")[0]
        for file in source.rglob("*.py")
        for module in run_imports(ast.parse(file.read_text(encoding="utf-8")))
    }
    homes = packages_distributions()
    return {
        module
        for module in found - sys.stdlib_module_names - {source.name}
        if not names & {distribution(home) for home in homes.get(module, [module])}
    }


@pytest.mark.parametrize("source", SOURCES, ids=PACKAGES)
def test_what_is_imported_is_declared(source):
    project = tomllib.loads((source.parent.parent / "pyproject.toml").read_text())["project"]
    names = declared(distribution(project["name"]))
    assert undeclared(source, names) == UNDECLARED.get(source.name, set())


def test_what_is_not_declared_is_seen(tmp_path):
    (tmp_path / "some.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
        "def f():\n    import os.path, numpy.random, PIL.Image\n    from . import other\n"
    )
    assert undeclared(tmp_path, {"numpy"}) == {"PIL"}


@pytest.mark.parametrize("source", SOURCES, ids=PACKAGES)
def test_each_package_is_whole(source):
    home = source.parent.parent
    assert (source / "py.typed").exists()
    assert list((home / "tests").glob("test_*.py"))
    assert len((home / "README.md").read_text(encoding="utf-8").splitlines()) < 80

"""Settings of all test processes, before torch is imported: here is before everything."""

import dataclasses
import hashlib
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

# Its networks are so small that threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Many tests start a process that imports torch: without bytecode, each compiles thousands of modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

with suppress(ImportError):  # not in every environment
    from hypothesis import settings

    settings.register_profile("here", deadline=None)  # on any machine, however slow
    settings.load_profile("here")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--one-of-each``, for what a package's environment may lack: see tools/isolation.py."""
    parser.addoption(
        "--one-of-each", action="store_true", help="of each test's sets of parameters, the first"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Honour ``--one-of-each``."""
    if config.getoption("one_of_each"):
        first: dict[str, pytest.Item] = {}
        for item in items:
            first.setdefault(item.nodeid.partition("[")[0], item)
        chosen = set(first.values())
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = first.values()


@pytest.fixture(scope="session")
def at_most() -> Callable[[int], AbstractContextManager[None]]:
    """``with at_most(calls)``: more calls of functions than that fail the test, on any machine alike."""

    @contextmanager
    def bounded(calls: int) -> Iterator[None]:
        made = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")
            if made > calls:
                sys.setprofile(None)
                pytest.fail(f"expected at most {calls} calls")  # no Exception: nobody catches it on the way

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            yield
        finally:
            sys.setprofile(before)

    return bounded


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of this run share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _caches_of_this_run(shared_folder: Path) -> Iterator[None]:
    """Nothing is found in the caches of whoever runs the tests, or left there."""
    with pytest.MonkeyPatch.context() as patch:
        # the variables, not patched functions: a test of the caches sets its own over them
        patch.setenv("XDG_CACHE_HOME", str(shared_folder))
        yield


@pytest.fixture(scope="session")
def lowered_once(shared_folder: Path) -> Any:
    """The cache of conversions of this run: each architecture is traced and lowered by the first who asks.

    That a conversion with it is the one without is held by sd-convert's own tests of it, which each have
    another.
    """
    from sd_convert import ConversionCache

    return ConversionCache(shared_folder / "sdc" / "conversion")


@pytest.fixture(scope="session")
def remembered() -> Iterator[Callable[[Path], None]]:
    """A bundle's packages are read once for the session, and compiled once, wherever a test copies them to.

    What a test changes in its copy is another package. The bundle itself must stay as it is.
    """
    from sd_mil.engines.openvino import compiled
    from sd_mil.format import package

    read, compile_program = package._read, compiled.compile_program
    packages: dict[str, Any] = {}
    sizes: set[frozenset[tuple[str, int]]] = set()
    networks: OrderedDict[tuple[int, str], Any] = OrderedDict()

    def remembering(root: Path) -> Any:
        found = packages.get(_digest(root)) if root.is_dir() and _sizes(root) in sizes else None
        return read(root) if found is None else dataclasses.replace(found, path=str(root))

    def compiling(program: Any, *, precision: str = "fp32") -> Any:
        key = id(program.main.body), precision
        if key in networks:
            networks.move_to_end(key)
            return networks[key]
        made = compile_program(program, precision=precision)
        bodies = (each.body for one in packages.values() for each in one.program.functions.values())
        if any(each is program.main.body for each in bodies):
            networks[key] = made
            if len(networks) > 24:
                networks.popitem(last=False)
        return made

    def remember(bundle: Path) -> None:
        for root in bundle.glob("*.mlpackage"):
            packages.setdefault(_digest(root), package.read_package(root))
            sizes.add(_sizes(root))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "_read", remembering)
        patch.setattr(compiled, "compile_program", compiling)
        yield remember


def _sizes(folder: Path) -> frozenset[tuple[str, int]]:
    """Of all files below it: what has others is not read."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return frozenset((str(file.relative_to(folder)), file.stat().st_size) for file in files)


def _digest(folder: Path) -> str:
    """Of all files below it, and where they lie."""
    whole = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            whole.update(str(file.relative_to(folder)).encode() + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()

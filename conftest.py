"""Settings of all test processes, before torch is imported: here is before everything."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Its networks are so small that threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Many tests start a process that imports torch: without bytecode, each compiles thousands of modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


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

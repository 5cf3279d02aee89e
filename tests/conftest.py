"""The demo checkpoint and its bundle, once a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoint() -> Iterator[Path]:
    from sdc.demo.shipped import demo_checkpoint

    with demo_checkpoint() as folder:
        yield folder


@pytest.fixture(scope="session")
def bundle(checkpoint, tmp_path_factory, lowered_once, remembered) -> Path:
    from sd_convert import convert, open_checkpoint

    path = tmp_path_factory.mktemp("demo") / "bundle"
    convert(open_checkpoint(checkpoint), path, cache=lowered_once)
    remembered(path)
    return path

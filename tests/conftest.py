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
def bundle(checkpoint, tmp_path_factory) -> Path:
    from sd_convert import Checkpoint, convert

    path = tmp_path_factory.mktemp("demo") / "bundle"
    convert(Checkpoint.open(checkpoint), path)
    return path

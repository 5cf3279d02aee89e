"""The command line as a function, and one bundle for the whole session; makes ``mil_models`` importable."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sdc.cli import main
from sdc.demo.shipped import demo_checkpoint

sys.path.insert(0, str(Path(__file__).parent))


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


@pytest.fixture
def sdc(monkeypatch, capsys) -> Callable[..., Done]:
    """Run ``sdc ARGUMENTS`` in this process."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["sdc", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return Done(int(exit_.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def checkpoint() -> Iterator[Path]:
    with demo_checkpoint() as folder:
        yield folder


@pytest.fixture(scope="session")
def converted(checkpoint, tmp_path_factory, lowered_once, remembered) -> Path:
    from sd_convert import convert, open_checkpoint

    bundle = tmp_path_factory.mktemp("converted") / "bundle"
    convert(open_checkpoint(checkpoint), bundle, cache=lowered_once)
    remembered(bundle)
    return bundle


@pytest.fixture
def bundle(converted, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(converted, tmp_path / "bundle"))

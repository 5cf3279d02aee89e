"""``sdc cache``."""

from __future__ import annotations

from pathlib import Path

import pytest
import sd_convert.cache
from click.testing import CliRunner
from sd_convert import ConversionCache
from sdc.cli import cli


def test_it_shows_and_clears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path)
    cache = ConversionCache()
    assert cache.folder == tmp_path / "conversion"
    cache.write("key", b"content")
    for arguments, said in (([], "has 1 entries"), (["--clear"], "removed 1 entries"), ([], "has 0 entries")):
        result = CliRunner().invoke(cli, ["cache", *arguments])
        assert result.exit_code == 0
        assert said in result.output
    assert sd_convert.cache.default_folder() == cache.folder

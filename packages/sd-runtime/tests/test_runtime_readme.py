"""The block in the README runs, on toy networks."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sd_runtime import Pipeline, read_settings

README = Path(__file__).resolve().parents[1] / "README.md"


def test_readme_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    toy_pipeline: Callable[..., Pipeline],
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Callable[..., None]] = {}
    exec(compile(block, str(README), "exec"), names)  # noqa: S102
    toy = toy_pipeline()
    monkeypatch.setattr(Pipeline, "open", lambda path: toy if path == "my-bundle" else None)
    monkeypatch.chdir(tmp_path)
    names["draw"]("my-bundle", "a b")
    assert {"one.png", "93.png", "94.png"} <= set(os.listdir(tmp_path))
    assert read_settings("94.png").negative_prompt == "blurry"
    assert capsys.readouterr().out.splitlines()[-1] == "20/20"

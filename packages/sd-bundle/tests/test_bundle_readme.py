"""The block in the README runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


def test_readme_runs(
    tmp_path: Path, write_bundle: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Callable[..., object]] = {}
    exec(compile(block, str(README), "exec"), names)  # noqa: S102
    write_bundle(tmp_path / "bundle")
    names["describe"](tmp_path / "bundle")
    assert capsys.readouterr().out.splitlines() == [
        "org/tiny: text-to-image, 64x64 pixels",
        "Stable_Diffusion_version_org_tiny_unet.mlpackage: sample: float16[2, 4, 8, 8]",
    ]

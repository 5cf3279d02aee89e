"""The README's block runs as it stands; importing the package stays cheap."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import sd_convert

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_block_converts_and_proves(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)  # noqa: S102 - the README is ours
    names["convert_and_prove"](str(tiny), str(tmp_path / "bundle"))  # type: ignore[operator]
    printed = capsys.readouterr().out
    assert "Stable_Diffusion_version_tiny_unet.mlpackage" in printed
    assert re.search(r"unet\.noise_pred: \d\d+ dB", printed)


def test_import_loads_no_heavy_library_and_says_nothing() -> None:
    code = (
        "import sys, sd_convert\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'coremltools', 'huggingface_hub', 'openvino'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_front_door_has_what_it_lists() -> None:
    assert len(set(sd_convert.__all__)) == len(sd_convert.__all__)
    assert all(hasattr(sd_convert, name) for name in sd_convert.__all__)

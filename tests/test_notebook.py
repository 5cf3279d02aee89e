"""The notebook runs from top to bottom, cell by cell, on the demo model and without the network."""

import ast
import json
import shlex
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "notebook.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def shell(line):
    """``!sdc …``, in this process."""
    from sdc.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code, line


def value(text, namespace):
    """Run a cell; what its last line is worth, if that is an expression, as Jupyter shows it."""
    tree = ast.parse(text)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), namespace)  # noqa: S102
    return None if last is None else eval(compile(last, str(NOTEBOOK), "eval"), namespace)  # noqa: S307


def test_every_cell_runs(tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    namespace, shown = {"__name__": "__main__"}, []
    for cell in CELLS:
        text = source(cell).replace("num_inference_steps=10", "num_inference_steps=2")
        if cell["cell_type"] != "code" or text.startswith("%pip install"):
            continue
        if text.startswith("!sdc "):
            shell(text.removeprefix("!"))
        else:
            shown.append(value(text, namespace))
    images = [one for one in shown if isinstance(one, Image.Image)]
    assert [image.size for image in images] == [(256, 128), (256, 384)]
    assert all(len(image.getcolors(1 << 16) or range(99)) > 10 for image in images)
    assert "unet" in capsys.readouterr().out


def test_it_is_a_notebook_without_what_running_leaves():
    whole = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (whole["nbformat"], whole["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    for cell in CELLS:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)

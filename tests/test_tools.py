"""Every file under ``tools/`` runs, here on tiny input; what it measures is not looked at."""

import contextlib
import importlib.util
import io
import json
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import apart
import figure
import pytest
import results

pytest.importorskip("torch")
pytest.importorskip("openvino")

TOOLS = Path(__file__).resolve().parent.parent / "tools"
ELSEWHERE = {
    "fuzz_engines",  # test_fuzz_tool
    "op_table",  # test_op_table
    "canary",  # test_canary
    "reference",  # these two: test_documentation
    "site_pages",
    "metadata",  # these three: test_release
    "public_names",
    "wheels",
    "isolation",  # installs every package; .ci/run runs it
    "bench_checkpoint",  # the two that take a checkpoint make it
    "rivals",  # compression_report, and test_rivals
    "bench_packages",  # bench_engine makes its compressed packages with it
    "fuzz_models",  # what fuzz_mil fuzzes
    "results",  # what bench_convert and bench_engine write, and figure reads
    "apart",  # how the benchmarks start their processes: test_apart
}
SMALL_ATTENTION = ["--tokens", "16", "--heads", "2", "--head-dim", "4", "--repeats", "1", "--chunk-size", "8"]


def run(name, *arguments):
    return apart.python(TOOLS / f"{name}.py", *arguments).printed


def python_here(*arguments, environment=None, quiet=False):
    """In place of ``apart.python``: here, where what the tools import is imported already."""
    start, *rest = map(str, arguments)
    takes_one = start in ("-m", "-c")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [start, *rest[takes_one:]])
        for variable, value in (environment or {}).items():
            patch.setenv(variable, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if start == "-c":
                    exec(compile(rest[0], "-c", "exec"), {"__name__": "__main__"})  # noqa: S102
                elif start == "-m":
                    runpy.run_module(rest[0], run_name="__main__")
                else:
                    runpy.run_path(start, run_name="__main__")
            except SystemExit as ended:
                if ended.code:
                    raise apart.ProcessError(f"{start}: {ended.code}") from None
    return apart.Measured(0.5, 0.5, printed.getvalue())


measured_apart = apart.python


def test_a_process_is_measured():
    measured = measured_apart(
        "-c", "import os; bytes(10**8); print(os.environ['SIZE'])", environment={"SIZE": "4"}
    )
    assert measured.printed == "4\n"
    assert measured.seconds > 0
    assert 0.1 < measured.peak < 100  # Linux counts what this process holds, too: see apart
    with pytest.raises(apart.ProcessError, match="exited with 3"):
        measured_apart("-c", "raise SystemExit(3)")


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr(apart, "python", python_here)


def test_attention():
    lines = run("bench_attention", *SMALL_ATTENTION).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["torch", "ORIGINAL"]


def test_conversion_and_a_figure_of_it(tmp_path):
    written = tmp_path / "convert.json"
    said = run("bench_convert", "--model", "tiny", "--components", "unet", "--json", written)
    assert "sdc convert, a new program (tiny, unet): " in said
    assert "sdc convert again: " in said
    found = results.read(written)
    assert [row.name for row in found.rows] == [
        "sdc convert, a new program",
        "sdc convert",
        "sdc convert, again",
    ]
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for picture in pictures:
        run("figure", written, "-o", picture)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    text = "".join(ElementTree.parse(pictures[0]).getroot().itertext())  # noqa: S314 - our own
    assert "Convert a tiny model (unet)" in text
    assert text.count("0.5 s") == text.count("0.5 GB") == 3


def test_a_file_of_something_else_is_no_result(tmp_path):
    (tmp_path / "other.json").write_text('{"rows": [{"name": "x"}]}')
    with pytest.raises(ValueError, match=r"other\.json: expected results of a benchmark"):
        results.read(tmp_path / "other.json")


def test_the_figure_is_that_of_the_results(tmp_path):
    docs = TOOLS.parent / "docs"
    figure.main([*map(str, sorted((docs / "results").glob("*.json"))), "-o", str(tmp_path / "figure.svg")])
    assert (tmp_path / "figure.svg").read_bytes() == (docs / "figure.svg").read_bytes()


def test_the_programs_that_are_shipped_are_those_that_are_made(tmp_path):
    """TAESD's, the smallest: all are as they are made now, but the one that is damaged here."""
    stores = pytest.importorskip("sd_convert.conversion.stores")
    lowered = pytest.importorskip("sd_convert.conversion.lowered")
    copied = stores.ProgramFolder(Path(shutil.copytree(stores.SHIPPED.folder, tmp_path / "copied")), "copied")
    damaged = next(
        path
        for path in sorted(copied.folder.iterdir())
        if lowered.header_of(copied.find(path.stem))["architecture"]["config"].get("latent_magnitude")
        and lowered.header_of(copied.find(path.stem))["architecture"]["outputs"].get("image", [])[2:]
        == [3, 512, 512]
    )
    damaged.write_bytes(stores.compressed(copied.find(damaged.stem) + b" "))
    with pytest.raises(apart.ProcessError, match=rf"got others:\ntaesd: {damaged.name}$"):
        run("make_programs", "--check", "--output", copied.folder, "taesd")


def test_engine(tmp_path):
    packages = ["SPLIT_EINSUM", "8-bit"]
    options = ["--model", "tiny", "--rounds", "1", "--steps", "1", "--precisions", "fp32"]
    options += ["--json", tmp_path / "engine.json"]
    lines = run("bench_engine", "--keep", tmp_path, *options, "--packages", *packages).splitlines()
    table = [line.split() for line in lines if line.split()[:1] and line.split()[0] in packages]
    assert [row[0] for row in table] == packages
    rows = results.read(tmp_path / "engine.json").rows
    assert [row.name for row in rows] == [f"portable engine, {package}, fp32" for package in packages]


def test_compression():
    pytest.importorskip("coremltools")
    lines = run("bench_compress", "--quick", "--schemes", "palette of 4 bits,half pruned").splitlines()
    assert [line.split()[0] for line in lines] == ["scheme", "palette", "half"]
    assert all(line.endswith("x") for line in lines[1:])


def test_compression_report(bundle, tmp_path):
    small = ["--prompts", "2", "--pictures", "1", "--steps", "1", "--correlation", "2", "--mixed"]
    small += ["4", "--weights", "*down_blocks_0*", "--coreai", "--work", tmp_path]
    lines = run("compression_report", "--bundle", bundle, *small, "--widths", "2").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    names = [row[0].partition(" (")[0] for row in rows[2:]]
    assert names[:3] == ["16 bits", "2 bits", "2 bits, calibrated"]
    assert names[3:6] == ["mixed 4", "mixed 4, Apple's threshold", "mixed 4, coreai-opt's greedy recipe"]
    assert names[7:] == ["2 bits, coreai-opt's weighted k-means", "mixed 4, coreai-opt's recipe and k-means"]
    sizes = [float(row[2]) for row in rows[5:10]]
    assert max(sizes) <= sizes[0] + 0.01  # none is larger than the plan it is held against
    assert len(json.loads((tmp_path / "rows.json").read_text())) == len(names)


def test_sizes():
    assert "sd_mil" in run("size")


def test_judge():
    picture = next((TOOLS.parent / "apps/sdc").rglob("*.png"), None)
    if picture is None:
        pytest.skip("no picture in the sources")
    assert str(picture) in run("judge", picture)


def test_train_palettized(tmp_path):
    import torch

    torch.save(torch.randn(202, 1, 4, 16, 16).half(), tmp_path / "latents-1.pt")  # most of its time is these
    small = ["--nbits", "1", "--group-size", "4", "--steps", "1", "--pairs", "1", "--pictures", "1"]
    assert "83 layers of 1-bit weights" in run("train_palettized", "--work", tmp_path, *small)
    assert (tmp_path / "checkpoint" / "unet" / "diffusion_pytorch_model.safetensors").is_file()


def test_bench_calibration_device():
    said = run("bench_calibration_device", "--rows", "32", "--shapes", "8x16")
    assert re.fullmatch(r"8 x 16: Hessian .* on cpu .*; palette .* noise 1\.0\d+ of numpy's\)\n", said)


def test_train_controlnet(tmp_path):
    small = ["--steps", "2", "--pairs", "2", "--pictures", "3"]
    assert "million weights" in run("train_controlnet", "--work", tmp_path, *small)
    assert (tmp_path / "controlnet" / "diffusion_pytorch_model.safetensors").stat().st_size < 5e6


def test_output_snr(bundle):
    said = run("output_snr", bundle, bundle, "--captions", "1", "--steps", "1")
    assert said.startswith(f"{bundle}: inf dB over ")


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_fuzz_mil(tmp_path):
    run("fuzz_mil", "--seconds", "2", "--findings", tmp_path)


def test_what_fuzz_mil_fuzzes(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(TOOLS)!r});"
        "from pathlib import Path; from fuzz_models import Target;"
        f"target = Target(Path({str(tmp_path)!r}));"
        "print({target.run(bytes([n] * 12)).isidentifier() for n in range(20)})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "{True}\n", done.stderr


def test_all_are_here():
    tried = set(re.findall(r'\brun\("(\w+)"', Path(__file__).read_text()))
    assert {path.stem for path in TOOLS.glob("*.py")} <= tried | ELSEWHERE

"""The table of benchmarks, and one engine held against another."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
from sdc.benchmarking import Benchmark, Run

FEW = ("--runs", 2, "--num-inference-steps", 1, "--engine", "portable")
FOUND = Benchmark(
    model="org/toy",
    size="512x512",
    steps=20,
    scheduler="pndm",
    device="M | 9",
    system="macOS 26",
    engine="coreml",
    arithmetic="package",
    compute_unit="CPU_AND_NE",
    attention="SPLIT_EINSUM",
    first_seconds=9.0,
    runs=(Run(3.0, 10.0), Run(1.0, 30.0), Run(2.0, 20.0)),
    peak_memory=2_500_000_000,
)


def test_what_is_measured(sdc: Any, converted: Path) -> None:
    done = sdc("benchmark", converted, *FEW, "--format", "json")
    assert done.status == 0, done.err
    facts = json.loads(done.out)
    assert (facts["attention"], facts["compute_unit"], facts["steps"]) == ("SPLIT_EINSUM", "CPU_ONLY", 1)
    assert len(facts["runs"]) == 2
    latencies = [run["latency"] for run in facts["runs"]]
    assert facts["latency"] == pytest.approx(sum(latencies) / 2)
    assert all(run["rate"] > 1 / run["latency"] for run in facts["runs"])  # steps alone, of a whole picture
    assert facts["peak_memory"] > 1e7


def test_the_table(sdc: Any, converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdc.benchmarking.measured", lambda *_, **__: FOUND)
    lines = sdc("benchmark", converted, "--format", "markdown").out.splitlines()
    assert lines[0] == "org/toy, 512x512, 20 steps of pndm; median of 3 pictures; macOS 26"
    assert lines[4] == (
        "| M \\| 9 | CPU_AND_NE (coreml, package) | SPLIT_EINSUM | 2.00 | 20.00 | 9.00 | 2.50 GB |"
    )
    assert [line.replace("\\|", "").count("|") for line in lines[2:]] == [8, 8, 8]
    done = sdc("benchmark", converted)
    assert "diffusion speed (iter/s)" in done.out
    assert "20.00" in done.out


def test_an_engine_against_the_portable_one(sdc: Any, converted: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = sdc("verify", converted, "--engine", "reference", "--report", report)
    assert done.status == 0, done.err
    facts = json.loads(report.read_text())
    compared = {(row["component"], row["output"]) for row in facts["rows"]}
    assert {("unet", "noise_pred"), ("vae_decoder", "image"), ("vae_encoder", "latent")} <= compared
    assert min(row["psnr"] for row in facts["rows"] if row["psnr"] is not None) > 60
    assert facts["checkpoint"] == "the portable engine"
    assert facts["machine"]["device"]


def test_an_engine_that_computes_otherwise_is_seen(
    sdc: Any, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here, the portable engine itself, whose outputs were turned about in between."""
    import numpy as np
    from sd_runtime import resolve_engine
    from sdc import between_engines

    measure = between_engines._compared

    def wrong(bundle: Any, component: Any, recorded: Any, engine: Any) -> Any:
        recorded.outputs = {name: np.negative(value) for name, value in recorded.outputs.items()}
        return measure(bundle, component, recorded, resolve_engine("portable"))

    monkeypatch.setattr(between_engines, "_compared", wrong)
    done = sdc("verify", converted, "--engine", "reference", "--json")
    assert done.status == 1
    assert not json.loads(done.out)["passed"]


def test_the_portable_engine_is_not_proved_by_itself(sdc: Any, converted: Path) -> None:
    done = sdc("verify", converted)
    assert done.status == 2
    assert "expected --against CHECKPOINT" in done.err


@pytest.mark.skipif(platform.system() == "Darwin", reason="Core ML is here")
@pytest.mark.parametrize("command", ["verify", "benchmark"])
def test_core_ml_is_on_macs(sdc: Any, converted: Path, command: str) -> None:
    done = sdc(command, converted, "--engine", "coreml")
    assert done.status == 1
    assert "expected macOS for the engine coreml" in done.err

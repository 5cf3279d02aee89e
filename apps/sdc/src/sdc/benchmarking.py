"""How long a picture takes on this machine: what Apple's table of benchmarks states, measured here.

Source: ml-stable-diffusion's README, "Performance Benchmarks": end-to-end latency is that of a whole picture,
diffusion speed that of the denoising loop alone; the first picture, in which networks load, is not counted.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sd_bundle import ComputeUnit
    from sd_mil.engines import Engine
    from sd_runtime import Pipeline

PROMPT: Final = "a photo of an astronaut riding a horse on mars"
_CPUINFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Run:
    """One picture: seconds in all, and denoising steps for each second."""

    latency: float
    rate: float


@dataclass(frozen=True, slots=True)
class Benchmark:
    """``runs`` after the first picture, which took ``first_seconds``; ``peak_memory`` in bytes."""

    model: str
    size: str
    steps: int
    scheduler: str
    device: str
    system: str
    engine: str
    arithmetic: str
    compute_unit: str
    attention: str
    first_seconds: float
    runs: tuple[Run, ...]
    peak_memory: int

    @property
    def latency(self) -> float:
        """The median of the seconds of a picture."""
        return statistics.median(run.latency for run in self.runs)

    @property
    def rate(self) -> float:
        """The median of the steps for each second."""
        return statistics.median(run.rate for run in self.runs)


def measured(
    pipeline: Pipeline,
    engine: Engine,
    *,
    runs: int,
    steps: int | None,
    scheduler: str | None,
    seen: Callable[[int], object] = lambda _: None,
) -> Benchmark:
    """Draw one picture, then ``runs`` that are measured; ``seen`` is told how many are done.

    Errors as ``Pipeline.settings`` and ``Pipeline.steps``.
    """
    from sdc.console import peak_memory

    options: dict[str, Any] = {"num_inference_steps": steps, "scheduler": scheduler}
    settings = pipeline.settings(PROMPT, **options)
    began = time.perf_counter()
    _picture(pipeline, options)
    first = time.perf_counter() - began
    done: list[Run] = []
    for number in range(runs):
        seen(number)
        done.append(_picture(pipeline, options))
    unet = pipeline.bundle.only("denoiser")
    return Benchmark(
        model=settings.model,
        size=f"{settings.width}x{settings.height}",
        steps=settings.num_inference_steps,
        scheduler=settings.scheduler,
        device=device(),
        system=f"{platform.system()} {platform.mac_ver()[0] or platform.release()}",
        engine=pipeline.engine,
        arithmetic=pipeline.precision,
        compute_unit=_unit(engine, unet.compute_unit),
        attention=unet.attention_implementation or "unknown",
        first_seconds=first,
        runs=tuple(done),
        peak_memory=peak_memory(),
    )


def device() -> str:
    """The processor, and how many of its cores may be used."""
    name = platform.processor() or platform.machine()
    if _CPUINFO.is_file():
        models = [line for line in _CPUINFO.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    elif platform.system() == "Darwin":
        name = _sysctl("machdep.cpu.brand_string") or name
    return f"{name}, {os.cpu_count()} cores"


def _sysctl(name: str) -> str:
    import subprocess

    asked = ["/usr/sbin/sysctl", "-n", name]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


def _unit(engine: Engine, stated: ComputeUnit) -> str:
    """What Core ML was asked to run on; the other engines have the processor alone."""
    from sd_mil.engines import CoreML

    return (engine.compute_unit or stated) if isinstance(engine, CoreML) else "CPU_ONLY"


def _picture(pipeline: Pipeline, options: dict[str, Any]) -> Run:
    settings = pipeline.settings(PROMPT, **options)
    began = time.perf_counter()
    steps = pipeline.steps(PROMPT, **options)  # prompts are encoded here
    encoded = time.perf_counter()
    for step in steps:
        last = step
    sampled = time.perf_counter()
    pipeline.finish(last.latent, settings)
    return Run(time.perf_counter() - began, last.total / (sampled - encoded))


#: Apple's columns, and ours.
COLUMNS: Final = (
    "device",
    "--compute-unit",
    "--attention-implementation",
    "end-to-end latency (s)",
    "diffusion speed (iter/s)",
    "first picture (s)",
    "peak memory",
)


def row(benchmark: Benchmark) -> tuple[str, ...]:
    """The cells under :data:`COLUMNS`."""
    from sdc.console import size

    return (
        benchmark.device,
        f"{benchmark.compute_unit} ({benchmark.engine}, {benchmark.arithmetic})",
        benchmark.attention,
        f"{benchmark.latency:.2f}",
        f"{benchmark.rate:.2f}",
        f"{benchmark.first_seconds:.2f}",
        size(benchmark.peak_memory),
    )


def headline(benchmark: Benchmark) -> str:
    """What was drawn."""
    return (
        f"{benchmark.model}, {benchmark.size}, {benchmark.steps} steps of {benchmark.scheduler}; median of "
        f"{len(benchmark.runs)} pictures; {benchmark.system}"
    )


def in_markdown(benchmark: Benchmark) -> str:
    """As Apple's README has it."""
    return "\n".join([headline(benchmark), "", markdown_table(COLUMNS, [row(benchmark)], texts=3)])


def markdown_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, texts: int) -> str:
    """A table whose first ``texts`` columns are words, and the others numbers."""

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = tuple("---" if index < texts else "---:" for index in range(len(columns)))
    return "\n".join(map(line, (columns, rule, *rows)))

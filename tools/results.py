"""What a benchmark measured, as JSON with the machine, the versions and the date; ``figure.py`` draws it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

#: What the sides are made of.
_LIBRARIES: Final = ("sd-mil", "torch", "diffusers", "transformers", "coremltools", "openvino", "numpy")


@dataclass(frozen=True)
class Row:
    """One side: wall seconds, and the largest resident memory of its process in GB (powers of ten)."""

    name: str
    seconds: float
    peak_gb: float
    is_peer: bool = False


@dataclass(frozen=True)
class Results:
    """All sides of one comparison, which ran one after the other in the same minutes."""

    what: str
    rows: tuple[Row, ...]
    machine: dict[str, Any]
    versions: dict[str, str]
    date: str
    note: str = ""


def measured_here(what: str, rows: Iterable[Row], note: str = "") -> Results:
    """Rows with what is to be known of this machine; ``load`` is its average over the last 15 minutes."""
    machine = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[2], 1),
    }
    versions = {name: _version(name) for name in _LIBRARIES}
    return Results(what, tuple(rows), machine, versions, time.strftime("%Y-%m-%d"), note)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor() or platform.machine())


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def write(results: Results, path: Path) -> None:
    """Write it."""
    path.write_text(f"{json.dumps(asdict(results), indent=2)}\n", encoding="utf-8")


def read(path: Path) -> Results:
    """What :func:`write` wrote.

    Raises:
        ValueError: the file is not that.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return Results(**{**facts, "rows": tuple(Row(**row) for row in facts["rows"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected results of a benchmark, got: {error}") from error

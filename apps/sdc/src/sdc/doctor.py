"""What ``sdc doctor`` looks at: releases, engines, memory, disk, caches. Nothing asks the network."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from sdc.console import size

Verdict = Literal["ok", "note", "fails"]
APP: Final = "stable-diffusion-coreml"
#: Imported by ``--imports``: what conversion needs, half a minute together.
CONVERSION: Final = ("torch", "diffusers", "transformers", "coremltools")
#: What the largest ordinary work takes, as README's numbers have it.
_MEMORY_TO_CONVERT: Final = 1_500_000_000
_MEMORY_TO_DRAW: Final = 4_000_000_000
_DISK: Final = 10_000_000_000
#: Settings that change what commands do.
VARIABLES: Final = (
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "NO_COLOR",
    "OMP_NUM_THREADS",
    "SD_MIL_CACHE",
    "SD_MIL_CACHE_BYTES",
)


@dataclass(frozen=True)
class Finding:
    """One line of the page: what was looked at, what was found, and what follows where that is not well."""

    section: str
    name: str
    value: str
    verdict: Verdict = "ok"
    consequence: str = ""


def examine(*, imports: bool) -> Iterator[Finding]:
    """Everything, one after the other; ``imports`` loads the conversion stack, too."""
    yield Finding("system", "Python", f"{platform.python_version()}, {sys.implementation.name}")
    yield Finding("system", "platform", f"{platform.system()} {platform.release()} {platform.machine()}")
    yield Finding("system", "processors", str(os.cpu_count()))
    for variable in VARIABLES:
        if variable in os.environ:
            yield Finding("system", variable, at_home(os.environ[variable]))
    yield from releases()
    yield from engines()
    if imports:
        yield from (imported(name) for name in CONVERSION)
    yield from memory()
    yield from disks()
    yield from caches()


def at_home(text: object) -> str:
    """A path with ``~`` for the home folder, whose name is nobody's business in a public issue."""
    home, path = str(Path.home()), str(text)
    return f"~{path[len(home) :]}" if path == home or path.startswith(home + os.sep) else path


def releases() -> Iterator[Finding]:
    """Our packages and what they need, each held to the bounds that its users declare."""
    bounds = _bounds()
    for name in sorted(bounds):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("releases", name, "missing", "fails", f"not installed: pip install {name}")
            continue
        unfit = [f"{who} needs {bound}" for who, bound in bounds[name] if not bound.contains(found, True)]
        verdict: Verdict = "fails" if unfit else "ok"
        yield Finding("releases", name, found, verdict, "; ".join(unfit))


def _bounds() -> dict[str, list[tuple[str, Any]]]:
    """For each distribution that the app or a package of ours needs: who does, and which versions."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    bounds: dict[str, list[tuple[str, Any]]] = {APP: []}
    pending: list[tuple[str, str]] = [(APP, "")]
    while pending:
        owner, extra = pending.pop()
        for line in importlib.metadata.requires(owner) or ():
            needed = Requirement(line)
            name = canonicalize_name(needed.name)
            applies = needed.marker is None or needed.marker.evaluate({"extra": extra})
            if not applies or (owner, needed.specifier) in bounds.get(name, ()):
                continue
            bounds.setdefault(name, []).append((owner, needed.specifier))
            if name.startswith("sd-") and _is_here(name):
                pending += [(name, chosen) for chosen in ("", *needed.extras)]
    return bounds


def _is_here(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def engines() -> Iterator[Finding]:
    """Each engine multiplies six numbers, and has to get them right."""
    from sd_mil.engines import ENGINES

    for name in ENGINES:
        if name == "coreml" and platform.system() != "Darwin":
            yield Finding(
                "engines", name, "not here: Core ML needs macOS", "note", "portable takes its place"
            )
            continue
        yield _attempt("engines", name, partial(_arithmetic, name), f"commands with --engine {name}")


def _arithmetic(engine: str) -> str:
    import numpy as np
    import sd_mil as mil

    half = mil.TensorType("fp16", (2, 3))
    twice = mil.Operation(
        "add", "twice", {"x": (mil.Reference("x"),), "y": (mil.Reference("x"),)}, (mil.Variable("y", half),)
    )
    main = mil.Function("main", "CoreML6", mil.Block((mil.Variable("x", half),), (twice,), ("y",)))
    ports = mil.Description((mil.Port("x", (2, 3), "float16"),), (mil.Port("y", (2, 3), "float16"),))
    with tempfile.TemporaryDirectory() as folder:
        package = mil.write_package(Path(folder) / "twice.mlpackage", mil.Program({"main": main}), ports).path
        model = mil.MLModel(package, engine)
        x = np.arange(6, dtype=np.float16).reshape(2, 3)
        if not np.array_equal(model.predict({"x": x})["y"], 2 * x):
            raise ArithmeticError("expected twice the numbers, got others")
        return model.arithmetic


def imported(name: str) -> Finding:
    """Whether a library loads; releases that do not fit each other show here."""

    def load() -> str:
        module = importlib.import_module(name)
        return f"imports ({getattr(module, '__version__', 'no version')})"

    return _attempt("imports", name, load, "convert, verify and demo")


def _attempt(section: str, name: str, look: Callable[[], str], affected: str) -> Finding:
    try:
        return Finding(section, name, look())
    except Exception as error:  # whatever a library raises while it loads is what is to be told
        reason = " ".join(str(error).split()) or type(error).__name__
        return Finding(section, name, "does not work", "fails", f"{affected} will fail: {reason}")


def memory() -> Iterator[Finding]:
    """What is free, and what it does not suffice for."""
    from sd_runtime import available_memory

    free = available_memory()
    if free is None:
        yield Finding("memory", "available", "unknown", "note", "the system does not say")
        return
    short = [
        text
        for needed, text in (
            (_MEMORY_TO_CONVERT, "converting SD 1.5 or SDXL takes up to 1.2 GB"),
            (_MEMORY_TO_DRAW, "drawing with SD 1.5 takes 3.9 GB (--precision bf16: 2.1 GB)"),
        )
        if free < needed
    ]
    yield Finding("memory", "available", size(free), "note" if short else "ok", "; ".join(short))


def disks() -> Iterator[Finding]:
    """Free space where things are written."""
    from sd_convert import ConversionCache

    places = {"here": Path.cwd(), "temporary": Path(tempfile.gettempdir()), "cache": ConversionCache().folder}
    for name, path in places.items():
        there = next(folder for folder in (path, *path.parents) if folder.exists())
        free = shutil.disk_usage(there).free
        writable = os.access(there, os.W_OK)
        lack = f"a bundle of SDXL takes 7 GB: {at_home(there)} has less" if free < _DISK else ""
        problem = lack if writable else f"cannot write to {at_home(there)}: choose another folder"
        verdict: Verdict = "note" if lack and writable else ("ok" if writable else "fails")
        yield Finding("disk", name, f"{size(free)} free in {at_home(path)}", verdict, problem)


def caches() -> Iterator[Finding]:
    """What is kept for the next time."""
    from sd_convert import ConversionCache
    from sd_mil import EngineError, default_cache

    conversions = ConversionCache()
    usage = conversions.usage()
    yield Finding("caches", "conversions", _kept(usage.entries, usage.bytes, conversions.limit))
    try:
        decoded = default_cache()
    except EngineError as error:
        yield Finding("caches", "decoded weights", "does not work", "fails", str(error))
        return
    if decoded is None:
        yield Finding(
            "caches", "decoded weights", "off", "note", "compressed models are decoded at every start"
        )
    else:
        yield Finding("caches", "decoded weights", _kept(len(decoded.entries()), decoded.size, decoded.limit))


def _kept(entries: int, held: int, limit: int) -> str:
    return f"{entries} {'entry' if entries == 1 else 'entries'}, {size(held)} of {size(limit)}"


def facts(findings: list[Finding]) -> dict[str, Any]:
    """For ``--json``."""
    return {"healthy": healthy(findings), "findings": [asdict(finding) for finding in findings]}


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing fails."""
    return all(finding.verdict != "fails" for finding in findings)

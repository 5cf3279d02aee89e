"""How much memory is left, and whether a network still fits beside the others."""

from __future__ import annotations

from pathlib import Path

from sd_bundle import Bundle, BundleComponent

#: Memory that a network takes at its peak, in sizes of its package: weights, widened, and what it computes.
PEAK = 3.0

_MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def is_short_for(component: BundleComponent, bundle: Bundle) -> bool:
    """Whether ``component`` may not fit into what is left."""
    free = available_memory()
    return free is not None and free < PEAK * package_bytes(component, bundle)


def package_bytes(component: BundleComponent, bundle: Bundle) -> int:
    """Size of the component's files."""
    folders = tuple(f"{package}/" for package in component.packages)
    files = bundle.manifest.files
    return sum(record.size for path, record in files.items() if path.startswith(folders))

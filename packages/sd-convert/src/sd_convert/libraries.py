"""What only the extra ``torch`` brings: libraries that lower networks, and that bundles are held against."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from .errors import MissingLibrariesError

_LIBRARIES: Final = ("torch", "diffusers", "transformers", "coremltools", "sd_attention")


def check_libraries(why: str) -> None:
    """Refuse to go on without them; ``why`` is what takes them.

    Raises:
        MissingLibrariesError: one is not installed; what to install.
    """
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise MissingLibrariesError(
            f"{why}: that takes {', '.join(_LIBRARIES[:-1])}, expected all, got no {missing[0]}: "
            "pip install 'sd-convert[torch]'"
        )


def check_lowering(component: str) -> None:
    """As :func:`check_libraries`, of a component whose program has to be made."""
    check_libraries(f"{component}: no program is kept for this architecture, these sizes and options")

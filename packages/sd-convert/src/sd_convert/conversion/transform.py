"""What may be done to a component's program on its way into the bundle, by who knows how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from sd_bundle import BundleComponent, Compression
from sd_mil import Program


@dataclass(frozen=True, slots=True)
class Transformed:
    """A component's program after a transformation, and what the manifest says of it.

    ``compression``: how its weights are stored now, None if that is as before. ``files``: what the bundle is
    to hold besides, by path.
    """

    program: Program
    compression: Compression | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


#: Given the component's entry in the manifest, and its program, whose weights nobody has read yet.
Transform: TypeAlias = Callable[[BundleComponent, Program], Transformed]

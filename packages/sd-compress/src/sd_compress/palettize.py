"""Weights as indices into tables: which table is best, and the program that has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .schemes import Palette, Palettize
from .weights import Weight

#: Finds the palette of a weight. What the clustering does, and what calibration does better.
Assign: TypeAlias = Callable[[Weight, Palettize], Palette]

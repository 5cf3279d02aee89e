"""From a graph of ATen operations to an ML Program, one operation at a time."""

from .graph import Lowered, lower
from .registry import lowered_operations

__all__ = ["Lowered", "lower", "lowered_operations"]

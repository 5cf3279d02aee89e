"""From a graph of ATen operations to an ML Program, one operation at a time."""

from .graph import lower
from .registry import lowered_operations

__all__ = ["lower", "lowered_operations"]

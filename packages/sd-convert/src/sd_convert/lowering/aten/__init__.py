"""Every ATen operation that is lowered, one function each; importing this module registers them."""

from . import arithmetic, attention, convolution, lookup, normalisation, resizing, shapes

__all__ = ["arithmetic", "attention", "convolution", "lookup", "normalisation", "resizing", "shapes"]

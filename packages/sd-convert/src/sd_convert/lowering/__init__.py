"""From a graph of ATen operations to an ML Program, one operation at a time: ``graph.lower``."""

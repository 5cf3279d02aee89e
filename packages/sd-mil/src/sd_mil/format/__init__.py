"""From files on disk to a :class:`~sd_mil.ir.program.Package`, with numpy and nothing else.

wire -> values, graph, description -> specification -> package: bytes, then messages, then the program model.
A compiled model holds the same program as text: text -> compiled -> package.
"""

from sd_mil.format.package import read_model, read_package

__all__ = ["read_model", "read_package"]

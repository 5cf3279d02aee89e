"""From an ``.mlpackage`` on disk to a :class:`~sd_mil.program.Package`, with numpy and nothing else.

wire -> values, graph, description -> package: bytes, then messages, then the program model.
"""

from sd_mil.reader.package import read_package

__all__ = ["read_package"]

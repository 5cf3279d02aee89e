"""A lowered program as a protobuf message, and what is to lie where in its ``weight.bin``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from .blobs import Layout

if TYPE_CHECKING:
    from .lowering import Lowered

_WEIGHT_FILE: Final = "@model_path/weights/weight.bin"


def program_message(lowered: Lowered, layout: Layout, *, specification: int) -> Any:
    """The ``MILSpec.Program`` message; ``layout`` receives the constants that go to the file, in order.

    Source: ``MILProtoExporter`` in coremltools' converters/mil/backend/mil/load.py.
    """
    from coremltools.converters.mil.backend.mil.load import MILProtoExporter

    class Exporter(MILProtoExporter):  # type: ignore[misc]
        """Gives constants their places where coremltools would write them."""

        def create_file_value(self, var: Any) -> Any:
            source = lowered.streamed.get(var.name)
            if source is None:
                offset = layout.place(var.val.dtype.name, var.val.size, var.val.tobytes())
            else:
                offset = layout.place(source.dtype.name, math.prod(source.shape), source.weight)
            return _file_value(self.types_to_proto(var.sym_type), offset)

    return Exporter(lowered.program, "", specification).export()


def _file_value(value_type: Any, offset: int) -> Any:
    from coremltools.proto import MIL_pb2

    location = MIL_pb2.Value.BlobFileValue(fileName=_WEIGHT_FILE, offset=offset)
    return MIL_pb2.Value(type=value_type, blobFileValue=location)

"""A lowered program as a protobuf message, with its weights streamed into ``weight.bin``."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .component import Weights
from .lowering.graph import Lowered
from .lowering.precision import cast


def program_message(lowered: Lowered, weights: Weights, *, folder: Path, specification: int) -> Any:
    """The ``MILSpec.Program`` message; ``folder`` receives ``weight.bin``.

    Only one tensor at a time is read, cast and written, in the order of the program.

    Source: ``MILProtoExporter`` in coremltools' converters/mil/backend/mil/load.py.
    """
    from coremltools.converters.mil.backend.mil.load import MILProtoExporter

    class StreamingExporter(MILProtoExporter):  # type: ignore[misc]
        """Writes the tensor that a stand-in stands for."""

        def create_file_value(self, var: Any) -> Any:
            source = lowered.streamed.get(var.name)
            if source is None:
                return super().create_file_value(var)
            mapped = weights[source.weight]
            array = cast(mapped, source.dtype, source.weight)
            offset = _append(self.get_blob_writer(self.get_weight_path(var.op)), array)
            _forget(mapped)
            return _file_value(self.types_to_proto(var.sym_type), offset)

    return StreamingExporter(lowered.program, str(folder), specification).export()


def _append(writer: Any, array: npt.NDArray[np.generic]) -> int:
    """Append a tensor to the file; returns the offset of its record."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype == np.float16:
        return int(writer.write_fp16_data(flat.view(np.uint16)))
    return int(writer.write_float_data(flat))


def _file_value(value_type: Any, offset: int) -> Any:
    from coremltools.proto import MIL_pb2

    location = MIL_pb2.Value.BlobFileValue(fileName="@model_path/weights/weight.bin", offset=offset)
    return MIL_pb2.Value(type=value_type, blobFileValue=location)


def _forget(array: npt.NDArray[np.generic]) -> None:
    """Let the system drop the pages of a mapped file that were read, so that they do not add up.

    They stay in the file; whoever reads them again gets them again.
    """
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if isinstance(base, mmap.mmap) and sys.platform == "linux":
        base.madvise(mmap.MADV_DONTNEED)

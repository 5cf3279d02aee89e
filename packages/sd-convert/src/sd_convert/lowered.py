"""A component as a program: what is left to do is to write it, which reads its weights once, in order.

Lowering takes torch, coremltools and nearly all of a conversion's work; without weights its result is half a
megabyte. It follows from configs, shapes and options alone, except for the few small tensors that the program
has inside, which are named (``folded``). So it can be kept (:mod:`sd_convert.cache`), and used for any
weights in which those are the same: weights themselves are never kept, hence never stale.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from sd_mil import Description, Port, Program, SdMilError
from sd_mil.format import encode_unweighted, layout_of, read_unweighted

from .checkpoint_tensors import CheckpointTensor
from .component import PortDType, PortSpec, Tensors


@dataclass(frozen=True, slots=True)
class LoweredComponent:
    """A component's program and the description of its package.

    ``specification``: the version of the file format. ``folded`` has the sha256 of each tensor whose elements
    are in the program itself, or were computed with.
    """

    name: str
    program: Program
    description: Description
    specification: int
    folded: Mapping[str, str]

    @property
    def inputs(self) -> tuple[PortSpec, ...]:
        """Its input ports."""
        return tuple(map(_port, self.description.inputs))

    @property
    def outputs(self) -> tuple[PortSpec, ...]:
        """Its output ports."""
        return tuple(map(_port, self.description.outputs))

    @property
    def weight_bytes(self) -> int:
        """The size of the weights in the package, which is nearly all of it."""
        return layout_of(self.program).size

    @property
    def operations(self) -> dict[str, int]:
        """How many operations there are of each kind but const, the most frequent first."""
        kinds = Counter(operation.type for operation in self.program.operations())
        return dict((kinds - Counter(const=kinds["const"])).most_common())

    def fits(self, tensors: Tensors) -> bool:
        """Whether the tensors in the program are the same in ``tensors``."""
        return all(tensor_hash(tensors, name) == sha for name, sha in self.folded.items())


def tensor_hash(tensors: Tensors, name: str) -> str:
    """The sha256 of a tensor's dtype, shape and elements."""
    array = tensors[name]
    sha = hashlib.sha256(f"{array.dtype.name}{array.shape}".encode())
    sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def pack(lowered: LoweredComponent, names: Mapping[str, str] | None = None) -> bytes:
    """The component without its weights, as bytes; :func:`unpack` is the inverse.

    ``names``: those that the tensors have in the checkpoint's files, where the program has others.
    """
    renamed = (lambda name: name) if names is None else names.__getitem__
    header = {
        "name": lowered.name,
        "specification": lowered.specification,
        "folded": {renamed(name): sha for name, sha in lowered.folded.items()},
    }
    program = encode_unweighted(
        lowered.program,
        lowered.description,
        version=lowered.specification,
        source_of=lambda tensor: renamed(tensor.source),
    )
    return json.dumps(header).encode() + b"\n" + program


def unpack(content: bytes, weights: Tensors) -> LoweredComponent:
    """The component that was packed, with tensors of ``weights``.

    Raises:
        ValueError: something else was packed.
    """
    head, _, program = content.partition(b"\n")
    try:
        header = json.loads(head)
        name, folded, specification = (header[key] for key in ("name", "folded", "specification"))
        package = read_unweighted(
            program, name, lambda source, dtype, shape: CheckpointTensor(source, weights, dtype, shape)
        )
    except (ValueError, TypeError, KeyError, RecursionError, SdMilError) as error:
        raise ValueError(f"expected a packed component, got {error}") from error
    return LoweredComponent(name, package.program, package.description, specification, folded)


def _port(port: Port) -> PortSpec:
    shape = tuple(size for size in port.shape if size is not None)
    return PortSpec(port.name, shape, cast(PortDType, port.dtype), port.description)

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
from pathlib import Path
from typing import cast

import numpy as np
from sd_mil import Description, Port, Program, SdMilError, write_package
from sd_mil.format import Check, Unweighted, WrittenPackage, encode_unweighted, layout_of

from .checkpoint_tensors import CheckpointTensor
from .component import PortDType, PortSpec, Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPackage:
    """A package that is still to be written.

    ``folded`` has the sha256 of each tensor whose elements are in the program itself, or were computed with.
    """

    name: str
    description: Description
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
        raise NotImplementedError

    def write(self, path: Path, check: Check = lambda: None) -> WrittenPackage:
        """Write it to ``path``; ``check`` is called before each piece of the weights and may raise to stop.

        Raises: see :func:`sd_mil.write_package`.
        """
        raise NotImplementedError

    def fits(self, tensors: Tensors) -> bool:
        """Whether the tensors in the program are the same in ``tensors``."""
        return all(tensor_hash(tensors, name) == sha for name, sha in self.folded.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class LoweredComponent(PreparedPackage):
    """A component's program and the description of its package.

    ``specification``: the version of the file format.
    """

    program: Program
    specification: int

    @property
    def weight_bytes(self) -> int:
        """See :class:`PreparedPackage`."""
        return layout_of(self.program).size

    @property
    def operations(self) -> dict[str, int]:
        """How many operations there are of each kind but const, the most frequent first."""
        kinds = Counter(operation.type for operation in self.program.operations())
        return dict((kinds - Counter(const=kinds["const"])).most_common())

    def write(self, path: Path, check: Check = lambda: None) -> WrittenPackage:
        """See :class:`PreparedPackage`."""
        return write_package(
            path,
            self.program,
            self.description,
            version=self.specification,
            identity=self.name,
            check=check,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedComponent(PreparedPackage):
    """The same as it was kept, which is written without decoding its program."""

    unweighted: Unweighted
    specification: int

    @property
    def weight_bytes(self) -> int:
        """See :class:`PreparedPackage`."""
        return self.unweighted.weight_bytes

    def write(self, path: Path, check: Check = lambda: None) -> WrittenPackage:
        """See :class:`PreparedPackage`."""
        return self.unweighted.write(path, identity=self.name, check=check)

    def lowered(self) -> LoweredComponent:
        """The component with its program."""
        return LoweredComponent(
            name=self.name,
            program=self.unweighted.package().program,
            description=self.description,
            specification=self.specification,
            folded=self.folded,
        )


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


def unpack(content: bytes, weights: Tensors) -> PackedComponent:
    """The component that was packed, with tensors of ``weights``.

    Raises:
        ValueError: something else was packed.
    """
    head, _, program = content.partition(b"\n")
    try:
        header = json.loads(head)
        name, folded, specification = (header[key] for key in ("name", "folded", "specification"))
        unweighted = Unweighted(
            program, name, lambda source, dtype, shape: CheckpointTensor(source, weights, dtype, shape)
        )
    except (ValueError, TypeError, KeyError, RecursionError, SdMilError) as error:
        raise ValueError(f"expected a packed component, got {error}") from error
    return PackedComponent(
        name=name,
        description=unweighted.description,
        folded=folded,
        unweighted=unweighted,
        specification=specification,
    )


def _port(port: Port) -> PortSpec:
    shape = tuple(size for size in port.shape if size is not None)
    return PortSpec(port.name, shape, cast(PortDType, port.dtype), port.description)

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

import numpy as np
from sd_mil import Description, Program, SdMilError, write_package
from sd_mil.format import Check, Unweighted, WrittenPackage, encode_unweighted, layout_of

from .checkpoint_tensors import CheckpointTensor
from .component import Tensors


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
    def weight_bytes(self) -> int:
        """The size of the weights in the package, which is nearly all of it."""
        return layout_of(self.program).size

    def lowered(self) -> LoweredComponent:
        """Itself: see :class:`PackedComponent`."""
        return self

    @property
    def operations(self) -> dict[str, int]:
        """How many operations there are of each kind but const, the most frequent first."""
        kinds = Counter(operation.type for operation in self.program.operations())
        return dict((kinds - Counter(const=kinds["const"])).most_common())

    def write(self, path: Path, check: Check = lambda: None) -> WrittenPackage:
        """Write the package; ``check`` is called before each piece of the weights and may raise to stop.

        Raises: see :func:`sd_mil.write_package`.
        """
        version, name = self.specification, self.name
        return write_package(
            path, self.program, self.description, version=version, identity=name, check=check
        )


@dataclass(frozen=True, slots=True)
class PackedComponent:
    """The same as it was kept: it can be written without decoding its program."""

    name: str
    unweighted: Unweighted
    specification: int
    folded: Mapping[str, str]

    @property
    def weight_bytes(self) -> int:
        """See :class:`LoweredComponent`."""
        return self.unweighted.weight_bytes

    def write(self, path: Path, check: Check = lambda: None) -> WrittenPackage:
        """See :class:`LoweredComponent`."""
        return self.unweighted.write(path, identity=self.name, check=check)

    def fits(self, tensors: Tensors) -> bool:
        """Whether the tensors in the program are the same in ``tensors``."""
        return all(tensor_hash(tensors, name) == sha for name, sha in self.folded.items())

    def lowered(self) -> LoweredComponent:
        """The component with its program."""
        package = self.unweighted.package()
        return LoweredComponent(
            self.name, package.program, package.description, self.specification, self.folded
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
    return PackedComponent(name, unweighted, specification, folded)

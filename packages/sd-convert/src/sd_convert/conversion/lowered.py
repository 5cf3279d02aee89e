"""A component as a program: what is left to do is to write it, which reads its weights once, in order.

Lowering takes torch, coremltools and nearly all of a conversion's work; without weights its result is half a
megabyte. It follows from configs, shapes and options alone, except for tensors that only torch knows how to
fold into it, which are named (``folded``). So it can be kept (:mod:`.stores`), and used for any
weights of the same architecture: weights themselves are never kept, hence never stale.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sd_mil import Description, Program, SdMilError, write_package
from sd_mil.format import Check, Unweighted, WrittenPackage, encode_unweighted, layout_of
from sd_mil.ir import Tensor

from sd_convert.components.component import Tensors
from sd_convert.lowering.checkpoint_tensors import CheckpointTensor
from sd_convert.lowering.computed import as_text, from_text, names_in, renamed

#: What a program was made for, as JSON has it, see :mod:`sd_convert.conversion.programs`.
Architecture = Mapping[str, Any]


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
    """The same as it was kept: it can be written without decoding its program.

    ``description`` is not kept: it says whose weights these are.
    """

    name: str
    unweighted: Unweighted
    description: Description
    folded: Mapping[str, str]
    architecture: Architecture = field(default_factory=dict)

    @property
    def weight_bytes(self) -> int:
        """See :class:`LoweredComponent`."""
        return self.unweighted.weight_bytes

    def write(self, path: Path, check: Check = lambda: None) -> WrittenPackage:
        """See :class:`LoweredComponent`."""
        return self.unweighted.write(path, self.description, identity=self.name, check=check)

    def fits(self, tensors: Tensors) -> bool:
        """Whether the tensors in the program are the same in ``tensors``."""
        return all(tensor_hash(tensors, name) == sha for name, sha in self.folded.items())

    def lowered(self) -> LoweredComponent:
        """The component with its program."""
        package, version = self.unweighted.package(self.description), self.unweighted.version
        return LoweredComponent(self.name, package.program, self.description, version, self.folded)


def tensor_hash(tensors: Tensors, name: str) -> str:
    """The sha256 of a tensor's dtype, shape and elements."""
    array = tensors[name]
    sha = hashlib.sha256(f"{array.dtype.name}{array.shape}".encode())
    sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def pack(
    lowered: LoweredComponent,
    rename: Callable[[str], str] = lambda name: name,
    architecture: Architecture | None = None,
) -> bytes:
    """The component without its weights, as bytes; :func:`unpack` is the inverse.

    ``rename``: from the names that the program has for tensors to those that it is kept with.
    """

    def source_of(tensor: Tensor) -> str:
        if not isinstance(tensor, CheckpointTensor):
            raise TypeError(f"expected tensors of a checkpoint, got {type(tensor).__name__}")
        return as_text(renamed(tensor.expression, rename))

    header = {
        "name": lowered.name,
        "folded": {rename(name): sha for name, sha in lowered.folded.items()},
        "architecture": architecture or {},
    }
    program = encode_unweighted(lowered.program, version=lowered.specification, source_of=source_of)
    return json.dumps(header).encode() + b"\n" + program


def header_of(content: bytes) -> dict[str, Any]:
    """``name``, ``folded`` and ``architecture`` of a component that was packed.

    Raises:
        ValueError: something else was packed.
    """
    try:
        header = json.loads(content.partition(b"\n")[0])
        known = {key: header[key] for key in ("name", "folded", "architecture")}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"expected a packed component, got {error}") from error
    if not isinstance(known["folded"], dict) or not isinstance(known["architecture"], dict):
        raise ValueError("expected a packed component, got another header")
    return known


def unpack(
    content: bytes, weights: Mapping[str, npt.NDArray[np.generic]], description: Description
) -> PackedComponent:
    """The component that was packed, with tensors of ``weights``, under the names it was kept with.

    Raises:
        ValueError: something else was packed.
    """
    header, known = header_of(content), frozenset(weights)  # whether one is in them would read it

    def tensor(source: str, dtype: str, shape: tuple[int, ...]) -> CheckpointTensor:
        return CheckpointTensor(from_text(source), weights, dtype, shape)

    try:
        unweighted = Unweighted(content.partition(b"\n")[2], header["name"], tensor)
        missing = [
            name
            for one in unweighted.tensors
            if isinstance(one, CheckpointTensor)
            for name in names_in(one.expression)
            if name not in known
        ]
    except (ValueError, TypeError, KeyError, RecursionError, SdMilError) as error:
        raise ValueError(f"expected a packed component, got {error}") from error
    if missing:
        raise ValueError(f"expected a component of these weights, got one with {missing[0]}")
    return PackedComponent(header["name"], unweighted, description, header["folded"], header["architecture"])

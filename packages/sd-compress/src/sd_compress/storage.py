"""What the weights of a package cost: how they are encoded, how many they are, how many bytes they take.

A *weight* is a tensor as the network's own operations see it. In the file it is a ``const``, or constants
that a chain of ``constexpr_*`` operations decompresses at load: indices and their palette, integers and their
scales, a mask and what is not zero. Its size is that of the constants, packed as they lie in weight.bin.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sd_mil import Argument, Block, Constant, Operation, Package, Program, Reference, ValueType
from sd_mil.ir import storage_key


@dataclass(frozen=True, slots=True)
class StorageRow:
    """All weights of one encoding.

    ``encoding`` is a MIL dtype (``fp16``), ``6-bit palette``, ``int8 linear``, or one of these after
    ``sparse``. ``weights`` counts tensors, ``elements`` their numbers when decompressed, ``stored_bytes``
    what they take.
    """

    encoding: str
    weights: int
    elements: int
    stored_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each element, palettes, scales and masks included."""
        return 8 * self.stored_bytes / self.elements if self.elements else 0.0


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """One weight, by the name under which the network's operations take it.

    ``op`` is the type of the operation that takes it first, empty for one that the program returns; the other
    fields are those of :class:`StorageRow`.
    """

    name: str
    op: str
    encoding: str
    shape: tuple[int, ...]
    stored_bytes: int

    @property
    def elements(self) -> int:
        """Its numbers when decompressed."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class StorageReport:
    """A package's weights by encoding, largest first.

    ``file_bytes`` is the size of the weight files, which also hold a record of 64 bytes for each blob.
    """

    rows: tuple[StorageRow, ...]
    file_bytes: int

    @property
    def total(self) -> StorageRow:
        """The sum of all rows."""
        return _summed("all", self.rows)


def storage(package: Package) -> StorageReport:
    """Count the weights of ``package`` that lie in its weight files; small inline constants are left out.

    A blob that several weights share is counted with the first of them, and weights that several functions
    share once. Nothing is read but the program: the weights stay on disk.

    Example:
        >>> report = storage(sd_mil.read_package("unet.mlpackage"))  # doctest: +SKIP
        >>> report.total.bits_per_weight  # doctest: +SKIP
        6.02
    """
    return storage_of(package.program, package.weight_bytes)


def storage_of(program: Program, file_bytes: int = 0) -> StorageReport:
    """As :func:`storage`, of a program that may not have been written yet."""
    weights = stored_weights(program)
    counted = [StorageRow(one.encoding, 1, one.elements, one.stored_bytes) for one in weights]
    encodings = dict.fromkeys(row.encoding for row in counted)
    rows = [_summed(name, [row for row in counted if row.encoding == name]) for name in encodings]
    rows.sort(key=lambda row: -row.stored_bytes)
    return StorageReport(tuple(rows), file_bytes)


def _summed(encoding: str, rows: tuple[StorageRow, ...] | list[StorageRow]) -> StorageRow:
    return StorageRow(
        encoding,
        weights=sum(row.weights for row in rows),
        elements=sum(row.elements for row in rows),
        stored_bytes=sum(row.stored_bytes for row in rows),
    )


_Definitions: TypeAlias = Mapping[str, Operation]


def stored_weights(program: Program) -> Iterator[StoredWeight]:
    """Each tensor in a weight file that the network's operations take or the program returns, in their order.

    Compressed or not, a weight has one name: that of what the operation takes. Those without (constants that
    stand in the operation itself) are called after the operation and its parameter. What one function has in
    common with an earlier one is counted there.
    """
    blobs: set[Hashable] = set()
    for name, function in program.functions.items():
        earlier = frozenset(blobs)
        operations = list(program.operations(name))
        defined = {out.name: op for op in operations if _is_stored(op) for out in op.outputs}
        seen: set[str] = set()
        for place, op, argument in _uses(function.body):
            if isinstance(argument, Reference):
                if argument.name in seen or argument.name not in defined:
                    continue
                seen.add(argument.name)
            constants = [one for one in _constants(argument, defined, set()) if one.stored]
            if any(storage_key(one) not in earlier for one in constants):
                shape = tuple(size or 0 for size in _type_of(argument, defined).shape)
                stored = sum(_stored_once(one, blobs) for one in constants)
                label = argument.name if isinstance(argument, Reference) else place
                yield StoredWeight(label, op, _encoding(argument, defined), shape, stored)


def _is_stored(operation: Operation) -> bool:
    return operation.type == "const" or operation.type.startswith("constexpr_")


def _uses(block: Block) -> Iterator[tuple[str, str, Argument]]:
    """Every argument, the operation and parameter that it is for, and the type of the operation."""
    for operation in block.operations:
        if not _is_stored(operation):
            for parameter, arguments in operation.inputs.items():
                for argument in arguments:
                    yield f"{operation.name}.{parameter}", operation.type, argument
        for inner in operation.blocks:
            yield from _uses(inner)
    yield from ((name, "", Reference(name)) for name in block.outputs)


def _constants(argument: Argument, defined: _Definitions, visited: set[int]) -> Iterator[Constant]:
    """Every constant that goes into ``argument``, each once."""
    if isinstance(argument, Constant):
        yield argument
    elif (operation := defined[argument.name]) and id(operation) not in visited:
        visited.add(id(operation))
        yield from operation.attributes.values()
        for arguments in operation.inputs.values():
            for inner in arguments:
                yield from _constants(inner, defined, visited)


def _stored_once(constant: Constant, blobs: set[Hashable]) -> int:
    key = storage_key(constant)
    if key in blobs:
        return 0
    blobs.add(key)
    return constant.stored


def _type_of(argument: Argument, defined: _Definitions) -> ValueType:
    if isinstance(argument, Constant):
        return argument.type
    return next(out.type for out in defined[argument.name].outputs if out.name == argument.name)


#: The parameter of each decompression that holds the bulk of the data, and what its elements are then.
_LINEAR = {
    "constexpr_affine_dequantize": "quantized_data",
    "constexpr_blockwise_shift_scale": "data",
    "constexpr_sparse_blockwise_shift_scale": "nonzero_data",
}
_PALETTE = ("constexpr_lut_to_dense", "constexpr_lut_to_sparse")


def _encoding(argument: Argument, defined: _Definitions) -> str:
    operation = None if isinstance(argument, Constant) else defined[argument.name]
    if operation is None or operation.type == "const":
        return _type_of(argument, defined).dtype
    if operation.type == "constexpr_cast":
        return _encoding(_parameter(operation, "source_val"), defined)
    if operation.type == "constexpr_sparse_to_dense":
        return "sparse " + _encoding(_parameter(operation, "nonzero_data"), defined)
    if operation.type in _PALETTE:
        return f"{_palette_bits(_type_of(_parameter(operation, 'lut'), defined))}-bit palette"
    if operation.type in _LINEAR:
        return f"{_type_of(_parameter(operation, _LINEAR[operation.type]), defined).dtype} linear"
    return operation.type


def _palette_bits(lut: ValueType) -> int:
    """From ``[2**n]`` up to iOS17, ``[..., 2**n, vector]`` since iOS18."""
    entries = lut.shape[0] if len(lut.shape) == 1 else lut.shape[-2]
    return (entries or 1).bit_length() - 1


def _parameter(operation: Operation, name: str) -> Argument:
    """An attribute up to iOS17, an input since iOS18."""
    if name in operation.attributes:
        return operation.attributes[name]
    return operation.inputs[name][0]

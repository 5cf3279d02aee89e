"""Compressed weights decoded, once for all loads of a model."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from sd_mil.cache import Cache, store_anywhere
from sd_mil.constexpr import decode, is_compressed
from sd_mil.ir.dtypes import NUMPY_DTYPES, SUB_BYTE_BITS
from sd_mil.ir.program import (
    Argument,
    Constant,
    Operation,
    Payload,
    Program,
    Reference,
    TensorType,
    Variable,
)
from sd_mil.ir.uses import constants_of, names_used, references
from sd_mil.residency import mapped_files, pages_dropped
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import DECODED, IN_ORDER
from sd_mil.storage import Array, Layout

#: Raised when a decoder's results change.
_DECODERS = 1
#: Decoded bytes from which on a file is worth it.
_WORTH_STORING = 32 << 20


@rewrites(requires=(IN_ORDER,), ensures=(IN_ORDER, DECODED))
def decode_constants(program: Program, cache: Cache | None = None) -> Program:
    """Put constants in the place of the operations that decode them.

    Given::   w = constexpr_lut_to_dense(indices=..., lut=..., shape=...)
    Result::  w = const(val=lut[indices])

    The same bits as coremltools'. Large ones are kept in a file, of ``cache`` or a temporary one, and mapped:
    a palettized model takes no more memory than one that never was.
    """
    operations = program.main.body.operations
    compressed = [operation for operation in operations if is_compressed(operation.type)]
    if not compressed:
        return program
    wanted = _wanted(program)
    layout = Layout(tuple(_stored_as(variable) for variable in wanted))
    constants = constants_of(operations)

    def decoded() -> Iterator[Array]:
        return _decode(compressed, constants, {variable.name for variable in wanted})

    if layout.length < _WORTH_STORING:
        arrays = list(decoded())
    else:
        with pages_dropped(mapped_files(program)):
            key = _key(compressed, constants)
            found = None if cache is None else cache.load(key, layout)
            arrays = store_anywhere(cache, key, layout, decoded) if found is None else found
    values = dict(zip((variable.name for variable in wanted), arrays, strict=True))
    return _replaced(program, values)


def _wanted(program: Program) -> list[Variable]:
    """Which decoded values other operations read, or the program returns; not those that stay packed."""
    body = program.main.body
    used = set(body.outputs)
    for operation in body.operations:
        if not is_compressed(operation.type):
            used |= names_used(operation)
    outputs = (
        one for operation in body.operations if is_compressed(operation.type) for one in operation.outputs
    )
    return [one for one in outputs if one.name in used and _is_plain(one)]


def _is_plain(variable: Variable) -> bool:
    kind = variable.type
    return isinstance(kind, TensorType) and kind.dtype not in SUB_BYTE_BITS and None not in kind.shape


def _stored_as(variable: Variable) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """What a decoder returns for the variable: bf16 and fp8, which numpy lacks, as fp32."""
    sizes = tuple(size for size in variable.type.shape if size is not None)
    return NUMPY_DTYPES.get(variable.type.dtype, np.dtype(np.float32)), sizes


def _decode(
    compressed: list[Operation], constants: Mapping[str, Constant], wanted: set[str]
) -> Iterator[Array]:
    """The arrays of ``wanted``, in order; what only other decoders read is kept until the last one has."""
    readers = Counter(name for operation in compressed for name in references(operation))
    known: dict[str, Constant] = {}

    def find(argument: Argument) -> Constant | None:
        if isinstance(argument, Constant):
            return argument
        return known.get(argument.name) or constants.get(argument.name)

    for operation in compressed:
        for name, constant in decode(operation, find).items():
            if readers[name]:
                known[name] = constant
            if name in wanted:
                yield np.asarray(constant.value)
        for name in references(operation):
            readers[name] -= 1
            if not readers[name]:
                known.pop(name, None)


def _key(compressed: list[Operation], constants: Mapping[str, Constant]) -> bytes:
    """What identifies the decoded content: the decoders, and all that they are given."""
    from importlib.metadata import version  # brings email and socket

    digest = hashlib.sha256(f"decoded weights {_DECODERS} {version('sd-mil')}".encode())
    with ThreadPoolExecutor(2) as executor:
        for part in executor.map(lambda operation: _digest(operation, constants), compressed):
            digest.update(part)
    return digest.digest()


def _digest(operation: Operation, constants: Mapping[str, Constant]) -> bytes:
    digest = hashlib.sha256(repr((operation.type, operation.outputs)).encode())
    arguments = {**operation.inputs, **{name: (one,) for name, one in operation.attributes.items()}}
    for name, given in sorted(arguments.items()):
        for argument in given:
            known = constants.get(argument.name) if isinstance(argument, Reference) else argument
            digest.update(f"{name} {argument.name if isinstance(argument, Reference) else ''}".encode())
            if known is not None:
                digest.update(f" {known.type} ".encode())
                _digest_payload(digest, known.value)
    return digest.digest()


def _digest_payload(digest: Any, value: Payload) -> None:
    if isinstance(value, np.ndarray | np.generic):
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    else:
        digest.update(repr(value).encode())


def _replaced(program: Program, values: Mapping[str, Array]) -> Program:
    """``program`` with a const for each of the values; decoders of anything else stay."""
    operations: list[Operation] = []
    for operation in program.main.body.operations:
        if not is_compressed(operation.type):
            operations.append(operation)
            continue
        operations.extend(_const(one, values[one.name]) for one in operation.outputs if one.name in values)
        left = tuple(one for one in operation.outputs if one.name not in values)
        if left:
            operations.append(replace(operation, outputs=_renamed(operation.outputs, values)))
    main = replace(program.main, body=replace(program.main.body, operations=tuple(operations)))
    return replace(program, functions={**program.functions, program.default_function: main})


def _renamed(outputs: tuple[Variable, ...], values: Mapping[str, Array]) -> tuple[Variable, ...]:
    """Outputs that a const defines now, under names that nothing reads."""
    return tuple(replace(one, name=f"{one.name}_encoded") if one.name in values else one for one in outputs)


def _const(variable: Variable, array: Array) -> Operation:
    dtype = variable.type.dtype if variable.type.dtype in NUMPY_DTYPES else "fp32"
    kind = TensorType(dtype, array.shape)
    value = Constant(kind, array, stored=array.nbytes)
    return Operation("const", variable.name, {}, (Variable(variable.name, kind),), {"val": value})

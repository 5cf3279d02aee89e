"""What crosses from piece to piece of a program that was cut (:mod:`.chunking`), and in which type."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sd_mil.ir.program import (
    Constant,
    Function,
    Operation,
    Program,
    Reference,
    TensorType,
    ValueType,
    Variable,
)
from sd_mil.ir.uses import types_in

from .building import Builder, defined_names

_NARROW: Final = "fp16"
_WIDE: Final = "fp32"


def crossing_in_fp16(pieces: Sequence[Program]) -> dict[str, tuple[str, ...]]:
    """The values in fp16 that pieces return for later ones, by the name of the function."""
    found: dict[str, tuple[str, ...]] = {}
    for name in pieces[0].functions:
        functions = [piece.functions[name] for piece in pieces]
        taken = [{variable.name for variable in function.inputs} for function in functions]
        crossing: list[str] = []
        for index, function in enumerate(functions):
            types, later = types_in(function.body), set[str]().union(*taken[index + 1 :])
            crossing += [
                output for output in function.outputs if output in later and _is_narrow(types[output])
            ]
        found[name] = tuple(dict.fromkeys(crossing))
    return found


def crossing_in_fp32(pieces: Sequence[Program], names: Mapping[str, Collection[str]]) -> tuple[Program, ...]:
    """The pieces with the fp16 values ``names``, by function, passed on in fp32, under names of their own.

    Given::   y = conv(x, w); -> (y)                                (y) z = conv(y, v); -> (z)
    Result::  y = conv(x, w); y_fp32 = cast(y, fp32); -> (y_fp32)   (y_fp32) y = cast(y_fp32, fp16); …

    An engine that computes floats in fp32, whatever their type, then rounds nothing on the way, and nothing
    overflows that the whole does not have overflow.
    """
    made: list[dict[str, Function]] = [{} for _ in pieces]
    for function, chosen in names.items():
        own = [piece.functions[function] for piece in pieces]
        taken = set[str]().union(*(defined_names(one.body) for one in own))
        builder = Builder(taken)
        wide = {name: builder.name(f"{name}_{_WIDE}") for name in chosen}
        for into, one in zip(made, own, strict=True):
            into[function] = _widened(one, wide)
    return tuple(
        replace(piece, functions={**piece.functions, **functions})
        for piece, functions in zip(pieces, made, strict=True)
    )


def _widened(function: Function, wide: Mapping[str, str]) -> Function:
    body = function.body
    types, given = types_in(body), {variable.name for variable in body.inputs}
    before, after = Builder.beside(body), Builder.beside(body)
    before.taken |= set(wide.values())
    after.taken |= set(wide.values())
    inputs = []
    for variable in body.inputs:
        if variable.name not in wide:
            inputs.append(variable)
            continue
        inputs.append(Variable(wide[variable.name], _typed(variable.type, _WIDE)))
        _cast(before, wide[variable.name], variable, _NARROW)
    after.taken |= before.taken
    outputs = []
    for name in body.outputs:
        is_wide = name in wide and name not in given
        outputs.append(wide[name] if is_wide else name)
        if is_wide:
            _cast(after, name, Variable(wide[name], _typed(types[name], _WIDE)), _WIDE)
    operations: tuple[Operation, ...] = (*before.operations, *body.operations, *after.operations)
    block = replace(body, inputs=tuple(inputs), operations=operations, outputs=tuple(outputs))
    return replace(function, body=block)


def _cast(builder: Builder, source: str, output: Variable, dtype: str) -> None:
    said = builder.const(f"{output.name}_dtype", Constant(TensorType("string", ()), dtype))
    builder.call("cast", output, x=Reference(source), dtype=said)


def _typed(kind: ValueType, dtype: str) -> TensorType:
    if not isinstance(kind, TensorType):
        raise TypeError(f"expected a tensor, got {kind}")
    return replace(kind, dtype=dtype)


def _is_narrow(kind: ValueType) -> bool:
    return isinstance(kind, TensorType) and kind.dtype == _NARROW

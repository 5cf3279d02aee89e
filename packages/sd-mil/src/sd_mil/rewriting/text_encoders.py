"""A text encoder with more tokens, or read out before its last layers: CLIP's, whoever converted it.

What is looked for is the shape of the network, not its names: ids that a table is asked for, and a chain of
sums (the residual stream), two of them to a layer, that a layer norm may end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sd_mil.errors import UnsupportedModelError
from sd_mil.ir.program import Block, Constant, Operation, Program, Reference, TensorType, Variable
from sd_mil.ir.uses import names_used, operand, references, with_operations
from sd_mil.rewriting.building import Builder, named
from sd_mil.rewriting.unused import drop_unused

_CONTENTS = frozenset(("cast", "identity"))
#: Sums that one layer adds to what comes in: attention's, and the feed-forward network's.
_SUMS = 2


def with_rows(
    program: Program, rows: npt.NDArray[np.floating], *, first: int, ids: str = "input_ids"
) -> Program:
    """``program`` with vectors ``rows`` (number, width) for the ids from ``first`` on.

    The table stays as it is, compressed or not: the new ids are looked up in one of their own, and count as 0
    everywhere else, so that a pooling that looks for the highest id finds the end of the prompt.

    Given::   i = cast(ids); e = gather(x=table, indices=i)
    Result::  i = cast(ids); known = less(i, first); old = i * known
              e = select(known, gather(table, old), gather(rows, (i - first) * !known))

    Raises:
        UnsupportedModelError: no table is asked for ``ids``, or it is of another width.
    """
    block = program.main.body
    numbers = _integers(block, ids)
    lookup = _lookup(block, {number.name for number in numbers})
    kind = lookup.outputs[0].type
    width = kind.shape[-1]
    if rows.ndim != 2 or width != rows.shape[1]:
        raise UnsupportedModelError(f"expected rows of {width} numbers for {lookup.name}, got {rows.shape}")
    builder = Builder.beside(block)
    given, is_known, old = _split(builder, numbers[0], first)
    table = rows.astype(np.float16 if kind.dtype == "fp16" else np.float32)
    own = Constant(TensorType(kind.dtype, table.shape), table, stored=table.nbytes)
    moved = Variable(builder.name(f"{lookup.outputs[0].name}_known"), kind)
    kept = replace(lookup, name=moved.name, outputs=(moved,))
    builder.operations.append(_renamed(kept, {each.name: old for each in numbers}))
    new = builder.call(
        "gather",
        builder.value("new_tokens", kind),
        x=builder.const("new_token_table", own),
        indices=given,
        axis=builder.integer("new_token_axis", 0),
        **({"batch_dims": builder.integer("new_token_batch", 0)} if "batch_dims" in lookup.inputs else {}),
    )
    shape = (*(numbers[0].type.shape), 1)
    which = builder.call(
        "expand_dims",
        builder.value("is_known_row", TensorType("bool", shape)),
        x=is_known,
        axes=builder.integers("is_known_axes", (-1,)),
    )
    builder.call("select", lookup.outputs[0], cond=which, a=Reference(moved.name), b=new)
    return with_operations(program, _in_place(block, lookup, builder, {each.name: old for each in numbers}))


def without_last_layers(program: Program, count: int, *, output: str) -> Program:
    """``program`` whose ``output`` is what there was ``count`` layers before, normalised as it was before.

    Given::   r1 = r0 + layer_1(r0); r2 = r1 + layer_2(r1); output = layer_norm(r2)
    Result::  r1 = r0 + layer_1(r0); output = layer_norm(r1)

    Other outputs stay what they are, and keep the layers that they need.

    Raises:
        UnsupportedModelError: ``output`` is no such sum, or has fewer layers.
    """
    if count == 0:
        return program
    block = program.main.body
    makers = _makers(block)
    if output not in makers:
        raise UnsupportedModelError(f"expected an output {output!r} that is computed, got {block.outputs}")
    ends = list(_contents(makers, output))  # from the output back to what it is a cast of
    last = makers[ends[-1]]
    norm = [last] if last.type == "layer_norm" else []
    start = _source(makers, operand(last, "x")) if norm else ends[-1]
    layers = list(_layers(makers, start))
    if count >= len(layers):
        raise UnsupportedModelError(
            f"expected at most {max(len(layers) - 1, 0)} layers to leave out before {output!r}, got {count}"
        )
    builder = Builder.beside(block)
    chain = [*norm, *(makers[name] for name in reversed(ends[:-1]))]
    whole = builder.name(f"{output}_whole")
    kept = [_returning(operation, {output: whole}) for operation in block.operations]
    value = layers[count]
    for place, operation in enumerate(chain):
        is_last = place == len(chain) - 1
        name = output if is_last else builder.name(f"{operation.outputs[0].name}_skipped")
        made = Variable(name, operation.outputs[0].type)
        given = {**operation.inputs, "x": (Reference(value),)}
        builder.operations.append(
            replace(operation, name=name, inputs=given, outputs=(made,), attributes=_named(operation, name))
        )
        value = name
    if not chain:
        builder.call("identity", Variable(output, makers[output].outputs[0].type), x=Reference(value))
    return drop_unused(with_operations(program, (*kept, *builder.operations)))


def _named(operation: Operation, name: str) -> dict[str, Constant]:
    return {**operation.attributes, **(named(name) if "name" in operation.attributes else {})}


def _makers(block: Block) -> dict[str, Operation]:
    return {output.name: operation for operation in block.operations for output in operation.outputs}


def _contents(makers: Mapping[str, Operation], name: str) -> Iterator[str]:
    """``name``, then what it is a cast of, and so on."""
    yield name
    while name in makers and makers[name].type in _CONTENTS:
        name = operand(makers[name], "x")
        yield name


def _source(makers: Mapping[str, Operation], name: str) -> str:
    *_, source = _contents(makers, name)
    return source


def _layers(makers: Mapping[str, Operation], name: str) -> Iterator[str]:
    """The residual stream after the last layer, before it, and so on back to what the first one sees."""
    place = 0
    found: str | None = name
    while found is not None:
        if place % _SUMS == 0:
            yield found
        found, place = _carried(makers, found), place + 1
    if place % _SUMS == 0:
        raise UnsupportedModelError(f"expected two sums for each layer up to {name!r}, got {place - 1}")


def _carried(makers: Mapping[str, Operation], name: str) -> str | None:
    """Of a sum, the part that the other one is computed from; None of any other value."""
    operation = makers.get(name)
    if operation is None or operation.type != "add":
        return None
    one, other = (_source(makers, operand(operation, side)) for side in "xy")
    for carried, branch in ((one, other), (other, one)):
        if carried in makers and carried in _needed(makers, branch):
            return carried
    return None


def _needed(makers: Mapping[str, Operation], name: str) -> set[str]:
    """Everything that ``name`` is computed from, itself left out."""
    needed: set[str] = set()
    waiting = [name]
    while waiting:
        operation = makers.get(waiting.pop())
        if operation is not None:
            new = set(references(operation)) - needed
            needed |= new
            waiting += new
    return needed


def _integers(block: Block, ids: str) -> list[Variable]:
    """The values that are ``ids`` as whole numbers."""
    names = {ids}
    found = [each for each in block.inputs if each.name == ids and each.type.dtype == "int32"]
    for operation in block.operations:
        if operation.type in _CONTENTS and operand(operation, "x") in names:
            names.add(operation.outputs[0].name)
            if operation.outputs[0].type.dtype == "int32":
                found.append(operation.outputs[0])
    if not found:
        raise UnsupportedModelError(f"expected an input {ids!r} that becomes whole numbers, got none")
    return found


def _lookup(block: Block, numbers: set[str]) -> Operation:
    """The one operation that takes rows of a table by these numbers."""
    asked = [
        each for each in block.operations if each.type == "gather" and operand(each, "indices") in numbers
    ]
    if len(asked) != 1:
        raise UnsupportedModelError(f"expected one table that is asked for the ids, got {len(asked)}")
    return asked[0]


def _split(builder: Builder, ids: Variable, first: int) -> tuple[Reference, Reference, Reference]:
    """Numbers in the new table (0 for known ids), whether an id is known, and the known ids (0 for new)."""
    shape = ids.type.shape
    whole, given = TensorType("int32", shape), Reference(ids.name)
    to = builder.const("ids_dtype", Constant(TensorType("string", ()), "int32"))
    border = builder.integer("first_new_id", first)
    is_known = builder.call("less", builder.value("is_known", TensorType("bool", shape)), x=given, y=border)
    known = builder.call("cast", builder.value("is_known_id", whole), x=is_known, dtype=to)
    old = builder.call("mul", builder.value("known_ids", whole), x=given, y=known)
    one = builder.integer("one", 1)
    new = builder.call("sub", builder.value("is_new_id", whole), x=one, y=known)
    behind = builder.call("sub", builder.value("ids_behind", whole), x=given, y=border)
    return builder.call("mul", builder.value("new_ids", whole), x=behind, y=new), is_known, old


def _in_place(
    block: Block, lookup: Operation, builder: Builder, names: Mapping[str, Reference]
) -> Iterable[Operation]:
    """``builder``'s operations as soon as their ids are there, and the other users of the ids renamed."""
    made, first = [], next(iter(names))
    inputs = {each.name for each in block.inputs}
    is_done = False
    table = _behind(block, lookup)
    for operation in block.operations:
        if operation is lookup:
            continue
        made.append(operation if operation.type in _CONTENTS else _renamed(operation, names))
        table -= {output.name for output in operation.outputs}
        if not is_done and not table and (first in inputs or _defines(made, first)):
            made += builder.operations
            is_done = True
    return made


def _behind(block: Block, lookup: Operation) -> set[str]:
    """What has to be there before the table is asked: its operands."""
    return set(names_used(lookup)) - {each.name for each in block.inputs}


def _defines(operations: Iterable[Operation], name: str) -> bool:
    return any(output.name == name for operation in operations for output in operation.outputs)


def _renamed(operation: Operation, names: Mapping[str, Reference]) -> Operation:
    """``operation`` with other values in the place of some."""
    inputs = {
        key: tuple(names.get(one.name, one) if isinstance(one, Reference) else one for one in given)
        for key, given in operation.inputs.items()
    }
    return replace(operation, inputs=inputs)


def _returning(operation: Operation, names: Mapping[str, str]) -> Operation:
    """``operation`` with other names of what it makes and of what it takes."""
    taken = _renamed(operation, {old: Reference(new) for old, new in names.items()})
    outputs = tuple(replace(each, name=names.get(each.name, each.name)) for each in operation.outputs)
    return replace(taken, outputs=outputs)

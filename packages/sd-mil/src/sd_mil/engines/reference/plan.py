"""Before anything runs: every operation bound to its implementation, or refused."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import numpy as np

import sd_mil.engines.reference.ops  # noqa: F401 - registers the operations
from sd_mil.engines.reference.payload import computed_dtype
from sd_mil.engines.reference.registry import Op, find_op
from sd_mil.errors import PackageError, UnsupportedOpError
from sd_mil.ir.program import Argument, Block, Constant, Operation, Variable, where
from sd_mil.ir.uses import constant_of, references


@dataclass(frozen=True, slots=True)
class Step:
    """One operation bound to its implementation, and the values that nothing needs after it."""

    operation: Operation
    op: Op
    arguments: Mapping[str, tuple[Argument, ...]]
    blocks: tuple[BlockPlan, ...]
    releases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """A block planned for numpy: constants apart (also those of outer scopes), the others in order.

    ``free`` has the values of outer scopes that it uses, which have to be given besides its inputs.
    """

    constants: Mapping[str, Constant]
    inputs: tuple[Variable, ...]
    free: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]


def plan(block: Block, outer: Mapping[str, Constant] | None = None) -> BlockPlan:
    """Bind the operations and find the last use of every value.

    Walks backwards: the first use that is seen is the last one, after which the value is released.

    Raises:
        UnsupportedOpError: an operation, parameter or choice that is not known.
        UnsupportedModelError: a value of a dtype that is not computed here.
        PackageError: a required parameter is missing, or has several values.
    """
    own, computations = _split_constants(block.operations)
    constants = ChainMap(own, dict(outer or {}))
    _check_types(computations)
    needed = {*constants, *block.outputs}
    steps = []
    for operation in reversed(computations):
        step, used = _bind(operation, constants, needed)
        needed |= used
        steps.append(step)
    return BlockPlan(
        constants=constants,
        inputs=block.inputs,
        free=_free(block, needed - constants.keys()),
        outputs=block.outputs,
        steps=tuple(reversed(steps)),
    )


def _split_constants(operations: Iterable[Operation]) -> tuple[dict[str, Constant], list[Operation]]:
    """The constants by name, and everything that has to be computed."""
    constants, computations = {}, []
    for operation in operations:
        value = constant_of(operation)
        if value is None:
            computations.append(operation)
        else:
            constants[operation.outputs[0].name] = value
    return constants, computations


def _free(block: Block, used: Set[str]) -> tuple[str, ...]:
    defined = {variable.name for variable in block.inputs}
    defined.update(variable.name for operation in block.operations for variable in operation.outputs)
    return tuple(sorted(used - defined))


def _check_types(operations: list[Operation]) -> None:
    unknown = [operation for operation in operations if find_op(operation.type) is None]
    if unknown:
        kinds = sorted({operation.type for operation in unknown})
        raise UnsupportedOpError(
            f"the reference engine does not know {where(unknown[0])}; "
            f"all that it does not know here: {', '.join(kinds)}"
        )


def _bind(operation: Operation, constants: Mapping[str, Constant], needed: Set[str]) -> tuple[Step, set[str]]:
    """The step, and the names that it uses."""
    op = find_op(operation.type)
    if op is None:  # checked before
        raise UnsupportedOpError(f"the reference engine does not know {where(operation)}")
    arguments = _arguments(operation, op, constants)
    if len(operation.blocks) != op.blocks:
        raise PackageError(
            f"expected {op.blocks} nested blocks in {where(operation)}, got {len(operation.blocks)}"
        )
    blocks = tuple(plan(block, constants) for block in operation.blocks)
    used = set(references(operation))
    used.update(name for block in blocks for name in block.free)
    own = [variable.name for variable in operation.outputs]
    releases = (*sorted(used - needed), *(name for name in own if name not in needed))
    return Step(operation, op, arguments, blocks, releases), used


def _arguments(
    operation: Operation, op: Op, constants: Mapping[str, Constant]
) -> Mapping[str, tuple[Argument, ...]]:
    given = {name: (value,) for name, value in operation.attributes.items() if name != "name"}
    arguments: dict[str, tuple[Argument, ...]] = {
        **given,
        **{k: v for k, v in operation.inputs.items() if v or k in op.variadic},
    }
    _check_names(operation, op, arguments.keys())
    for name, values in arguments.items():
        _check_argument(operation, op, name, values, constants)
    for variable in operation.outputs:
        computed_dtype(variable.type.dtype, where(operation))
    return {name: values for name, values in arguments.items() if name not in op.ignored}


def _check_names(operation: Operation, op: Op, given: Set[str]) -> None:
    known = op.signature.parameters
    unknown = sorted(given - known.keys() - op.ignored)
    if unknown:
        raise UnsupportedOpError(f"the reference engine does not know {unknown} of {where(operation)}")
    missing = [name for name, one in known.items() if one.default is one.empty and name not in given]
    if missing:
        raise PackageError(f"expected parameters {missing} of {where(operation)}, got {sorted(given)}")


def _check_argument(
    operation: Operation,
    op: Op,
    name: str,
    values: tuple[Argument, ...],
    constants: Mapping[str, Constant],
) -> None:
    if len(values) > 1 and name not in op.variadic:
        raise PackageError(f"expected one value for {name!r} of {where(operation)}, got {len(values)}")
    choices = op.choices.get(name)
    if choices is None:
        return
    value = _known(values[0], constants)
    if value not in choices:
        raise UnsupportedOpError(
            f"the reference engine does not know {name}={value!r} of {where(operation)}, "
            f"only {', '.join(map(repr, choices))}"
        )


def _known(argument: Argument, constants: Mapping[str, Constant]) -> object:
    """Text or a single number where it is constant, else None."""
    constant = argument if isinstance(argument, Constant) else constants.get(argument.name)
    value = None if constant is None else constant.value
    if isinstance(value, np.ndarray):
        return value.item() if value.ndim == 0 else None
    return value if isinstance(value, str) else None

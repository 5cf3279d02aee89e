"""Before anything runs: every operation bound to its implementation, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import numpy as np

from sd_mil.errors import PackageError, UnsupportedOpError
from sd_mil.program import Argument, Constant, Operation, Reference
from sd_mil.reference.ops import OPS
from sd_mil.reference.payload import computed_dtype
from sd_mil.reference.registry import Op


@dataclass(frozen=True, slots=True)
class Step:
    """One operation bound to its implementation, and the values that nothing needs after it."""

    operation: Operation
    op: Op
    arguments: Mapping[str, tuple[Argument, ...]]
    releases: tuple[str, ...]


def split_constants(operations: Iterable[Operation]) -> tuple[dict[str, Constant], list[Operation]]:
    """The constants by name, and everything that has to be computed."""
    constants, computations = {}, []
    for operation in operations:
        if operation.type == "const":
            constants[operation.outputs[0].name] = operation.attributes["val"]
        else:
            computations.append(operation)
    return constants, computations


def plan(
    operations: list[Operation], constants: Mapping[str, Constant], outputs: tuple[str, ...]
) -> tuple[Step, ...]:
    """Bind the operations and find the last use of every value.

    Walks backwards: the first use that is seen is the last one, after which the value is released.

    Raises:
        UnsupportedOpError: an operation, parameter or choice that is not known.
        UnsupportedModelError: a value of a dtype that is not computed here.
        PackageError: a required parameter is missing, or has several values.
    """
    _check_types(operations)
    needed = {*constants, *outputs}
    steps = []
    for operation in reversed(operations):
        op, arguments = _bind(operation, constants)
        own = [variable.name for variable in operation.outputs]
        used = {one.name for given in arguments.values() for one in given if isinstance(one, Reference)}
        releases = [*sorted(used - needed), *(name for name in own if name not in needed)]
        needed |= used
        steps.append(Step(operation, op, arguments, tuple(releases)))
    return tuple(reversed(steps))


def where(operation: Operation) -> str:
    """The operation as error messages say it: type, name and typed outputs."""
    outputs = ", ".join(f"{variable.name!r}: {variable.type}" for variable in operation.outputs)
    return f"operation {operation.type!r} named {operation.name!r} (output {outputs})"


def _check_types(operations: list[Operation]) -> None:
    unknown = [operation for operation in operations if operation.type not in OPS]
    if unknown:
        kinds = sorted({operation.type for operation in unknown})
        raise UnsupportedOpError(
            f"the reference engine does not know {where(unknown[0])}; "
            f"all that it does not know here: {', '.join(kinds)}"
        )


def _bind(
    operation: Operation, constants: Mapping[str, Constant]
) -> tuple[Op, Mapping[str, tuple[Argument, ...]]]:
    op = OPS[operation.type]
    given = {name: (value,) for name, value in operation.attributes.items() if name != "name"}
    arguments: dict[str, tuple[Argument, ...]] = {**given, **{k: v for k, v in operation.inputs.items() if v}}
    _check_names(operation, op, arguments.keys())
    for name, values in arguments.items():
        _check_argument(operation, op, name, values, constants)
    for variable in operation.outputs:
        computed_dtype(variable.type.dtype, where(operation))
    return op, {name: values for name, values in arguments.items() if name not in op.ignored}


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
    if len(values) > 1 and name != op.variadic:
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

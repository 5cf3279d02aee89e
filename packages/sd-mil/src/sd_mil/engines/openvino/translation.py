"""A program as an OpenVINO model: every operation handed to its translator, in order."""

from __future__ import annotations

from sd_mil.engines.openvino import library  # noqa: F401 (before openvino)

# isort: split
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import openvino.opset14 as ov
from openvino import Model, Node, Output, PartialShape, Type

import sd_mil.engines.openvino.ops  # noqa: F401 - registers the translators
from sd_mil.constexpr import decode, is_compressed
from sd_mil.engines.openvino.bounds import least_shape, violations_of
from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.dtypes import computed_dtype
from sd_mil.engines.openvino.registry import find_translator
from sd_mil.engines.openvino.scope import Scope
from sd_mil.engines.openvino.scores import fused_scores
from sd_mil.engines.openvino.sizes import SizedOutput
from sd_mil.engines.reference import compile_block
from sd_mil.engines.reference.registry import find_op
from sd_mil.errors import FAILURES, PackageError, SdMilError, UnsupportedOpError
from sd_mil.ir.limits import check_translated
from sd_mil.ir.program import (
    Block,
    Constant,
    Operation,
    Program,
    Reference,
    UnrankedType,
    ValueType,
    Variable,
)
from sd_mil.ir.uses import constant_of, references

#: The largest values with which the reference engine is asked about an operation while translating.
_TRIED_ELEMENTS = 1 << 20


def refuse_unsupported(program: Program) -> None:
    """Check that every operation has a translation.

    Raises: UnsupportedOpError with the name, type and output of the first that has none, and how many others.
    """
    _refuse([operation for operation in program.operations() if not _is_translated(operation)])


def refuse_unknown(program: Program) -> None:
    """Check that every operation has a translation or is known to the reference engine.

    Raises: UnsupportedOpError as :func:`refuse_unsupported`.
    """
    _refuse(
        [one for one in program.operations() if find_op(one.type) is None and not _is_translated(one)],
    )


def _refuse(unknown: list[Operation]) -> None:
    if not unknown:
        return
    first = unknown[0]
    outputs = ", ".join(f"{output.name}: {output.type}" for output in first.outputs) or "none"
    kinds = sorted({operation.type for operation in unknown})
    raise UnsupportedOpError(
        f"the portable engine does not run {first.type!r}: operation {first.name!r}, output {outputs}"
        f" ({len(unknown)} such operations; types {', '.join(kinds)})"
    )


@dataclass(frozen=True, slots=True)
class Translation:
    """A program as an OpenVINO model: parameters and results in the program's order.

    Where operations take indices, a last result says which of them, ``indexed``, had one out of range.
    ``sized`` are the values whose sizes are not known before running, and ``sizing`` the names of the inputs
    whose values, not only whose shapes, sizes are made of.
    """

    model: Model
    indexed: tuple[str, ...]
    sized: tuple[SizedOutput, ...]
    sizing: tuple[str, ...]


def translate_program(program: Program) -> Translation:
    """The default function as an OpenVINO model.

    Raises:
        PackageError: the program contradicts itself.
        UnsupportedOpError: an operation is used in a way that has no translation.
    """
    body = program.main.body
    scope, parameters = Scope(fused_scores(body.operations, body.outputs)), []
    for variable in program.main.inputs:
        parameters.append(parameter(variable))
        scope.define(variable.name, parameters[-1].output(0))
    for operation in program.main.body.operations:
        translate_operation(operation, scope)
    results = [ov.result(scope.output(Reference(name))) for name in program.main.outputs]
    if scope.violations:
        results.append(ov.result(violations_of(scope.violations)))
    model = Model(results, parameters, program.main.name)
    indexed = tuple(where for _, where in scope.violations)
    return Translation(model, indexed, tuple(scope.sized), tuple(sorted(scope.sizing)))


def _is_translated(operation: Operation) -> bool:
    if operation.type == "const" or is_compressed(operation.type):
        return True
    return find_translator(operation.type) is not None and not operation.blocks


def constant_value(operation: Operation) -> Constant:
    """The value of a ``const`` operation, kept as attribute or as parameter.

    Raises: PackageError when it has none.
    """
    value = constant_of(operation)
    if value is None:
        raise PackageError(f"expected a value for const {operation.name!r}, got none")
    return value


def _partial_shape(kind: ValueType) -> PartialShape:
    if isinstance(kind, UnrankedType):
        return PartialShape.dynamic()
    return PartialShape([-1 if size is None else size for size in kind.shape])


def parameter(variable: Variable) -> Node:
    """A graph input of the variable's shape, in the type it is computed in.

    Raises: UnsupportedModelError for text and sub-byte types.
    """
    shape = _partial_shape(variable.type)
    computed = computed_dtype(variable.type.dtype, where=f"input {variable.name!r}")
    return ov.parameter(shape, Type(computed), name=variable.name)


def translate_operation(operation: Operation, scope: Scope) -> None:
    """Bind the operation's outputs in the scope: graph outputs, or constants.

    Raises:
        PackageError: the operation contradicts itself.
        UnsupportedOpError: it is used in a way that has no translation.
    """
    if operation.type == "const":
        scope.define(operation.outputs[0].name, constant_value(operation))
        return
    if is_compressed(operation.type):
        for name, constant in decode(operation, scope.constant).items():
            scope.define(name, constant)
        return
    translator = find_translator(operation.type)
    if translator is None:  # only when a pass wrote an operation that nothing translates
        raise UnsupportedOpError(f"the portable engine does not run {operation.type!r}: {operation.name!r}")
    try:
        translated = translator(Call(operation, scope))
    except SdMilError:
        raise
    except FAILURES as error:  # OpenVINO's, when arguments do not fit; Python's, for numbers that are none
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        _refuse_contradiction(operation, scope, reason)
        if "dynamic" in reason:
            reason = "a shape that is not known before running"
        raise Call(operation, scope).unsupported(f"these arguments: {reason}") from error
    outputs = list(translated) if isinstance(translated, Sequence) else [translated]
    _define_outputs(operation, outputs, scope)


def _refuse_contradiction(operation: Operation, scope: Scope, reason: str) -> None:
    """Tell arguments that do not fit each other from those that only OpenVINO does not take.

    The reference engine is asked, with zeros for what is computed, if they are few and their shapes known.

    Raises: PackageError when it cannot compute the operation either.
    """
    used = map(Reference, references(operation))
    data = {one.name: one for one in used if scope.constant(one) is None}
    shapes = {name: scope.output(one).get_partial_shape() for name, one in data.items()}
    known = all(shape.is_static and prod(shape.to_shape()) <= _TRIED_ELEMENTS for shape in shapes.values())
    if not known or find_op(operation.type) is None:
        return
    zeros = {
        name: np.zeros(tuple(shapes[name].to_shape()), scope.output(one).get_element_type().to_dtype())
        for name, one in data.items()
    }
    inputs = {
        key: tuple(scope.constant(one) or one for one in given) for key, given in operation.inputs.items()
    }
    outputs = tuple(variable.name for variable in operation.outputs)
    try:
        compile_block(Block((), (replace(operation, inputs=inputs),), outputs)).run(zeros)
    except PackageError as error:
        raise PackageError(f"{operation.type} {operation.name!r} contradicts itself: {reason}") from error


def _define_outputs(operation: Operation, outputs: list[Output], scope: Scope) -> None:
    """Name the results, after holding their shapes to what the program declares."""
    if len(outputs) != len(operation.outputs):
        raise PackageError(
            f"expected {len(outputs)} outputs of {operation.type} {operation.name!r},"
            f" got {len(operation.outputs)}"
        )
    for variable, output in zip(operation.outputs, outputs, strict=True):
        if output.get_partial_shape().rank.is_dynamic:  # OpenVINO's plugin for processors takes none
            raise Call(operation, scope).unsupported("a rank that is not known before running")
        least, is_fused = least_shape(output), variable.name in scope.fused
        check_translated(operation.type, operation.name, least, is_fused=is_fused)
        if output.get_partial_shape().is_dynamic:
            scope.sized.append(SizedOutput(output, operation.type, operation.name, is_fused))
        if output.get_partial_shape().is_static and 0 in output.get_shape():
            raise Call(operation, scope).unsupported("a result of no elements")
        declared = _partial_shape(variable.type)
        if not output.get_partial_shape().compatible(declared):
            raise PackageError(
                f"{operation.type} {operation.name!r} computes {variable.name!r} of shape"
                f" {output.get_partial_shape()}, but declares {variable.type}"
            )
        scope.define(variable.name, output)

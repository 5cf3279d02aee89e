"""What a system is too old for, and files that contradict themselves about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sd_mil.analysis.lint.rule import Hit, Source, rule
from sd_mil.analysis.lint.scope import Scope
from sd_mil.ir.opsets import first_with, gone_with
from sd_mil.ir.targets import OPSETS, Target

_VERSIONS: Final = Source(
    "coremltools 9.0: AvailableTarget, _OPSET and the registry of operations",
    "https://github.com/apple/coremltools/blob/9.0/coremltools/converters/mil/_deployment_compatibility.py",
    "read 2026-11",
)
_INT8: Final = 26


def _newest(system: int) -> Target:
    """What a system reads; 27 has no operations of its own that are known."""
    return max((one for one in OPSETS.values() if one.number <= system), key=lambda one: one.number)


@rule(
    "specification-version",
    "error",
    says="A system loads no model of a later specification version than its own.",
    change="convert the model for the older system, or raise the app's minimum",
    source=_VERSIONS,
)
def specification_version(scope: Scope) -> Iterator[Hit]:
    """Files that are newer than the system."""
    version, known = scope.package.specification_version, _newest(scope.os).specification
    is_default = scope.function.name == scope.package.program.default_function
    if version > known and is_default:
        yield Hit(f"specification version {version}, where the system reads up to {known}")


@rule(
    "opset-version",
    "error",
    says="A system runs no function that is written in a later set of operations than its own.",
    change="convert the model for the older system, or raise the app's minimum",
    source=_VERSIONS,
)
def opset_version(scope: Scope) -> Iterator[Hit]:
    """Functions that are newer than the system."""
    written = OPSETS.get(scope.function.opset)
    if written is None:
        yield Hit(f"the set of operations {scope.function.opset!r}, which is not known")
    elif written.number > _newest(scope.os).number:
        yield Hit(f"operations of {written.opset}, where the system has those of {_newest(scope.os).opset}")


@rule(
    "operation-version",
    "error",
    says="An operation has to exist, in the form that is used, in the set of operations that the "
    "function names.",
    change="convert the model for the system that has the operation",
    source=_VERSIONS,
)
def operation_version(scope: Scope) -> Iterator[Hit]:
    """Operations that came later, or are gone."""
    written = OPSETS.get(scope.function.opset)
    for operation in scope.operations if written is not None else ():
        number = written.number if written is not None else 0
        first, gone = first_with(operation), gone_with(operation)
        if first > number:
            yield Hit(f"{operation.type} in this form came with iOS {first}, not iOS {number}", operation)
        elif gone is not None and gone <= number:
            yield Hit(f"{operation.type} has another form from iOS {gone} on", operation)


@rule(
    "specification-opset",
    "error",
    says="A file has to be of the specification version of its newest function, or of a later one.",
    change="write the package again with that version",
    source=_VERSIONS,
)
def specification_opset(scope: Scope) -> Iterator[Hit]:
    """Functions that are newer than their file."""
    written, version = OPSETS.get(scope.function.opset), scope.package.specification_version
    if written is not None and written.specification > version:
        yield Hit(
            f"operations of {written.opset} (version {written.specification}) in a file of version {version}"
        )


@rule(
    "int8-ports",
    "error",
    says="int8 inputs and outputs came with iOS 26 and macOS 26.",
    change="convert for iOS26, or cast to int32 or float16 at the model's edge",
    source=Source(
        "coremltools 9.0: int8 dtype for inputs is only supported for deployment target >= iOS26",
        "https://github.com/apple/coremltools/blob/9.0/coremltools/converters/_converters_entry.py",
        "read 2026-11",
    ),
)
def int8_ports(scope: Scope) -> Iterator[Hit]:
    """int8 ports for an older system, or in an older file."""
    is_old = scope.os < _INT8 or scope.package.specification_version < _newest(_INT8).specification
    for port in (*scope.description.inputs, *scope.description.outputs):
        if port.dtype == "int8" and is_old:
            yield Hit(f"port {port}")

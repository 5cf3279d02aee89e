"""``ModelDescription`` of Model.proto: ports and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sd_mil.errors import PackageError
from sd_mil.format.features import read_port
from sd_mil.format.wire import Message
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.ports import AnyShape, Description, Port
from sd_mil.ir.program import (
    DictionaryType,
    Function,
    Program,
    StateType,
    TensorType,
    UnrankedType,
    ValueType,
    Variable,
)

_DEFAULT_FUNCTION = "main"
#: The fields that are read of a ``ModelDescription`` without functions, of one with functions, and so on.
_MODEL_PORTS = frozenset({1, 10, 11, 12, 13, 100})
_FUNCTIONS = frozenset({20, 21, 100})
_FUNCTION_PORTS = frozenset({1, 2, 3, 4, 5, 6})
_METADATA = frozenset({1, 2, 3, 4, 100})


def default_function(description: Message) -> str:
    """The function that runs unless another is named."""
    return description.text(21) or _DEFAULT_FUNCTION


def read_descriptions(
    message: Message, program: Program, unknown: bytes = b""
) -> tuple[Description, Mapping[str, Description]]:
    """Ports and metadata, of the default function and of each that is described by name, held against types.

    ``unknown``: the fields of the model beside its description that nobody reads.

    Raises:
        PackageError: the description and the program disagree.
        UnsupportedModelError: a kind of feature that is not run here.
    """
    described = {one.text(1): one for one in message.messages(20)}
    names = dict.fromkeys((*described, program.default_function))
    missing = [name for name in names if name not in program.functions]
    if missing:
        raise PackageError(f"expected functions {sorted(program.functions)} to be described, got {missing}")
    found = {
        name: _with_unknown(_described(message, described.get(name), program.functions[name]), unknown)
        for name in names
    }
    return found[program.default_function], found if described else {}


def _with_unknown(description: Description, unknown: bytes) -> Description:
    if not unknown:
        return description
    return replace(description, unknown={"Model": unknown, **description.unknown})


def read_model_description(message: Message, unknown: bytes = b"") -> Description:
    """Ports and metadata of a model that is no program, as they are stated; ``unknown`` is as of programs.

    Raises:
        UnsupportedModelError: a kind of feature that is not run here.
    """
    return _with_unknown(_stated(message, None), unknown)


def _described(message: Message, own: Message | None, function: Function) -> Description:
    stated = _stated(message, own)
    kinds = {variable.name: variable.type for variable in function.inputs}
    states = {name: kind for name, kind in kinds.items() if isinstance(kind, StateType)}
    inputs = {name: kind for name, kind in kinds.items() if name not in states}
    return replace(
        stated,
        inputs=_agreed(stated.inputs, inputs, "input"),
        outputs=_agreed(stated.outputs, _outputs(function), "output"),
        states=_agreed(stated.states, states, "state"),
    )


def _stated(message: Message, own: Message | None) -> Description:
    """What the description says of one function, or of the model where it has no functions."""
    source, numbers = (message, (1, 10, 13, 11, 12)) if own is None else (own, (2, 3, 6, 4, 5))
    metadata = message.message(100) or Message(b"")
    return Description(
        inputs=_ports(source, numbers[0], "input"),
        outputs=_ports(source, numbers[1], "output"),
        short_description=metadata.text(1),
        version=metadata.text(2),
        author=metadata.text(3),
        license=metadata.text(4),
        user_defined={entry.text(1): entry.text(2) for entry in metadata.messages(100)},
        states=_ports(source, numbers[2], "state"),
        label=source.text(numbers[3]),
        probabilities=source.text(numbers[4]),
        unknown=_unknown(message, metadata, own),
    )


def _unknown(message: Message, metadata: Message, own: Message | None) -> dict[str, bytes]:
    """What is left of the messages, where something is."""
    found = {
        "ModelDescription": message.unknown(_MODEL_PORTS if own is None else _FUNCTIONS),
        "Metadata": metadata.unknown(_METADATA),
        "FunctionDescription": b"" if own is None else own.unknown(_FUNCTION_PORTS),
    }
    return {name: fields for name, fields in found.items() if fields}


def _ports(source: Message, number: int, side: str) -> tuple[Port, ...]:
    ports = tuple(read_port(one, f"{side} {one.text(1)!r}") for one in source.messages(number))
    if side == "output":  # coremltools describes a tensor that is returned twice as often
        ports = tuple(dict.fromkeys(ports))
    names = [port.name for port in ports]
    if len(set(names)) != len(names):
        raise PackageError(f"expected a name for each {side}, got {sorted(names)}")
    return ports


def _outputs(function: Function) -> dict[str, ValueType]:
    """The values that the function returns; one may be an input passed through."""
    visible: dict[str, Variable] = {variable.name: variable for variable in function.inputs}
    for operation in function.body.operations:
        visible.update({variable.name: variable for variable in operation.outputs})
    return {name: visible[name].type for name in function.outputs}


def _agreed(ports: tuple[Port, ...], declared: Mapping[str, ValueType], side: str) -> tuple[Port, ...]:
    if sorted(port.name for port in ports) != sorted(declared):
        names = sorted(port.name for port in ports)
        raise PackageError(f"expected {side}s {sorted(declared)} as in the program, got {names}")
    return tuple(_completed(port, declared[port.name], side) for port in ports)


def _completed(port: Port, declared: ValueType, side: str) -> Port:
    """The port with what the description leaves to the program.

    coremltools leaves the shape of some outputs out; sizes that the program does not know are not believed.
    """
    if isinstance(declared, UnrankedType) and side == "output" and not port.shape:
        return replace(port, flexibility=AnyShape())
    shape = port.shape or declared.shape
    if side == "output" and len(shape) == len(declared.shape) and port.flexibility is None:
        shape = tuple(
            None if known is None else size for size, known in zip(shape, declared.shape, strict=True)
        )
    completed = replace(port, shape=shape)
    if port.kind == "image" and declared.dtype in ("fp16", "fp32"):
        completed = replace(completed, dtype=NUMPY_DTYPES[declared.dtype].name)
    if not _agrees(completed, declared) or (side != "output" and None in shape):
        raise PackageError(
            f"expected {side} {port.name!r} to be {declared} as in the program, got {port.expected}"
        )
    return completed


def _agrees(port: Port, declared: ValueType) -> bool:
    if port.kind == "dictionary":
        return isinstance(declared, DictionaryType)
    if port.kind == "string":
        return isinstance(declared, TensorType) and declared.dtype == "string" and declared.shape == ()
    if port.kind in ("int64", "double"):
        integer = declared.dtype.lstrip("u").startswith("int")
        return integer == (port.kind == "int64") and set(declared.shape) <= {1}
    dtype = NUMPY_DTYPES.get(declared.dtype)
    if (port.kind == "state") != isinstance(declared, StateType) or dtype != port.dtype:
        return False
    if isinstance(declared, UnrankedType):
        return port.kind != "state"
    return len(port.shape) == len(declared.shape) and all(map(_compatible, port.shape, declared.shape))


def _compatible(size: int | None, declared: int | None) -> bool:
    return declared is None or size == declared

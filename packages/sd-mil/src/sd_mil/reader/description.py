"""``ModelDescription`` of Model.proto: ports and metadata."""

from __future__ import annotations

from sd_mil.dtypes import NUMPY_DTYPES
from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.program import Description, Function, Port, ValueType, Variable
from sd_mil.reader.wire import Message

_ARRAY_DTYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131080: "int8", 131104: "int32"}
_FEATURES = {
    1: "an int64 scalar",
    2: "a double scalar",
    3: "a string",
    4: "an image",
    6: "a dictionary",
    7: "a sequence",
    8: "a state",
}
_ARRAY = 5
_FLEXIBLE = (21, 31)
_DEFAULT_FUNCTION = "main"


def default_function(description: Message) -> str:
    """The function that runs unless another is named."""
    return description.text(21) or _DEFAULT_FUNCTION


def read_description(message: Message, function: Function) -> Description:
    """Ports of the default function and metadata, held against the types that the program declares.

    Raises:
        PackageError: the description and the program disagree.
        UnsupportedModelError: images, sequences, states, flexible shapes.
    """
    inputs, outputs, states = _features(message, function.name)
    if states:
        raise UnsupportedModelError(f"expected a model without state, got {len(states)} state features")
    metadata = message.message(100) or Message(b"")
    return Description(
        inputs=_ports(inputs, {variable.name: variable for variable in function.inputs}, "input"),
        outputs=_ports(outputs, _outputs(function), "output"),
        short_description=metadata.text(1),
        version=metadata.text(2),
        author=metadata.text(3),
        license=metadata.text(4),
        user_defined={entry.text(1): entry.text(2) for entry in metadata.messages(100)},
    )


def _features(message: Message, function: str) -> tuple[list[Message], list[Message], list[Message]]:
    for described in message.messages(20):
        if described.text(1) == function:
            return described.messages(2), described.messages(3), described.messages(6)
    return message.messages(1), message.messages(10), message.messages(13)


def _outputs(function: Function) -> dict[str, Variable]:
    """The variables that the function returns; one may be an input passed through."""
    visible = {variable.name: variable for variable in function.inputs}
    for operation in function.body.operations:
        visible.update({variable.name: variable for variable in operation.outputs})
    return {name: visible[name] for name in function.outputs}


def _ports(features: list[Message], declared: dict[str, Variable], side: str) -> tuple[Port, ...]:
    names = [feature.text(1) for feature in features]
    if sorted(names) != sorted(declared):
        raise PackageError(f"expected {side}s {sorted(declared)} as in the program, got {sorted(names)}")
    return tuple(_port(feature, declared[feature.text(1)], side) for feature in features)


def _port(feature: Message, variable: Variable, side: str) -> Port:
    where = f"{side} {variable.name!r}"
    array = _array_feature(feature.message(3) or Message(b""), where)
    number = array.integer(2)
    if number not in _ARRAY_DTYPES:
        raise PackageError(f"expected an array dtype for {where}, got number {number}")
    port = Port(
        name=variable.name,
        shape=_port_shape(array, variable.type, where),
        dtype=_ARRAY_DTYPES[number],
        description=feature.text(2),
    )
    _check_agreement(port, variable.type, where)
    return port


def _array_feature(kind: Message, where: str) -> Message:
    array = kind.message(_ARRAY)
    if array is None:
        found = next((name for number, name in _FEATURES.items() if number in kind), "nothing")
        raise UnsupportedModelError(f"expected a multi-array for {where}, got {found}")
    if any(number in array for number in _FLEXIBLE):
        raise UnsupportedModelError(f"expected a fixed shape for {where}, got a flexible one")
    return array


def _port_shape(array: Message, declared: ValueType, where: str) -> tuple[int, ...]:
    """coremltools leaves the shape of some outputs out; the program then has it."""
    shape = tuple(array.integers(1).tolist()) or declared.shape
    if any(size is None or size < 0 for size in shape):
        raise UnsupportedModelError(f"expected a fixed shape for {where}, got {declared}")
    return tuple(size for size in shape if size is not None)


def _check_agreement(port: Port, declared: ValueType, where: str) -> None:
    same_dtype = NUMPY_DTYPES.get(declared.dtype) == port.dtype
    same_rank = len(port.shape) == len(declared.shape)
    if not (same_dtype and same_rank and all(map(_compatible, port.shape, declared.shape))):
        raise PackageError(
            f"expected {where} to be {declared} as in the program, got {port.dtype}{list(port.shape)}"
        )


def _compatible(size: int, declared: int | None) -> bool:
    return declared is None or size == declared

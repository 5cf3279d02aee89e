"""``model.mil`` as Core ML's compiler prints it.

It differs from :func:`sd_mil.print_program` in order and white space alone, read off compiled models of
coremlc 3500 and 3520: inputs of functions, parameters and attributes are sorted by name, operations are
indented by 12, and functions of flexible inputs say so in an attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from sd_mil.format.text.printing import Dialect, Printer
from sd_mil.format.text.tokens import quoted
from sd_mil.ir.ports import Description, EnumeratedShapes, Port, ShapeRange
from sd_mil.ir.program import (
    Blob,
    DictionaryType,
    Function,
    ListType,
    Program,
    TensorType,
    ValueType,
    Variable,
)

_T = TypeVar("_T")
_TEXT = TensorType("string", ())
_SHAPE = TensorType("int32", (None,))
_OLD_OPSETS = ("CoreML5", "CoreML6", "CoreML7")


def compiled_text(
    program: Program,
    descriptions: Mapping[str, Description],
    build_info: Mapping[str, str],
    *,
    blob: Callable[[Blob], Blob] = lambda blob: blob,
) -> Iterator[str]:
    """The lines of ``model.mil``, of which the last has no line feed.

    ``descriptions``: by function. ``build_info``: what the compiler says of itself; what the program says of
    its making follows. ``blob``: where a stored constant will lie, of where it lies now.

    Raises:
        UnsupportedModelError: a value without a text form.
    """
    old = all(function.opset in _OLD_OPSETS for function in program.functions.values())
    printer = _CompilerPrinter("1.0" if old else "1.3", descriptions, build_info, blob)
    previous = ""
    for line in printer.program(program):
        if previous:
            yield f"{previous}\n"
        previous = line
    yield previous


class _CompilerPrinter(Printer):
    body_indent = " " * 8

    def __init__(
        self,
        dialect: Dialect,
        descriptions: Mapping[str, Description],
        build_info: Mapping[str, str],
        blob: Callable[[Blob], Blob],
    ) -> None:
        super().__init__(dialect)
        self._blob_there = blob
        self._descriptions = descriptions
        self._build_info = build_info

    def build_info(self, program: Program) -> Mapping[str, str]:
        own = program.attributes.get("buildInfo")
        said = own.value if own is not None and isinstance(own.value, Mapping) else {}
        return dict(sorted({**said, **self._build_info}.items()))

    def place(self, blob: Blob) -> Blob:
        return self._blob_there(blob)

    def function_inputs(self, function: Function) -> tuple[Variable, ...]:
        return tuple(sorted(function.inputs, key=lambda variable: variable.name))

    def named(self, arguments: Mapping[str, _T]) -> Iterable[tuple[str, _T]]:
        return sorted(arguments.items())

    def function_attributes(self, function: Function) -> str:
        """``FlexibleShapeInformation``: default shapes, and the ranges or the list of all shapes."""
        description = self._descriptions[function.name]
        ports = sorted(description.inputs, key=lambda port: port.name)
        ranged = [port for port in ports if port.name in _ranges(ports)]
        listed = [port for port in ports if isinstance(port.flexibility, EnumeratedShapes)]
        if not ranged and not listed:
            return ""
        defaults = self._entry(
            "DefaultShapes", _SHAPE, {port.name: _sizes(port.shape) for port in [*ranged, *listed]}
        )
        if listed:
            kind, shapes = DictionaryType(_TEXT, _SHAPE), _enumerated(listed)
            second = self._entry("EnumeratedShapes", kind, shapes)
        else:
            bounds = {name: _bounds(shapes) for name, shapes in _ranges(ports).items()}
            second = self._entry("RangeDims", ListType(TensorType("int32", (2,)), None), bounds)
        (kind_of_defaults, said_defaults), (kind_of_second, said_second) = defaults, second
        kinds = f"tuple<{kind_of_defaults}, {kind_of_second}>"
        return f" [FlexibleShapeInformation = {kinds}(({said_defaults}, {said_second}))]"

    def _entry(self, name: str, kind: ValueType, values: Mapping[str, str]) -> tuple[str, str]:
        """The type of a pair of a name and a dictionary, and the pair itself."""
        pairs = ", ".join(f"{{{quoted(key)}, {value}}}" for key, value in values.items())
        said_kind = f"tuple<{self.type(_TEXT)}, dict<{self.type(_TEXT)}, {self.type(kind)}>>"
        return said_kind, f"({quoted(name)}, {{{pairs}}})"


def _sizes(shape: Iterable[int | None]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"


def _ranges(ports: Iterable[Port]) -> dict[str, ShapeRange]:
    return {port.name: port.flexibility for port in ports if isinstance(port.flexibility, ShapeRange)}


def _bounds(shapes: ShapeRange) -> str:
    pairs = (f"[{low}, {-1 if high is None else high}]" for low, high in shapes.bounds)
    return f"[{', '.join(pairs)}]"


def _enumerated(ports: list[Port]) -> dict[str, str]:
    """Every combination that there is of the ports' shapes: the first of each, the second, ..."""
    shapes = [port.flexibility.shapes for port in ports if isinstance(port.flexibility, EnumeratedShapes)]
    combined = zip(*shapes, strict=False)
    return {
        f"shape{number}": "{"
        + ", ".join(
            f"{{{quoted(port.name)}, {_sizes(shape)}}}" for port, shape in zip(ports, one, strict=True)
        )
        + "}"
        for number, one in enumerate(combined)
    }

"""An ML Program as plain frozen values: what every reader produces and every engine walks.

The vocabulary is MIL's own. A :class:`Program` has functions; a function has typed inputs, operations in
SSA order and the names it returns; an operation binds named parameters to arguments, and an argument is the
name of an earlier value or an immediate constant.

``unknown`` of a message are fields of the file that this reader does not know, as they are encoded there, so
that a later version's are written again. Types and values have none: the reader refuses those.

Dtypes carry MIL's names: ``fp16 fp32 fp64 bool string int8 ... uint64`` and the sub-byte ``int4 uint1 ...``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_mil.ir.ports import Description
from sd_mil.ir.tensors import Tensor

#: The elements of a constant. Those of a weight file are views of the mapped file: writable, but
#: copy-on-write, so the file never changes. Sub-byte types (``int4 uint1 ...``) stay packed, LSB first, in a
#: flat uint8 array; bf16 and fp8, which numpy lacks, are their raw bits.
Payload: TypeAlias = "npt.NDArray[np.generic] | str | tuple[str, ...] | Mapping[str, str]"


@dataclass(frozen=True, slots=True)
class TensorType:
    """Dtype and shape of a value; ``None`` marks a dimension that is not known before running."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        """As in MIL's own text: ``fp16[2, ?, 64]``."""
        dims = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype}[{dims}]"


@dataclass(frozen=True, slots=True)
class UnrankedType(TensorType):
    """A tensor of which not even the rank is known, as ``fill`` to a shape of unknown length makes it.

    Its shape is what coremltools writes for it: one size that is not known, standing for any number of them.
    """

    shape: tuple[int | None, ...] = (None,)

    def __str__(self) -> str:
        """``fp16[...]``."""
        return f"{self.dtype}[...]"


@dataclass(frozen=True, slots=True)
class ListType:
    """A list of tensors of one type; a ``length`` of ``None`` is not known before running."""

    element: TensorType
    length: int | None

    @property
    def dtype(self) -> str:
        """The dtype of an element."""
        return self.element.dtype

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of an element."""
        return self.element.shape

    def __str__(self) -> str:
        """As in MIL's own text: ``list<fp16[2, 64], ?>``."""
        return f"list<{self.element}, {'?' if self.length is None else self.length}>"


@dataclass(frozen=True, slots=True)
class StateType:
    """A tensor that lives on between runs; ``read_state`` and ``write_state`` are its only uses."""

    tensor: TensorType

    @property
    def dtype(self) -> str:
        """The dtype of the tensor."""
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of the tensor."""
        return self.tensor.shape

    def __str__(self) -> str:
        """As in MIL's own text: ``state<fp16[2, 64]>``."""
        return f"state<{self.tensor}>"


@dataclass(frozen=True, slots=True)
class DictionaryType:
    """What ``classify`` returns: a number by label."""

    key: TensorType
    value: TensorType

    @property
    def dtype(self) -> str:
        """The dtype of a value."""
        return self.value.dtype

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of a value."""
        return self.value.shape

    def __str__(self) -> str:
        """As in MIL's own text: ``dict<string[], fp64[]>``."""
        return f"dict<{self.key}, {self.value}>"


PipelineKind: TypeAlias = Literal["pipeline", "classifier", "regressor"]

ValueType: TypeAlias = TensorType | ListType | StateType | DictionaryType


@dataclass(frozen=True, slots=True)
class Variable:
    """A named, typed value of the graph."""

    name: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class Blob:
    """Where a stored constant lies: the file as the model names it, and the offset of its record."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is known before running.

    ``content`` is the value itself, or a :class:`~sd_mil.ir.tensors.Tensor` that is read when it is asked
    for. ``stored`` is the number of bytes it takes in a weight file, 0 when it is inline; ``blob`` is where
    in a file it was found. The elements of a list are strings in a tuple, or one array whose first axis runs
    over the list.
    """

    type: ValueType
    content: Payload | Tensor
    stored: int = 0
    blob: Blob | None = None

    @property
    def value(self) -> Payload:
        """The value; a tensor is read now."""
        content = self.content
        if isinstance(content, np.ndarray | np.generic | str | tuple | dict):
            return content  # nearly always; asking whether something is a Tensor takes microseconds
        return content.read() if isinstance(content, Tensor) else content


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of a value that an earlier operation or an input defines."""

    name: str


Argument: TypeAlias = Reference | Constant


@dataclass(frozen=True, slots=True)
class Operation:
    """One MIL operation.

    ``inputs`` maps a parameter name to its arguments: one, or several for variadic parameters such as
    ``concat(values=...)``. ``attributes`` holds what older dialects keep outside the parameters: ``name``,
    the ``val`` of a ``const``, the parameters of iOS16 ``constexpr_*``.
    """

    type: str
    name: str
    inputs: Mapping[str, tuple[Argument, ...]]
    outputs: tuple[Variable, ...]
    attributes: Mapping[str, Constant] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    unknown: bytes = b""


def where(operation: Operation) -> str:
    """The operation as error messages say it: type, name and typed outputs."""
    outputs = ", ".join(f"{variable.name!r}: {variable.type}" for variable in operation.outputs)
    return f"operation {operation.type!r} named {operation.name!r} (output {outputs})"


@dataclass(frozen=True, slots=True)
class Block:
    """Operations in SSA order and the names they return; nested in control flow, or a function's body."""

    inputs: tuple[Variable, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Constant] = field(default_factory=dict)
    unknown: bytes = b""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the program: its body, and the opset (``CoreML6`` ... ) the body is written in.

    ``specializations`` are bodies in other opsets, which are kept and not run.
    """

    name: str
    opset: str
    body: Block
    attributes: Mapping[str, Constant] = field(default_factory=dict)
    specializations: Mapping[str, Block] = field(default_factory=dict)
    unknown: bytes = b""

    @property
    def inputs(self) -> tuple[Variable, ...]:
        """The typed inputs, in order."""
        return self.body.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names it returns, in order."""
        return self.body.outputs


@dataclass(frozen=True, slots=True)
class Program:
    """All functions of a model. ``attributes`` has ``buildInfo``, which tools made it, where that is said."""

    functions: Mapping[str, Function]
    default_function: str = "main"
    attributes: Mapping[str, Constant] = field(default_factory=dict)
    unknown: bytes = b""

    @property
    def main(self) -> Function:
        """The default function."""
        return self.functions[self.default_function]

    def operations(self, function: str | None = None) -> Iterator[Operation]:
        """Every operation of a function (of the default one), nested blocks included, in order."""
        yield from _walk((self.main if function is None else self.functions[function]).body)


def _walk(block: Block) -> Iterator[Operation]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _walk(inner)


@dataclass(frozen=True, slots=True)
class Package:
    """An ML Program after reading, whichever file it was read from: nothing is copied, weights stay mapped.

    ``description`` is that of the default function, ``descriptions`` those of all functions where
    each has its own.
    """

    path: str
    specification_version: int
    description: Description
    program: Program
    weight_bytes: int
    descriptions: Mapping[str, Description] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Suppression:
    """Core ML's ``nonMaximumSuppression`` model, the last of an object detector's pipeline.

    ``labels`` are the class names; without them ``classes`` numbers are used. An empty name of an input means
    that the threshold cannot be given with a prediction.
    """

    description: Description
    iou_threshold: float
    confidence_threshold: float
    per_class: bool
    labels: tuple[str, ...] | tuple[int, ...]
    confidence: str
    coordinates: str
    iou_threshold_input: str
    confidence_threshold_input: str
    confidence_output: str
    coordinates_output: str
    specification_version: int = 3


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Models that run one after the other and pass values by name; ``kind`` is what they are as a whole."""

    path: str
    specification_version: int
    description: Description
    models: Mapping[str, Package | Pipeline | Suppression]
    weight_bytes: int
    kind: PipelineKind = "pipeline"

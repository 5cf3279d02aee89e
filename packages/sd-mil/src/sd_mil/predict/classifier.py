"""The end of a classifier: ``classify`` turns probabilities into a label and a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sd_mil.errors import PackageError
from sd_mil.ir.program import Argument, Block, Constant, Operation, Program, Reference
from sd_mil.ir.uses import constants_of


@dataclass(frozen=True, slots=True)
class Classifier:
    """What the operation says: its labels, where the probabilities are, and what its outputs are called."""

    labels: tuple[str, ...] | tuple[int, ...]
    probabilities: str
    outputs: tuple[str, str]

    def results(self, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """The most probable label, and the probability of each, under the names of the outputs.

        Raises:
            PackageError: there are more or fewer probabilities than labels.
        """
        numbers = values[self.probabilities].ravel().astype(np.float64)
        if numbers.size != len(self.labels) or not self.labels:
            raise PackageError(
                f"expected {len(self.labels)} probabilities, one for each label, got {numbers.size}"
            )
        best = self.labels[int(np.argmax(numbers))]
        return {self.outputs[0]: best, self.outputs[1]: dict(zip(self.labels, numbers.tolist(), strict=True))}


def without_classifier(program: Program) -> tuple[Program, Classifier | None]:
    """The program that returns probabilities, and what is to be made of them.

    Before::

        label, by_label = classify(probabilities = p, classes = ["cat", "dog"])  -> (label, by_label)

    After: ``-> (p)``.

    Raises:
        PackageError: the operation lacks its parameters, or its results are used by others.
    """
    main = program.main
    found = next((one for one in main.body.operations if one.type == "classify"), None)
    if found is None:
        return program, None
    classifier = _classifier(found, main.body)
    kept = tuple(one for one in main.body.operations if one is not found)
    outputs = (*(name for name in main.outputs if name not in classifier.outputs), classifier.probabilities)
    body = replace(main.body, operations=kept, outputs=tuple(dict.fromkeys(outputs)))
    functions = {**program.functions, main.name: replace(main, body=body)}
    return replace(program, functions=functions), classifier


def _classifier(operation: Operation, body: Block) -> Classifier:
    probabilities = _one(operation, "probabilities")
    if not isinstance(probabilities, Reference) or len(operation.outputs) != 2:
        raise PackageError(
            f"expected classify {operation.name!r} to turn a value into a label and a dictionary"
        )
    first, second = (output.name for output in operation.outputs)
    return Classifier(_labels(_one(operation, "classes"), body), probabilities.name, (first, second))


def _one(operation: Operation, parameter: str) -> Argument:
    arguments = operation.inputs.get(parameter, ())
    if len(arguments) != 1:
        raise PackageError(f"expected one {parameter} of classify {operation.name!r}, got {len(arguments)}")
    return arguments[0]


def _labels(argument: Argument, body: Block) -> tuple[str, ...] | tuple[int, ...]:
    if isinstance(argument, Reference):
        argument = constants_of(body.operations).get(argument.name, argument)
    value = argument.value if isinstance(argument, Constant) else None
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        return tuple(int(one) for one in value.ravel().tolist())
    if isinstance(value, tuple):
        return value
    raise PackageError("expected the classes of a classifier to be constant strings or integers")

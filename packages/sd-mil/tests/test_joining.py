"""Programs as functions of one, with equal constants once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_mil import Constant, Description, Operation, Port, Program, TensorType, read_package, write_package
from sd_mil.format import WEIGHTS, layout_of, write_packages
from sd_mil.ir import alone, joined
from sd_mil.ir.program import Block, Function, Reference, Variable


def constant(values: list[int]) -> Constant:
    array = np.array(values, np.float32)
    return Constant(TensorType("fp32", array.shape), array, stored=array.nbytes)


def adding(size: int, *weights: list[int]) -> Program:
    """x plus each of the weights."""
    kind = TensorType("fp32", (size,))
    operations, last = [], "x"
    for number, values in enumerate(weights):
        value = constant(values)
        operations.append(
            Operation("const", f"w{number}", {}, (Variable(f"w{number}", value.type),), {"val": value})
        )
        inputs = {"x": (Reference(last),), "y": (Reference(f"w{number}"),)}
        last = f"y{number}"
        operations.append(Operation("add", last, inputs, (Variable(last, kind),)))
    body = Block((Variable("x", kind),), tuple(operations), (last,))
    return Program({"main": Function("main", "CoreML7", body)})


def described(program: Program) -> Description:
    (given_,), (name,) = program.main.inputs, program.main.outputs
    shape = given_.type.shape
    return Description((Port("x", shape, "float32"),), (Port(name, shape, "float32"),))


WEIGHTS_OF_ONE = st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=4)


@settings(deadline=None)
@given(WEIGHTS_OF_ONE, WEIGHTS_OF_ONE)
def test_equal_weights_are_there_once(first: list[list[int]], second: list[list[int]]) -> None:
    program = joined({"a": adding(3, *first), "b": adding(3, *second)})
    assert len(layout_of(program).blobs) == len({tuple(one) for one in (*first, *second)})
    for name, weights in (("a", first), ("b", second)):
        again = alone(program, name)
        values = [op.attributes["val"].value.tolist() for op in again.operations() if op.type == "const"]
        assert values == weights


def test_packages_of_one_weight_file(tmp_path: Path) -> None:
    parts = {"a": adding(3, [1, 2, 3], [4, 5, 6]), "b": adding(3, [4, 5, 6], [7, 8, 9])}
    program = joined(parts)
    places = {name: tmp_path / f"{name}.mlpackage" for name in parts}
    write_packages(places, program, {name: described(one) for name, one in parts.items()})
    first, second = (place / WEIGHTS for place in places.values())
    assert first.read_bytes() == second.read_bytes()
    for name, part in parts.items():
        read = read_package(places[name]).program
        assert list(read.functions) == ["main"]
        got = [op.attributes["val"].value.tolist() for op in read.operations() if op.type == "const"]
        assert got == [op.attributes["val"].value.tolist() for op in part.operations() if op.type == "const"]


def test_the_first_has_the_weight_file_that_it_has_alone(tmp_path: Path) -> None:
    one = adding(3, [1, 2, 3], [4, 5, 6])
    write_package(tmp_path / "alone.mlpackage", one, described(one))
    both = {name: described(one) for name in "ab"}
    places = {name: tmp_path / f"{name}.mlpackage" for name in "ab"}
    write_packages(places, joined({"a": one, "b": adding(3, [1, 2, 3], [4, 5, 6])}), both)
    files = [tmp_path / f"{name}.mlpackage" / WEIGHTS for name in ("alone", "a", "b")]
    assert len({file.read_bytes() for file in files}) == 1


def test_nothing_to_join() -> None:
    with pytest.raises(ValueError, match="at least one program"):
        joined({})

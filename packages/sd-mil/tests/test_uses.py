"""What is asked of operations and blocks: constants, uses, captured values, effects, dead code."""

import numpy as np
import pytest
from mil_graphs import call, const, program, tensor
from sd_mil import Block, Constant, Operation, Reference, StateType, TensorType, Variable
from sd_mil.ir.uses import (
    captured,
    constant_of,
    constants_in,
    constants_of,
    has_effects,
    live_operations,
    names_used,
    output_types,
)
from sd_mil.rewriting.unused import drop_unused

PAIR = ("fp16", 2)
PAIR_TYPE = TensorType("fp16", (2,))


def write_state(state, value):
    return Operation("write_state", "write", {"input": (Reference(state),), "data": (Reference(value),)}, ())


def loop(*body, outputs=("a", "b")):
    """A while_loop over one variable, whose body has these operations."""
    inner = Block((Variable("v", PAIR_TYPE),), body, ("v",))
    test = Block((Variable("t", PAIR_TYPE),), (), ("flag",))
    made = tuple(Variable(name, PAIR_TYPE) for name in outputs[:1])
    return Operation("while_loop", "loop", {"loop_vars": (Reference("x"),)}, made, {}, (test, inner))


def test_constants_wherever_they_are_kept():
    attribute = const("w", np.float16([1, 2]))
    parameter = Operation("const", "w", {"val": (tensor(np.float16([1, 2])),)}, (Variable("w", PAIR_TYPE),))
    for one in (attribute, parameter):
        np.testing.assert_array_equal(constant_of(one).value, [1, 2])
        assert list(constants_of([one])) == ["w"]
    assert constant_of(call("relu", "y", PAIR, x="x")) is None
    assert constant_of(Operation("const", "w", {}, (Variable("w", PAIR_TYPE),))) is None


def test_what_nested_blocks_take_from_outside():
    made = loop(call("add", "s", PAIR, x="v", y="outside"), call("relu", "r", PAIR, x="s"))
    assert names_used(made) == {"x", "outside", "flag"}
    assert captured(made.blocks[1]) == {"outside"}


def test_what_only_a_nested_block_uses_is_alive():
    used = call("exp", "outside", PAIR, x="x")
    made = program(
        {"x": PAIR, "flag": ("bool",)}, [used, loop(call("add", "s", PAIR, x="v", y="outside"))], ["a"]
    )
    assert [one.name for one in drop_unused(made).main.body.operations] == ["outside", "loop"]


@pytest.mark.parametrize("nested", [False, True])
def test_what_writes_a_state_stays(nested):
    value, write = call("exp", "value", PAIR, x="x"), write_state("cache", "value")
    dead = call("sin", "dead", PAIR, x="x")
    writes = loop(write) if nested else write
    block = Block(
        (Variable("x", PAIR_TYPE), Variable("cache", StateType(PAIR_TYPE))), (value, writes, dead), ("x",)
    )
    assert has_effects(writes)
    assert not has_effects(dead)
    assert live_operations(block) == (value, writes)


def test_every_constant_in_the_order_of_a_message():
    inner = loop(call("add", "s", PAIR, x="v", y=tensor(np.float16([3, 4]))))
    made = program({"x": PAIR}, [const("w", np.float16([1, 2])), inner], ["a"])
    arrays = [one.value for one in constants_in(made.main.body) if not isinstance(one.value, str)]
    assert [array.tolist() for array in arrays] == [[1, 2], [3, 4]]
    assert all(isinstance(one, Constant) for one in constants_in(made.main.body))


def test_types_of_outputs_may_be_those_of_inputs():
    made = program({"x": PAIR}, [call("relu", "y", ("fp32", 2), x="x")], ["y", "x"])
    assert {name: str(kind) for name, kind in output_types(made).items()} == {"y": "fp32[2]", "x": "fp16[2]"}

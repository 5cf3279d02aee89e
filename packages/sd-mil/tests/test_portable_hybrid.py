"""Programs that OpenVINO does not run alone, in parts: held to the reference engine."""

import numpy as np
import pytest

pytest.importorskip("openvino")

from mil_graphs import call, const, program, tensor, variable
from sd_mil import (
    Block,
    Operation,
    PackageError,
    PredictionError,
    Reference,
    StateType,
    TensorType,
    UnsupportedOpError,
    Variable,
)
from sd_mil.engines import reference
from sd_mil.engines.hybrid import HybridProgram
from sd_mil.engines.hybrid.partition import partition
from sd_mil.engines.hybrid.states import states_as_values
from sd_mil.engines.openvino import translation
from sd_mil.engines.openvino.compiled import CompiledProgram
from sd_mil.engines.portable import compile_program

RNG = np.random.default_rng(3)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def both(made, inputs, state=None):
    """The portable program, after it was held to the reference engine on the inputs."""
    compiled = compile_program(made)
    copies = [None if state is None else {name: value.copy() for name, value in state.items()} for _ in "ab"]
    got = compiled.run(inputs, copies[0])
    expected = reference.compile_program(made).run(inputs, copies[1])
    assert got.keys() == expected.keys()
    for name, value in got.items():
        np.testing.assert_allclose(value, expected[name].astype(value.dtype), rtol=1e-5, atol=1e-5)
        assert value.shape == expected[name].shape
    for name in state or {}:
        np.testing.assert_allclose(copies[0][name], copies[1][name], rtol=1e-5, atol=1e-5)
        assert copies[0][name].dtype == state[name].dtype
    return compiled, got, copies[0]


def test_one_segment_costs_nothing():
    made = program({"x": ("fp32", 3)}, [call("abs", "y", ("fp32", 3), x="x")], ["y"])
    assert type(compile_program(made)) is CompiledProgram


def suppression(*, boxes="boxes", scores="scores"):
    """Six boxes, two classes; nothing but numpy suppresses what overlaps."""
    return Operation(
        "non_maximum_suppression",
        "nms",
        {
            "boxes": (Reference(boxes),),
            "scores": (Reference(scores),),
            "max_boxes": (tensor(np.int32(4)),),
            "iou_threshold": (tensor(np.float32(0.2)),),
            "score_threshold": (tensor(np.float32(0.1)),),
        },
        (
            variable("kept", ("fp32", 1, 4, 4)),
            variable("kept_scores", ("fp32", 1, 4, 2)),
            variable("indices", ("int32", 1, 4)),
            variable("count", ("int32", 1)),
        ),
    )


def detector():
    """Products on both sides of a suppression, with a weight that both use and one that crosses unrounded."""
    return program(
        {"x": ("fp32", 1, 6, 4), "scores": ("fp32", 1, 6, 2)},
        [
            const("w", np.eye(4, dtype=np.float32) * 3),
            call("matmul", "boxes", ("fp16", 1, 6, 4), x="x", y="w"),
            suppression(),
            call("matmul", "again", ("fp32", 1, 4, 4), x="kept", y="w"),
            call("add", "independent", ("fp32", 1, 6, 4), x="boxes", y="x"),
        ],
        ["again", "independent", "count", "boxes"],
    )


def test_numpy_between_compiled_segments():
    inputs = {
        "x": RNG.random((1, 6, 4)).astype(np.float32),
        "scores": RNG.random((1, 6, 2)).astype(np.float32),
    }
    compiled, got, _ = both(detector(), inputs)
    assert isinstance(compiled, HybridProgram)
    assert compiled.arithmetic.endswith("; in numpy: non_maximum_suppression")
    assert "OpenVINO" in compiled.arithmetic
    assert got["boxes"].dtype == np.float16
    assert got["count"].dtype == np.int32


def test_values_cross_in_the_type_they_are_computed_in():
    """100001 is no fp16; it must not become infinite between two parts."""
    made = program(
        {"x": ("fp32", 1)},
        [
            call("mul", "large", ("fp16", 1), x="x", y=tensor(np.float32([1e5]))),
            call("unknown_to_openvino", "same", ("fp16", 1), x="large"),
            call("mul", "y", ("fp32", 1), x="same", y=tensor(np.float32([1e-5]))),
        ],
        ["y"],
    )
    loop = Operation(
        "cond",
        "identity",
        {"pred": (tensor(np.bool_(True)),)},
        (variable("same", ("fp16", 1)),),
        blocks=(Block((), (), ("large",)), Block((), (), ("large",))),
    )
    body = made.main.body
    made = program({"x": ("fp32", 1)}, [body.operations[0], loop, body.operations[2]], ["y"])
    both(made, {"x": np.float32([1.00001])})


def test_segments_are_few():
    """n1 -> p1 -> n2 and p2 -> n3 -> p3: greedy order would need more than native, numpy, native, numpy."""
    operations = [
        call("n", "n1", ("fp32", 1), x="x"),
        call("p", "p2", ("fp32", 1), x="x"),
        call("p", "p1", ("fp32", 1), x="n1"),
        call("n", "n3", ("fp32", 1), x="p2"),
        call("n", "n2", ("fp32", 1), x="p1"),
        call("p", "p3", ("fp32", 1), x="n3"),
    ]
    in_numpy = {position for position, one in enumerate(operations) if one.type == "p"}
    segments = partition(operations, in_numpy, {})
    assert [(one.native, [op.name for op in one.operations]) for one in segments] == [
        (True, ["n1"]),
        (False, ["p2", "p1"]),
        (True, ["n3", "n2"]),
        (False, ["p3"]),
    ]


def test_the_better_start_is_taken():
    operations = [call("p", "a", ("fp32", 1), x="x"), call("n", "b", ("fp32", 1), x="a")]
    assert [one.native for one in partition(operations, {0}, {})] == [False, True]


def test_a_refused_parameter_runs_in_numpy():
    """``scatter_nd`` with divisions has no translation."""
    parameters = {"mode": "div"} | {}
    operation = Operation(
        "scatter_nd",
        "divided",
        {
            "data": (Reference("x"),),
            "indices": (tensor(np.int32([[1]])),),
            "updates": (tensor(np.float32([4])),),
            "mode": (tensor(parameters["mode"]),),
        },
        (variable("divided", ("fp32", 3)),),
    )
    made = program({"x": ("fp32", 3)}, [operation, call("abs", "y", ("fp32", 3), x="divided")], ["y"])
    compiled, got, _ = both(made, {"x": np.float32([1, -2, 3])})
    assert got["y"].tolist() == [1, 0.5, 3]
    assert "in numpy: scatter_nd" in compiled.arithmetic


def test_what_neither_engine_knows_is_refused():
    made = program({"x": ("fp32", 3)}, [call("no_such_op", "y", ("fp32", 3), x="x")], ["y"])
    with pytest.raises(UnsupportedOpError, match="no_such_op"):
        compile_program(made)


def counted(body, *, extra=()):
    """``while i < 5: i, h = i + 1, body(h)``; the body sees ``x`` and ``w`` of the outer scope."""
    i, h = variable("i", ("int32",)), variable("h", ("fp32", 2, 4))
    condition = Block((i, h), (call("less", "go", ("bool",), x="i", y=tensor(np.int32(5))),), ("go",))
    step = call("add", "next_i", ("int32",), x="i", y=tensor(np.int32(1)))
    inner = Block((i, h), (step, *body), ("next_i", "next_h"))
    outputs = (variable("last", ("int32",)), variable("final", ("fp32", 2, 4)))
    loop = Operation(
        "while_loop",
        "loop",
        {"loop_vars": (Reference("zero"), Reference("x"))},
        outputs,
        blocks=(condition, inner),
    )
    operations = [
        const("zero", np.int32(0)),
        const("w", normal(4, 4) / 3),
        *extra,
        loop,
        call("mul", "y", ("fp32", 2, 4), x="final", y="x"),
    ]
    return program({"x": ("fp32", 2, 4)}, operations, ["y", "last"])


def test_a_loop_over_products_is_compiled():
    body = (
        call("matmul", "product", ("fp32", 2, 4), x="h", y="w"),
        call("add", "next_h", ("fp32", 2, 4), x="product", y="x"),
    )
    compiled, got, _ = both(counted(body), {"x": normal(2, 4)})
    assert got["last"] == 5
    assert "in numpy" not in compiled.arithmetic


def test_a_compiled_loop_that_never_ends_is_stopped(monkeypatch):
    body = (call("matmul", "next_h", ("fp32", 2, 4), x="h", y="w"),)
    compiled = compile_program(counted(body))
    assert compiled.run({"x": normal(2, 4)})["last"] == 5
    monkeypatch.setattr("sd_mil.ir.limits.MAX_ITERATIONS", 4)
    with pytest.raises(PackageError, match="while_loop of 'last, final' to end, got more than 4 iterations"):
        compiled.run({"x": normal(2, 4)})


def test_what_openvino_refuses_while_it_runs_is_typed():
    rows = call("reshape", "y", ("fp32", None, 4), x="x", shape=tensor(np.int32([-1, 4])))
    compiled = compile_program(program({"x": ("fp32", None)}, [rows], ["y"]))
    assert compiled.run({"x": normal(8)})["y"].shape == (2, 4)
    with pytest.raises(
        PackageError, match=r"OpenVINO runs for inputs of shapes \{'x': \[7\]\}, got: .*divide"
    ):
        compiled.run({"x": normal(7)})


def test_a_loop_over_little_runs_in_numpy():
    compiled, _, _ = both(
        counted((call("add", "next_h", ("fp32", 2, 4), x="h", y="x"),)), {"x": normal(2, 4)}
    )
    assert "in numpy: add, less, while_loop" in compiled.arithmetic


@pytest.mark.parametrize("pred", [True, False])
@pytest.mark.parametrize("heavy", [True, False])
def test_a_condition(pred, heavy):
    product = call("matmul", "a", ("fp32", 2, 2), x="x", y="x", transpose_y=tensor(np.bool_(True)))
    light = call(
        "reduce_sum",
        "b",
        ("fp32", 1, 1),
        x="x",
        axes=tensor(np.int32([0, 1])),
        keep_dims=tensor(np.bool_(True)),
    )
    branches = (Block((), (product if heavy else light,), ("a" if heavy else "b",)), Block((), (), ("c",)))
    made = program(
        {"x": ("fp32", 2, 3), "p": ("fp32",)},
        [
            const("c", np.float32([[7]])),
            call("greater", "positive", ("bool",), x="p", y=tensor(np.float32(0))),
            Operation(
                "cond",
                "if",
                {"pred": (Reference("positive"),)},
                (variable("z", ("fp32", None, None)),),
                blocks=branches,
            ),
            call("add", "y", ("fp32", None, None), x="z", y=tensor(np.float32(1))),
        ],
        ["y"],
    )
    both(made, {"x": normal(2, 3), "p": np.float32(1 if pred else -1)})


def cache(*operations, outputs, dtype="fp16"):
    made = program({"x": ("fp32", 2)}, operations, outputs)
    state = Variable("cache", StateType(TensorType(dtype, (2,))))
    body = made.main.body
    full = Block((*body.inputs, state), body.operations, body.outputs)
    return type(made)({"main": type(made.main)("main", "CoreML8", full)})


def read(name):
    return call("read_state", name, ("fp16", 2), input="cache")


def write(name):
    return Operation(
        "write_state", f"write {name}", {"input": (Reference("cache"),), "data": (Reference(name),)}, ()
    )


def test_states_are_values():
    made = cache(
        read("before"),
        call("add", "sum", ("fp16", 2), x="before", y="x"),
        write("sum"),
        read("after"),
        call("mul", "y", ("fp32", 2), x="after", y="x"),
        outputs=["y"],
    )
    functional, finals = states_as_values(made)
    assert finals == {"cache": "sum"}
    assert not {one.type for one in functional.operations()} & {"read_state", "write_state"}
    state = {"cache": np.float16([1, 2])}
    compiled, got, left = both(made, {"x": np.float32([0.5, 3])}, state)
    assert got["y"].tolist() == [0.75, 15]
    assert left["cache"].tolist() == [1.5, 5]
    assert "in numpy" not in compiled.arithmetic


def test_a_state_that_is_only_read_stays():
    made = cache(read("before"), call("abs", "y", ("fp16", 2), x="before"), outputs=["y"])
    _, got, left = both(made, {"x": normal(2)}, {"cache": np.float16([-1, 2])})
    assert got["y"].tolist() == [1, 2]
    assert left["cache"].tolist() == [-1, 2]


def test_a_state_may_become_an_input_or_a_constant():
    made = cache(const("zeros", np.float16([0, 0])), write("zeros"), read("y"), outputs=["y"])
    assert both(made, {"x": normal(2)}, {"cache": np.float16([-1, 2])})[2]["cache"].tolist() == [0, 0]
    made = cache(write("x"), call("abs", "y", ("fp32", 2), x="x"), outputs=["y"])
    both(made, {"x": np.float32([-1, 1])}, {"cache": np.float16([-1, 2])})


def test_coreml_update_state():
    update = call("coreml_update_state", "now", ("fp16", 2), state="cache", value="x")
    made = cache(update, call("abs", "y", ("fp16", 2), x="now"), outputs=["y"])
    assert both(made, {"x": np.float32([-3, 1])}, {"cache": np.float16([-1, 2])})[2]["cache"].tolist() == [
        -3,
        1,
    ]


@pytest.mark.parametrize("pred", [True, False])
def test_a_state_written_in_a_branch(pred):
    inside = Block((), (write("x"), read("inner")), ("inner",))
    operation = Operation(
        "cond",
        "if",
        {"pred": (tensor(np.bool_(pred)),)},
        (variable("z", ("fp16", 2)),),
        blocks=(inside, Block((), (read("untouched"),), ("untouched",))),
    )
    made = cache(
        read("before"),
        operation,
        read("after"),
        call("add", "y", ("fp32", 2), x="before", y="after"),
        outputs=["y"],
    )
    state = {"cache": np.float16([-1, 2])}
    got = both(made, {"x": np.float32([5, 6])}, state)[1]
    assert got["y"].tolist() == ([4, 8] if pred else [-2, 4])


def test_inputs_are_checked():
    compiled = compile_program(detector())
    good = {"x": normal(1, 6, 4), "scores": normal(1, 6, 2)}
    with pytest.raises(PredictionError, match="'scores'"):
        compiled.run({"x": good["x"]})
    with pytest.raises(PredictionError, match="extra"):
        compiled.run({**good, "extra": good["x"]})
    with pytest.raises(PredictionError, match="got shape"):
        compiled.run({**good, "scores": normal(1, 6)})


def test_a_compressed_weight_on_both_sides_of_a_segment():
    """A look-up table's values, used by a product in OpenVINO and by a division in numpy."""
    lut = Operation(
        "constexpr_lut_to_dense",
        "lut",
        {},
        (variable("w", ("fp16", 2, 2)),),
        {
            "indices": tensor(np.array([0b11100100], np.uint8)),
            "lut": tensor(np.float16([1, 2, 3, 4])),
            "shape": tensor(np.array([2, 2], np.uint32)),
        },
    )
    positions = tensor(np.int32([[0], [1]]))
    divided = {
        "data": (Reference("a"),),
        "indices": (positions,),
        "updates": (Reference("w"),),
        "mode": (tensor("div"),),
    }
    made = program(
        {"x": ("fp32", 2, 2)},
        [
            lut,
            call("matmul", "a", ("fp32", 2, 2), x="x", y="w"),
            Operation("scatter_nd", "divide", divided, (variable("b", ("fp32", 2, 2)),)),
            call("matmul", "y", ("fp32", 2, 2), x="b", y="w"),
        ],
        ["y"],
    )
    compiled, _, _ = both(made, {"x": normal(2, 2)})
    assert "in numpy: scatter_nd" in compiled.arithmetic


@pytest.mark.parametrize("size", [4, None])
def test_what_openvino_refuses_of_one_operation_runs_in_numpy(monkeypatch, size):
    def refusing(kind):
        def translator(_):
            raise RuntimeError("Check 'rank' failed\nexpected something else")

        return translator if kind == "softmax" else found(kind)

    found = translation.find_translator
    monkeypatch.setattr(translation, "find_translator", refusing)
    rows = call("softmax", "z", ("fp32", 2, size), x="y", axis=tensor(np.int32(-1)))
    made = program({"x": ("fp32", 2, size)}, [call("exp", "y", ("fp32", 2, size), x="x"), rows], ["z"])
    compiled = compile_program(made)
    assert compiled.arithmetic.endswith("in numpy: softmax")
    x = normal(2, 4)
    powers = np.exp(np.exp(x))
    result = compiled.run({"x": x})["z"]
    np.testing.assert_allclose(result, powers / powers.sum(-1, keepdims=True), rtol=1e-4)

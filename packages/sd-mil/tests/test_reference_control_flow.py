"""Loops, branches, lists and states, as coremltools writes them and by hand."""

import mil_graphs as graphs
import numpy as np
import pytest
from mil_graphs import call, const, tensor, variable
from sd_mil import Block, MLModel, Operation, PackageError, Reference, StateType, TensorType, Variable
from sd_mil.engines.reference import Cell, ListValue, compile_block, compile_program
from sd_mil.engines.reference.ops import OPS

COUNT, PAIR, FLAG = ("int32",), ("fp32", 2), ("bool",)


def loop(name, start, condition, body, outputs):
    """``start``: names of the first values; the blocks share their inputs' names ``i`` and ``a``."""
    variables = tuple(variable(one, kind) for one, kind in outputs.items())
    arguments = tuple(map(Reference, start))
    return Operation("while_loop", name, {"loop_vars": arguments}, variables, blocks=(condition, body))


def block(inputs, operations, outputs):
    return Block(
        tuple(variable(one, kind) for one, kind in inputs.items()), tuple(operations), tuple(outputs)
    )


def below(limit):
    return block(
        {"i": COUNT, "a": PAIR}, [call("less", "more", FLAG, x="i", y=tensor(np.int32(limit)))], ["more"]
    )


def step(*operations, result="b"):
    count = call("add", "j", COUNT, x="i", y=tensor(np.int32(1)))
    return block({"i": COUNT, "a": PAIR}, [count, *operations], ["j", result])


def run(made, inputs, **options):
    return compile_program(made, **options).run(inputs)


def test_a_loop_sees_values_and_constants_of_outer_scopes():
    made = graphs.program(
        {"x": PAIR, "y": PAIR},
        [
            const("zero", np.int32(0)),
            const("w", np.float32([1, 10])),
            call("add", "outer", PAIR, x="y", y="y"),
            loop(
                "loop",
                ["zero", "x"],
                below(3),
                step(call("mul", "m", PAIR, x="a", y="w"), call("add", "b", PAIR, x="m", y="outer")),
                {"n": COUNT, "result": PAIR},
            ),
            call("sub", "after", PAIR, x="result", y="outer"),
        ],
        ["n", "after"],
    )
    results = run(made, {"x": np.float32([1, 2]), "y": np.float32([3, 4])})
    assert results["n"] == 3
    assert results["after"].tolist() == [1 + 18 - 6, 2000 + 888 - 8]


@pytest.mark.parametrize(("flag", "expected"), [(True, [2, 4]), (False, [1, 2])])
def test_a_branch_may_return_a_value_of_the_outer_scope(flag, expected):
    taken = block({}, [call("add", "twice", PAIR, x="x", y="x")], ["twice"])
    branch = Operation(
        "cond",
        "branch",
        {"pred": (Reference("flag"),)},
        (variable("y", PAIR),),
        blocks=(taken, block({}, [], ["x"])),
    )
    made = graphs.program({"x": PAIR, "flag": FLAG}, [branch], ["y"])
    assert run(made, {"x": np.float32([1, 2]), "flag": np.bool_(flag)})["y"].tolist() == expected


def test_loop_variables_may_change_their_shape():
    growing = ("fp32", None)
    body = block(
        {"i": COUNT, "a": growing},
        [
            call("add", "j", COUNT, x="i", y=tensor(np.int32(1))),
            call("concat", "b", growing, values=("a", "a"), axis=tensor(np.int32(0))),
        ],
        ["j", "b"],
    )
    start = const("zero", np.int32(0))
    made = graphs.program(
        {"x": growing}, [start, loop("l", ["zero", "x"], below(3), body, {"n": COUNT, "y": growing})], ["y"]
    )
    assert run(made, {"x": np.float32([1, 2])})["y"].tolist() == [1, 2] * 8


def test_a_wrong_shape_in_a_loop_is_named():
    body = step(call("concat", "b", PAIR, values=("a", "a"), axis=tensor(np.int32(0))))
    start = const("zero", np.int32(0))
    made = graphs.program(
        {"x": PAIR}, [start, loop("l", ["zero", "x"], below(3), body, {"n": COUNT, "y": PAIR})], ["y"]
    )
    with pytest.raises(
        PackageError, match=r"expected shape \[2\] from operation 'concat' named 'b'.*got \[4\]"
    ):
        run(made, {"x": np.float32([1, 2])})


def test_a_loop_that_never_ends_can_be_interrupted(monkeypatch):
    steps = []

    def interrupting(x):
        steps.append(1)
        if len(steps) == 100:
            raise KeyboardInterrupt
        return x

    endless = block({"i": COUNT, "a": PAIR}, [const("yes", np.bool_(True))], ["yes"])
    body = step(call("identity", "b", PAIR, x="a"))
    start = const("zero", np.int32(0))
    made = graphs.program(
        {"x": PAIR}, [start, loop("l", ["zero", "x"], endless, body, {"n": COUNT, "y": PAIR})], ["y"]
    )
    monkeypatch.setitem(
        OPS, "identity", OPS["identity"].__class__(**{**vars_of(OPS["identity"]), "function": interrupting})
    )
    with pytest.raises(KeyboardInterrupt):
        run(made, {"x": np.float32([1, 2])})


def test_a_loop_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr("sd_mil.ir.limits.MAX_ITERATIONS", 3)
    body = step(call("identity", "b", PAIR, x="a"))
    start = const("zero", np.int32(0))

    def counted(limit):
        outputs = {"n": COUNT, "y": PAIR}
        return graphs.program(
            {"x": PAIR}, [start, loop("l", ["zero", "x"], below(limit), body, outputs)], ["n"]
        )

    given = {"x": np.float32([1, 2])}
    assert run(counted(3), given)["n"] == 3
    with pytest.raises(PackageError, match=r"'while_loop' named 'l'.*more than 3 iterations"):
        run(counted(4), given)


def vars_of(op):
    return {name: getattr(op, name) for name in op.__dataclass_fields__}


def test_values_in_loops_are_rounded():
    """1 + 2^-11 is 1 in fp16, each time; exactly, 16 of them add up."""
    half = ("fp16", 1)
    body = block(
        {"i": COUNT, "a": half},
        [
            call("add", "j", COUNT, x="i", y=tensor(np.int32(1))),
            call("add", "b", half, x="a", y=tensor(np.float16([2**-11]))),
        ],
        ["j", "b"],
    )
    condition = block({"i": COUNT, "a": half}, below(16).operations, ["more"])
    start = const("zero", np.int32(0))
    made = graphs.program(
        {"x": half}, [start, loop("l", ["zero", "x"], condition, body, {"n": COUNT, "y": half})], ["y"]
    )
    x = {"x": np.float16([1])}
    assert run(made, x)["y"] == 1 + 16 * 2**-11
    assert run(made, x, rounding="fp16")["y"] == 1


def test_rounding_is_that_of_fp16_hardware():
    kind = ("fp16", 6)
    made = graphs.program({"x": kind}, [call("identity", "y", kind, x="x")], ["y"])
    x = np.float32([1e5, -1e5, 3e-8, 6e-8, 65519, 1 / 3])
    got = run(made, {"x": x}, rounding="fp16")["y"]
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got, x.astype(np.float16).astype(np.float32))
    assert got[:4].tolist() == [np.inf, -np.inf, 2**-24 if 3e-8 > 2**-25 else 0, 2**-24]


def test_a_block_by_itself():
    """What it needs from elsewhere is said, and given by name."""
    inner = block(
        {"a": PAIR}, [call("mul", "b", PAIR, x="a", y="w"), call("add", "c", PAIR, x="b", y="v")], ["c"]
    )
    compiled = compile_block(inner)
    assert compiled.inputs == ("a", "v", "w")
    values = {"a": np.float16([1, 2]), "w": np.float16([3, 4]), "v": np.float32([5, 6])}
    result = compiled.run(values)["c"]
    assert (result.tolist(), result.dtype) == ([8, 14], np.float32)
    with pytest.raises(PackageError, match="expected every value to be defined"):
        compile_program(graphs.program({"a": PAIR}, inner.operations, ["c"]))


def test_lists_are_not_changed_by_writing():
    made = OPS["make_list"].function((np.int32(2),), init_length=np.int32(2))
    one = OPS["list_write"].function(made, np.int32(1), np.float32([1, 2]))
    two = OPS["list_write"].function(one, np.int32(3), np.float32([3, 4]))
    lengths = [int(OPS["list_length"].function(each)) for each in (made, one, two)]
    assert lengths == [2, 2, 4]
    gathered = OPS["list_gather"].function(two, np.int32([3, 0, 1]))
    assert gathered.tolist() == [[3, 4], [0, 0], [1, 2]]
    assert OPS["list_read"].function(made, np.int32(1)).tolist() == [0, 0]
    scattered = OPS["list_scatter"].function(one, np.int32([0, 4]), np.float32([[7, 8], [9, 9]]))
    assert OPS["list_read"].function(scattered, np.int32(4)).tolist() == [9, 9]
    assert one.items[0] is None


@pytest.mark.parametrize(
    ("index", "grows", "shape"),
    [(-1, True, (2,)), (2, False, (2,)), (1 << 40, True, (2,)), (1, True, (None,))],
)
def test_lists_refuse_what_they_cannot_do(index, grows, shape):
    made = ListValue((None, None), shape, np.dtype(np.float32), grows)
    with pytest.raises((IndexError, ValueError)):
        made.written(index, np.zeros(2)) if shape == (2,) else made.read(index)


def test_lists_of_unknown_shape_take_what_is_written():
    made = OPS["make_list"].function(("n", np.int32(2)), dtype="int32")
    written = made.written(0, np.zeros((3, 2), np.int32)).written(2, np.ones((3, 2), np.int32))
    assert OPS["list_gather"].function(written, np.int32([0, 1, 2])).shape == (3, 3, 2)


def counting():
    """y = 2 acc, then acc += x."""
    kind = TensorType("fp16", (2,))
    acc = Variable("acc", StateType(kind))
    made = graphs.program(
        {"x": ("fp16", 2)},
        [
            call("read_state", "before", ("fp16", 2), input="acc"),
            call("add", "y", ("fp16", 2), x="before", y="before"),
            call("add", "next", ("fp16", 2), x="before", y="x"),
            Operation("write_state", "w", {"input": (Reference("acc"),), "data": (Reference("next"),)}, ()),
        ],
        ["y"],
    )
    main = made.main
    body = Block((*main.inputs, acc), main.body.operations, main.body.outputs)
    return made.__class__({"main": main.__class__("main", "CoreML8", body)})


def test_a_state_lives_on():
    compiled, state = compile_program(counting()), {"acc": np.zeros(2, np.float16)}
    results = [compiled.run({"x": np.float16([1, 2])}, state)["y"].tolist() for _ in range(3)]
    assert results == [[0, 0], [2, 4], [4, 8]]
    assert (state["acc"].tolist(), state["acc"].dtype) == ([3, 6], np.float16)
    with pytest.raises(ValueError, match="make_state"):
        compiled.run({"x": np.float16([1, 2])})


def test_a_run_that_fails_leaves_the_state_as_it_was():
    made = counting()
    broken = call("matmul", "bad", ("fp16", 3), x="next", y=tensor(np.zeros((5, 3), np.float16)))
    body = Block(made.main.inputs, (*made.main.body.operations, broken), ("y", "bad"))
    compiled = compile_program(made.__class__({"main": made.main.__class__("main", "CoreML8", body)}))
    state = {"acc": np.ones(2, np.float16)}
    with pytest.raises(PackageError, match="'bad'"):
        compiled.run({"x": np.float16([1, 2])}, state)
    assert state["acc"].tolist() == [1, 1]


def test_update_state_returns_what_it_writes():
    cell = Cell(np.zeros(2))
    assert OPS["coreml_update_state"].function(cell, np.ones(2)).tolist() == [1, 1]
    assert OPS["read_state"].function(cell).tolist() == [1, 1]


@pytest.fixture(scope="module")
def mil(tmp_path_factory):
    """Convert a program of coremltools' builder, and open it."""
    pytest.importorskip("coremltools", exc_type=ImportError)
    import coremltools as ct

    folder = tmp_path_factory.mktemp("built")

    def opened(program, engine):
        path = folder / f"{len(list(folder.iterdir()))}.mlpackage"
        target = ct.target.iOS16
        precision = ct.precision.FLOAT32
        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target,
            compute_precision=precision,
            skip_model_load=True,
        ).save(str(path))
        return MLModel(path, engine)

    return opened


@pytest.fixture(params=["reference", "portable"])
def engine(request):
    if request.param == "portable":
        pytest.importorskip("openvino")
    return request.param


@pytest.mark.filterwarnings("ignore")
def test_nested_control_flow_that_coremltools_wrote(mil, engine):
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    @Builder.program(input_specs=[Builder.TensorSpec((3,)), Builder.TensorSpec((1,), dtype=types.int32)])
    def program(x, n):
        w = Builder.const(val=np.float32([1, 2, 3]))

        def body(i, total):
            def odd():
                def inner(j, a):
                    return Builder.add(x=j, y=1), Builder.mul(x=a, y=x)

                return Builder.while_loop(
                    _cond=lambda j, _: Builder.less(x=j, y=2), _body=inner, loop_vars=(0, total)
                )[1]

            even = Builder.equal(x=Builder.mod(x=i, y=2), y=0)
            return Builder.add(x=i, y=1), Builder.cond(
                pred=even, _true_fn=lambda: Builder.add(x=total, y=w), _false_fn=odd
            )

        return Builder.while_loop(
            _cond=lambda i, _: Builder.less(x=i, y=Builder.squeeze(x=n)), _body=body, loop_vars=(0, x)
        )

    x, model = np.float32([1, 2, 3]), mil(program, engine)
    for count in range(4):
        total = x.copy()
        for i in range(count):
            total = total + x if i % 2 == 0 else total * x * x
        results = model.predict({"x": x, "n": np.int32([count])})
        assert [np.asarray(one).tolist() for one in results.values()] == [count, total.tolist()]


@pytest.mark.filterwarnings("ignore")
def test_lists_that_coremltools_wrote(mil, engine):
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    @Builder.program(input_specs=[Builder.TensorSpec((2,)), Builder.TensorSpec((1,), dtype=types.int32)])
    def program(x, n):
        def body(i, ls, a):
            return Builder.add(x=i, y=1), Builder.list_write(ls=ls, index=i, value=a), Builder.add(x=a, y=1.0)

        first = Builder.make_list(init_length=1, elem_shape=(2,))
        _, ls, _ = Builder.while_loop(
            _cond=lambda i, *_: Builder.less(x=i, y=Builder.squeeze(x=n)), _body=body, loop_vars=(0, first, x)
        )
        ls = Builder.list_scatter(ls=ls, indices=np.int32([0, 6]), value=np.float32([[5, 5], [6, 6]]))
        return (
            Builder.list_length(ls=ls),
            Builder.list_read(ls=ls, index=2),
            Builder.list_gather(ls=ls, indices=[0, 1, 6]),
        )

    results = list(mil(program, engine).predict({"x": np.float32([1, 2]), "n": np.int32([4])}).values())
    assert np.asarray(results[0]).item() == 7
    assert results[1].tolist() == [3, 4]
    assert results[2].tolist() == [[5, 5], [2, 3], [6, 6]]

"""Indices and sizes out of range: never another tensor's memory, on either engine the same typed error.

Each case that could corrupt memory runs in a child process, so that a crash is a failure and not the end.
"""

import os
import subprocess
import sys
import textwrap

import mil_graphs as graphs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_mil import PackageError
from sd_mil.engines.reference import compile_program as compile_reference

pytestmark = pytest.mark.long

pytest.importorskip("openvino")

INDEX = np.iinfo(np.int32)
#: The parameter that holds ``x`` and the shapes of indices and updates, for a 4 x 4 tensor.
KINDS = {
    "gather": ("x", (2,), None, (2, 4), {"axis": np.int32(0)}),
    "gather_along_axis": ("x", (1, 4), None, (1, 4), {"axis": np.int32(0)}),
    "gather_nd": ("x", (2, 2), None, (2,), {}),
    "scatter": ("data", (2,), (2, 4), (4, 4), {"axis": np.int32(0), "mode": "update"}),
    "scatter_along_axis": ("data", (1, 4), (1, 4), (4, 4), {"axis": np.int32(0), "mode": "add"}),
    "scatter_nd": ("data", (2, 2), (2,), (4, 4), {"mode": "update"}),
}


def indexed(kind, indices, *, constant):
    """A program of one operation, and its inputs."""
    data, _, updates, out, parameters = KINDS[kind]
    given = {name: graphs.tensor(value) for name, value in parameters.items()}
    inputs = {"x": ("fp32", 4, 4)}
    arrays = {"x": np.arange(16, dtype=np.float32).reshape(4, 4)}
    if updates is not None:
        inputs["u"], given["updates"] = ("fp32", *updates), "u"
        arrays["u"] = np.full(updates, 100, np.float32)
    if constant:
        given["indices"] = graphs.tensor(indices)
    else:
        inputs["i"], given["indices"] = ("int32", *indices.shape), "i"
        arrays["i"] = indices
    operation = graphs.call(kind, "y", ("fp32", *out), **{data: "x"}, **given)
    return graphs.program(inputs, [operation], ["y"]), arrays


def results(made, arrays):
    """Of each engine: its array, or the error."""
    from sd_mil.engines.portable import compile_program

    found = []
    for compile_one in (compile_reference, compile_program):
        try:
            found.append(compile_one(made).run(arrays)["y"])
        except PackageError as error:
            found.append(error)
    return found


def check(kind, indices, *, constant):
    slow, fast = results(*indexed(kind, indices, constant=constant))
    assert isinstance(slow, PackageError) == isinstance(fast, PackageError), (kind, indices, slow, fast)
    if isinstance(slow, PackageError):
        assert "to be computable" in str(fast)
    else:
        np.testing.assert_array_equal(slow, fast)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), constant=st.booleans())
@settings(max_examples=25, deadline=None)
def test_indices_in_range_and_near_it(kind, data, constant):
    """Both engines agree on what an index near the edge means."""
    shape = KINDS[kind][1]
    values = st.integers(-6, 5)
    flat = data.draw(st.lists(values, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    indices = np.array(flat, np.int32).reshape(shape)
    if kind.startswith("scatter"):  # the order in which equal positions are written is nobody's promise
        wrapped = np.where(indices < 0, indices + 4, indices)
        places = wrapped if kind == "scatter_nd" else wrapped.reshape(-1, 1)
        if kind != "scatter_along_axis" and len(np.unique(places, axis=0)) < len(places):
            return
    check(kind, indices, constant=constant)


EXTREME = """
    import sys
    sys.path.insert(0, {tests!r})
    import numpy as np
    import test_bounds
    for value in (4, -5, 40, -9, 2**20, -(2**20), {low}, {high}):
        for constant in (True, False):
            indices = np.zeros(test_bounds.KINDS[{kind!r}][1], np.int32)
            indices.flat[-1] = value
            slow, fast = test_bounds.results(*test_bounds.indexed({kind!r}, indices, constant=constant))
            assert "to be computable" in str(slow), slow
            assert "to be computable" in str(fast), fast
    print("same")
"""


@pytest.mark.parametrize("kind", KINDS)
def test_far_out_of_range(kind):
    """A child process: what is written elsewhere may only be noticed when the process ends."""
    code = EXTREME.format(
        tests=str(graphs.__file__).rpartition("/")[0], kind=kind, low=INDEX.min, high=INDEX.max
    )
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert (child.returncode, child.stdout.strip()) == (0, "same"), child.stderr[-500:]


@pytest.mark.parametrize("mode", ["add", "mul", "max"])
@pytest.mark.parametrize("updates", [(3, 5, 3, 4, 3), (1, 1, 8, 1, 4)])
def test_updates_of_too_many_axes(mode, updates):
    """numpy's ufunc.at ends the process when updates have more axes than what they update."""
    parameters = {"axis": np.int32(1), "mode": mode, "indices": np.array([1], np.int32)}
    given = {name: graphs.tensor(value) for name, value in parameters.items()}
    operation = graphs.call("scatter", "y", ("fp32", 8, 2, 4), data="x", updates="u", **given)
    made = graphs.program({"x": ("fp32", 8, 2, 4), "u": ("fp32", *updates)}, [operation], ["y"])
    arrays = {"x": np.ones((8, 2, 4), np.float32), "u": np.ones(updates, np.float32)}
    for found in results(made, arrays):
        assert isinstance(found, PackageError)


@pytest.mark.parametrize("reps", [(-2, -64), (2, -1), (65536, 65536)])
def test_repetitions_from_outside(reps):
    """Sizes that come in while it runs are numpy's, which bounds them."""
    operation = graphs.call("tile", "y", ("fp32", None, None), x="x", reps="r")
    made = graphs.program({"x": ("fp32", 2, 3), "r": ("int32", 2)}, [operation], ["y"])
    arrays = {"x": np.ones((2, 3), np.float32), "r": np.array(reps, np.int32)}
    slow, fast = results(made, arrays)
    assert isinstance(slow, PackageError)
    assert isinstance(fast, PackageError)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_numbers_that_are_none(value):
    """Where an integer is needed, a number that is none is an error of the package, never Python's own."""
    bad = graphs.tensor(np.float32(value))
    operation = graphs.call("softmax", "y", ("fp32", 2, 3), x="x", axis=bad)
    made = graphs.program({"x": ("fp32", 2, 3)}, [operation], ["y"])
    slow, fast = results(made, {"x": np.ones((2, 3), np.float32)})
    assert isinstance(slow, PackageError)
    assert isinstance(fast, PackageError)


def attention(positions, *, second=False, axis=-1):
    """softmax(q kᵀ / 4) v; with ``second``, the scores are used once more."""
    whole, scores = ("fp32", 1, 8, positions, 4), ("fp32", 1, 8, positions, positions)
    yes, no = graphs.tensor(np.True_), graphs.tensor(np.False_)
    operations = [
        graphs.call("matmul", "s", scores, x="q", y="k", transpose_x=no, transpose_y=yes),
        graphs.call("real_div", "d", scores, x="s", y=graphs.tensor(np.float32(4))),
        graphs.call("softmax", "p", scores, x="d", axis=graphs.tensor(np.int32(axis))),
        graphs.call("matmul", "a", whole, x="p", y="v", transpose_x=no, transpose_y=no),
        graphs.call("matmul", "b", whole, x="p", y="q", transpose_x=no, transpose_y=no),
        graphs.call("add", "y", whole, x="a", y="b"),
    ]
    return graphs.program(
        dict.fromkeys("qkv", whole), operations if second else operations[:4], ["y" if second else "a"]
    )


def test_scores_that_are_fused_may_be_large():
    """8 GiB of them, of a picture of 1024 x 1024; what is held to the bound is what is there as a whole."""
    from sd_mil.engines.portable import compile_program

    compile_program(attention(1 << 14))


@pytest.mark.parametrize("changes", [{"second": True}, {"axis": 2}])
def test_scores_that_are_written_may_not(changes):
    from sd_mil.engines.portable import compile_program

    with pytest.raises(PackageError, match=r"at most 1073741824 elements of matmul 's'"):
        compile_program(attention(1 << 14, **changes))


def test_no_more_attention_than_any_model_has():
    from sd_mil.engines.portable import compile_program

    with pytest.raises(PackageError, match=r"at most 4294967296 elements of matmul 's'"):
        compile_program(attention(1 << 15))


@pytest.mark.parametrize("rank", [4, 5])
def test_scores_without_a_name_are_bounded(rank):
    from sd_mil.engines.portable import compile_program

    whole = ("fp32", *[1] * (rank - 2), 1 << (17 if rank == 4 else 16), 1)
    operation = graphs.call("scaled_dot_product_attention", "y", whole, query="q", key="q", value="q")
    with pytest.raises(PackageError, match="at most"):
        compile_program(graphs.program({"q": whole}, [operation], ["y"]))


@pytest.mark.parametrize("kind", ["add", "matmul"])
def test_much_out_of_little(kind):
    """Shapes that are declared, and may be, in bytes: 5 GiB out of 288 kB."""
    from sd_mil.engines.portable import compile_program

    parameters = {"transpose_x": graphs.tensor(np.False_), "transpose_y": graphs.tensor(np.False_)}
    operations = [
        graphs.call(
            kind, "m", ("fp32", 36742, 36742), x="x", y="y", **parameters if kind == "matmul" else {}
        ),
        graphs.call("reduce_max", "z", ("fp32",), x="m", axes=graphs.tensor(np.int32([0, 1]))),
    ]
    made = graphs.program({"x": ("fp32", 36742, 1), "y": ("fp32", 1, 36742)}, operations, ["z"])
    with pytest.raises(PackageError, match=f"at most 1073741824 elements of {kind} 'm'"):
        compile_program(made)


ONE_THREAD = """
    import os, sys
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    sys.path.insert(0, {tests!r})
    import numpy as np
    import mil_graphs as graphs
    from sd_mil import SdMilError
    from sd_mil.engines.portable import compile_program
    operation = graphs.call("add", "z", ("fp32", None, None), x="x", y="y")
    inputs = {{"x": ("fp32", None), "y": ("fp32", 8, None)}}
    compiled = compile_program(graphs.program(inputs, [operation], ["z"]))
    for count in (3, 4, 5, 1 << 20):
        arrays = {{"x": np.ones(4, np.float32), "y": np.ones((8, count), np.float32)}}
        try:
            print(compiled.run(arrays)["z"].shape)
        except SdMilError as error:
            print(type(error).__name__)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be limited here")
def test_shapes_are_checked_with_one_thread_too():
    code = textwrap.dedent(ONE_THREAD).format(tests=str(graphs.__file__).rpartition("/")[0])
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr[-500:]
    assert child.stdout.split("\n") == ["PackageError", "(8, 4)", "PackageError", "PackageError", ""]


@pytest.mark.parametrize("kind", ["add", "matmul"])
def test_sizes_of_inputs_are_bounded_before_anything_is_allocated(kind):
    """[n, 1] and [1, n]: nothing for the n that are usual, 16 GiB for 65,536."""
    from sd_mil.engines.portable import compile_program

    parameters = {"transpose_x": graphs.tensor(np.False_), "transpose_y": graphs.tensor(np.False_)}
    given = parameters if kind == "matmul" else {}
    operations = [
        graphs.call(kind, "m", ("fp32", None, None), x="x", y="y", **given),
        graphs.call("reduce_max", "z", ("fp32",), x="m", axes=graphs.tensor(np.int32([0, 1]))),
    ]
    made = graphs.program({"x": ("fp32", None, 1), "y": ("fp32", 1, None)}, operations, ["z"])
    compiled = compile_program(made)
    for count in (3, 1 << 16, 4, 1 << 16, 3):
        arrays = {"x": np.ones((count, 1), np.float32), "y": np.ones((1, count), np.float32)}
        if count < 5:
            assert compiled.run(arrays)["z"] == (2 if kind == "add" else 1)
            continue
        with pytest.raises(PackageError, match=f"at most 1073741824 elements of {kind} 'm', got shape"):
            compiled.run(arrays)


def outer(first, second, before=(), **inputs):
    """The largest of a table of sums of what ``before`` computes: n elements make a table of n²."""
    operations = [
        *before,
        graphs.call("add", "m", ("fp32", None, None), x=first, y=second),
        graphs.call("reduce_max", "z", ("fp32",), x="m", axes=graphs.tensor(np.int32([0, 1]))),
    ]
    return graphs.program(inputs, operations, ["z"])


def sides(kind):
    """The sums of a column ``a`` and a row ``b``, of the sizes ``s`` and ``t``."""
    whole, zeros = ("fp32", None, None), graphs.tensor(np.int32([0, 0]))
    if kind == "slices":
        steps = [
            graphs.call("slice_by_index", "a", whole, x="x", begin=zeros, end="s"),
            graphs.call("slice_by_index", "b", whole, x="y", begin=zeros, end="t"),
        ]
        return outer(
            "a", "b", steps, x=("fp32", None, 1), y=("fp32", 1, None), s=("int32", 2), t=("int32", 2)
        )
    steps = []
    if kind == "data":
        as_int = graphs.tensor("int32")
        steps = [graphs.call("cast", f"{one}_", ("int32", 2), x=one, dtype=as_int) for one in "st"]
    shapes = ("s_", "t_") if kind == "data" else ("s", "t")
    steps += [
        graphs.call("reshape", name, whole, x="x", shape=shape)
        for name, shape in zip("ab", shapes, strict=True)
    ]
    sizes = ("fp32" if kind == "data" else "int32", 2)
    return outer("a", "b", steps, x=("fp32", None), s=sizes, t=sizes)


@pytest.mark.parametrize("kind", ["inputs", "data", "slices"])
def test_sizes_that_follow_from_values_are_bounded(kind):
    """Values of small inputs are looked at, as are the sizes of what numpy computed before."""
    from sd_mil.engines.portable import compile_program

    made = sides(kind)
    compiled = compile_program(made)
    number = np.float32 if kind == "data" else np.int32
    for count in (3, 1 << 16, 5, 1 << 16, 3):
        x = np.ones(count, np.float32) if kind != "slices" else np.ones((count, 1), np.float32)
        arrays = {"x": x, "s": number([count, 1]), "t": number([1, count])}
        arrays |= {"y": np.ones((1, count), np.float32)} if kind == "slices" else {}
        if count < 9:
            assert compiled.run(arrays)["z"] == 2
            continue
        for engine in (compiled, compile_reference(made)):
            with pytest.raises(PackageError, match=r"1073741824 elements"):
                engine.run(arrays)


def test_other_values_for_the_same_shapes():
    """[n, 1] and [1, n] of the same n numbers: what was said of one target does not hold for another."""
    from sd_mil.engines.portable import compile_program

    compiled = compile_program(sides("inputs"))
    x, count = np.ones(1 << 16, np.float32), 1 << 16
    flat, tall = np.int32([1, count]), np.int32([count, 1])
    assert compiled.run({"x": x, "s": flat, "t": flat})["z"] == 2
    with pytest.raises(PackageError, match="at most 1073741824 elements of add 'm'"):
        compiled.run({"x": x, "s": flat, "t": tall})
    assert compiled.run({"x": x, "s": tall, "t": tall})["z"] == 2


def test_what_may_be_too_large_and_is_not_is_computed():
    """A part of which OpenVINO only knows that it is at most the whole."""
    from sd_mil.engines.portable import compile_program

    compiled = compile_program(sides("slices"))
    count = 1 << 16
    arrays = {"x": np.ones((count, 1), np.float32), "y": np.ones((1, count), np.float32)}
    assert compiled.run({**arrays, "s": np.int32([2, 1]), "t": np.int32([1, 3])})["z"] == 2


def test_shapes_are_carried_through_once():
    from sd_mil.engines.openvino.sizes import SizeCheck
    from sd_mil.engines.openvino.translation import translate_program

    operation = graphs.call("add", "z", ("fp32", None, 4), x="x", y=graphs.tensor(np.ones(4, np.float32)))
    translated = translate_program(graphs.program({"x": ("fp32", None, 4)}, [operation], ["z"]))
    check = SizeCheck(translated.model, translated.sized, translated.sizing)
    for count in (3, 5, 3):
        check.check([np.zeros((count, 4), np.float32)])
    assert translated.model.input(0).shape == [5, 4]
    fixed = translate_program(graphs.program({"x": ("fp32", 2, 4)}, [operation], ["z"]))
    assert fixed.sized == ()


_NO = graphs.tensor(np.False_)
#: Of [n, 1] and [1, n], or what stands for them: operations that make [n, n] of it.
GROWING = {
    "add": {"x": "x", "y": "y"},
    "less": {"x": "x", "y": "y"},
    "select": {"cond": "b", "a": "x", "b": "y"},
    "clip": {"x": "x", "alpha": "y", "beta": "y"},
    "matmul": {"x": "x", "y": "y", "transpose_x": _NO, "transpose_y": _NO},
    "linear": {"x": "x", "weight": "x"},
    "gather": {"x": "x", "indices": "rows", "axis": graphs.tensor(np.int32(1))},
    "gather_nd": {"x": "y", "indices": "places"},
    "gather_along_axis": {"x": "x", "indices": "rows", "axis": graphs.tensor(np.int32(1))},
    "scatter": {"data": "y", "indices": "i", "updates": "x", "axis": graphs.tensor(np.int32(0))},
    "quantize": {"input": "x", "scale": "y", "output_dtype": graphs.tensor("int8")},
    "dequantize": {"input": "q", "scale": "y"},
    "random_normal": {"shape": "sizes"},
}


@pytest.mark.parametrize("kind", GROWING)
def test_the_reference_engine_looks_at_sizes_that_are_not_declared(kind, monkeypatch):
    """Before numpy allocates: what is traced stays far below a table of 1000 x 1000."""
    import tracemalloc

    from sd_mil.ir import limits

    monkeypatch.setattr(limits, "MAX_COMPUTED_ELEMENTS", 10_000)
    monkeypatch.setattr(limits, "MAX_DECLARED_BYTES", 40_000)
    n = 1000
    arrays = {
        "x": np.ones((n, 1), np.float32),
        "y": np.ones((1, n), np.float32),
        "b": np.ones((n, 1), bool),
        "q": np.ones((n, 1), np.int8),
        "i": np.zeros(n, np.int32),
        "rows": np.zeros((1, n), np.int32),
        "places": np.zeros((n, 1), np.int32),
        "sizes": np.int32([n, n]),
    }
    used = [one for one in GROWING[kind].values() if isinstance(one, str)]
    inputs = {
        name: (graphs._MIL_NAMES[arrays[name].dtype], *[None] * arrays[name].ndim)
        if name != "sizes"
        else ("int32", 2)
        for name in used
    }
    dtype = {"less": "bool", "quantize": "int8"}.get(kind, "fp32")
    operation = graphs.call(kind, "z", (dtype, None, None), **GROWING[kind])
    compiled = compile_reference(graphs.program(inputs, [operation], ["z"]))
    tracemalloc.start()
    try:
        with pytest.raises(PackageError, match="more than 10000 elements, in shape"):
            compiled.run({name: arrays[name] for name in used})
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_loops_that_double_what_they_carry(monkeypatch):
    """A list of values that become one tensor."""
    from sd_mil.ir import limits

    monkeypatch.setattr(limits, "MAX_COMPUTED_ELEMENTS", 10_000)
    operations = []
    for step in range(20):
        name = f"x{step - 1}" if step else "x"
        axis = graphs.tensor(np.int32(0))
        operations.append(graphs.call("concat", f"x{step}", ("fp32", None), values=(name, name), axis=axis))
    made = graphs.program({"x": ("fp32", None)}, operations, ["x19"])
    with pytest.raises(PackageError, match=r"named 'x13'.*more than 10000 elements"):
        compile_reference(made).run({"x": np.ones(1, np.float32)})

"""Indices and sizes out of range: never another tensor's memory, on either engine the same typed error.

Each case that could corrupt memory runs in a child process, so that a crash is a failure and not the end.
"""

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

"""A cache that is written at computed places, as language models do: on both engines, for every begin."""

import mil_graphs as graphs
import numpy as np
import pytest
from mil_graphs import call, tensor
from sd_mil.engines.reference import compile_program as compile_reference

pytest.importorskip("openvino")


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("begin", [(0, 0, 0), (1, 1, 1), (1, -2, -4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_slice_update(computed, begin, stride):
    from sd_mil.engines.portable import compile_program

    kind, update = ("fp32", 2, 3, 4), ("fp32", 1, 1, 2)
    ends = [(first % size) + 1 for first, size in zip(begin, (2, 3), strict=False)] + [
        begin[2] % 4 + stride + 1
    ]
    bounds = {"begin": np.int32(begin), "end": np.int32(ends)}
    inputs = {"x": kind, "u": update} | (dict.fromkeys(bounds, ("int32", 3)) if computed else {})
    given = {name: name if computed else tensor(value) for name, value in bounds.items()}
    step = tensor(np.int32([1, 1, stride]))
    made = graphs.program(
        inputs, [call("slice_update", "y", kind, x="x", update="u", stride=step, **given)], ["y"]
    )
    arrays = {
        "x": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "u": np.float32([[[-1, -2]]]),
        **(bounds if computed else {}),
    }
    expected = arrays["x"].copy()
    expected[begin[0] % 2, begin[1] % 3, begin[2] % 4 : ends[2] : stride] = [-1, -2]
    for compile_with in (compile_reference, compile_program):
        np.testing.assert_array_equal(compile_with(made).run(arrays)["y"], expected)

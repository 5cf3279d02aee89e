"""Programs whose meaning is at the edge of MIL's definitions: both engines compute the same, or both refuse.

Each of these was once a value on one engine and another, or an error, on the other.
"""

import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import PackageError
from sd_mil.engines.reference import compile_program as compile_reference

pytest.importorskip("openvino")

KINDS = {"rnn": 1, "gru": 3, "lstm": 4}


def values(*shape):
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def refused(made, arrays):
    """Whether both engines refuse; if neither does, their first results are the same."""
    from sd_mil.engines.portable import compile_program

    found = []
    for compile_one in (compile_reference, compile_program):
        try:
            found.append(compile_one(made).run(arrays))
        except PackageError as error:
            found.append(error)
    if any(isinstance(one, PackageError) for one in found):
        assert all(isinstance(one, PackageError) for one in found), found
        return True
    for name, expected in found[0].items():
        assert found[1][name].shape == expected.shape
        np.testing.assert_allclose(found[1][name], expected, rtol=1e-4, atol=1e-5)
    return False


def of_one(kind, data, out, *, dynamic=False, **constants):
    """A program of one operation with the output ``out``, and its inputs."""
    inputs = {
        name: (graphs._MIL_NAMES[array.dtype], *([None] * array.ndim if dynamic else array.shape))
        for name, array in data.items()
    }
    given = dict(zip(data, data, strict=True))
    given |= {name: graphs.tensor(value) for name, value in constants.items()}
    return graphs.program(inputs, [graphs.call(kind, "y", out, **given)], ["y"]), data


def recurrent(kind, rows, *, x, declared, whole=False):
    """A layer of H = 2 whose initial states have ``rows`` rows; ``declared`` are the rows as declared."""
    gates = KINDS[kind]
    states = ["initial_h", "initial_c"][: 1 + (kind == "lstm")]
    inputs = {"x": ("fp32", 3, None if declared is None else x, 2)}
    inputs |= dict.fromkeys(states, ("fp32", declared, 2))
    outputs = [("fp32", None, None, None)] + [("fp32", None, None)] * (1 + (kind == "lstm"))
    weights = {
        "weight_ih": graphs.tensor(values(2 * gates, 2)),
        "weight_hh": graphs.tensor(values(2 * gates, 2)),
    }
    call = graphs.call(kind, "y0", outputs[0], x="x", **dict(zip(states, states, strict=True)), **weights)
    made = tuple(graphs.variable(f"y{place}", one) for place, one in enumerate(outputs))
    operation = type(call)(call.type, "layer", call.inputs, made, call.attributes)
    program = graphs.program(inputs, [operation], [one.name for one in made])
    return program, {"x": values(3, x, 2), **{name: values(rows, 2) for name in states}}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_has_a_row_for_each_sequence(kind, rows, known):
    """One row is not meant for all; only LSTMs may have more rows than sequences: coremltools makes such."""
    made, arrays = recurrent(kind, rows, x=3, declared=rows if known else None)
    assert refused(made, arrays) == (rows != 3 and not (kind == "lstm" and rows > 3))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_only_values_tell(kind):
    """A state cut at a place that is an input."""
    made, arrays = recurrent(kind, 4, x=3, declared=4)
    end = {"begin": graphs.tensor(np.int32([0, 0])), "end": "n"}
    cuts = [
        graphs.call("slice_by_index", f"cut_{name}", ("fp32", None, 2), x=name, **end)
        for name in arrays
        if name != "x"
    ]
    (layer,) = made.main.body.operations
    named = {name: graphs._arguments(f"cut_{name}") for name in arrays if name != "x"}
    layer = type(layer)(layer.type, "layer", {**layer.inputs, **named}, layer.outputs, layer.attributes)
    inputs = {one.name: (one.type.dtype, *one.type.shape) for one in made.main.inputs}
    whole = graphs.program({**inputs, "n": ("int32", 2)}, [*cuts, layer], list(made.main.outputs))
    for rows in (3, 1, 2, 4):
        expected = rows != 3 and not (kind == "lstm" and rows > 3)
        assert refused(whole, {**arrays, "n": np.int32([rows, 2])}) == expected


#: Sizes and the shape that they mean of [2, 3], as iOS 17 defines it; None where there is none.
TARGETS = {
    (0, 0): (2, 3),
    (0, -1): (2, 3),
    (1, 0, 0): (1, 2, 3),
    (0, 0, 0): (1, 2, 3),
    (0, 2, 0): (1, 2, 3),
    (1, 0, -1, 0): (1, 1, 2, 3),
    (0, 0, -1): (1, 2, 3),
    (0,): None,
    (0, 6): None,
    (6, 0): None,
    (-1, -1): None,
    (-2, 3): None,
}


@pytest.mark.parametrize("source", ["constant", "input", "shapes", "data"])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_zeros_in_a_reshapes_target(target, dynamic, source):
    """Of any rank, wherever they come from: 0 keeps the size that is as far from the end, or is 1."""
    expected, sizes = TARGETS[target], np.array(target, np.int32)
    before, inputs, arrays = [], {"x": ("fp32", *([None, None] if dynamic else [2, 3]))}, {"x": values(2, 3)}
    shape = graphs.tensor(sizes)
    count = ("int32", len(target))
    if source == "input":
        inputs["t"], arrays["t"], shape = count, sizes, "t"
    elif source == "data":  # of numbers that only a prediction knows
        inputs["t"], arrays["t"], shape = ("fp32", len(target)), sizes.astype(np.float32), "s"
        before = [graphs.call("cast", "s", count, x="t", dtype=graphs.tensor("int32"))]
    elif source == "shapes":
        before = [
            graphs.call("shape", "n", ("int32", 2), x="x"),
            graphs.call("sub", "o", ("int32", 2), x="n", y="n"),
            graphs.call("reduce_sum", "z", ("int32",), x="o"),
            graphs.call("add", "s", count, x="z", y=graphs.tensor(sizes)),
        ]
        shape = "s"
    call = graphs.call("reshape", "y", ("fp32", *[None] * len(target)), x="x", shape=shape)
    made = graphs.program(inputs, [*before, call], ["y"])
    assert refused(made, arrays) == (expected is None)
    if expected is not None:
        assert compile_reference(made).run(arrays)["y"].shape == expected


REDUCTIONS = (
    "sum",
    "mean",
    "max",
    "min",
    "prod",
    "l1_norm",
    "l2_norm",
    "log_sum",
    "log_sum_exp",
    "sum_square",
)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("kind", REDUCTIONS)
def test_reductions_over_no_axes(kind, keep):
    """Each element alone: of a norm, its magnitude."""
    for dynamic in (False, True):
        made, arrays = of_one(
            f"reduce_{kind}",
            {"x": np.abs(values(2, 3))},
            ("fp32", None, None),
            dynamic=dynamic,
            axes=np.array([], np.int32),
            keep_dims=np.bool_(keep),
        )
        assert not refused(made, arrays)
    assert not refused(*of_one(f"reduce_{kind}", {"x": np.float32(2)}, ("fp32",)))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), ()])
def test_normalisations_over_no_axes(shape, dynamic):
    """x - x, whatever OpenVINO finds in memory."""
    out = ("fp32", *[None] * len(shape))
    made, arrays = of_one(
        "layer_norm", {"x": values(*shape)}, out, dynamic=dynamic, axes=np.array([], np.int32)
    )
    assert not refused(made, arrays)
    assert not compile_reference(made).run(arrays)["y"].any()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
@pytest.mark.parametrize("kind", ["layer_norm", "reduce_sum", "reduce_mean", "reduce_max", "softmax"])
def test_over_nothing(kind, shape):
    out = ("fp32", None, None) if not kind.startswith("reduce") else ("fp32", None)
    for axis in (0, 1):
        axes = {"axis": np.int32(1)} if kind == "softmax" else {"axes": np.int32([axis])}
        for dynamic in (False, True):
            made, arrays = of_one(kind, {"x": np.zeros(shape, np.float32)}, out, dynamic=dynamic, **axes)
            refused(made, arrays)  # or not: as the other engine


def transposed(pad_type, sizes, *, channels=2, count=1):
    return of_one(
        "conv_transpose",
        {"x": values(1, 2, 4)},
        ("fp32", None, None, None),
        weight=values(2, 2, 3),
        strides=np.int32([2]),
        pad=np.int32([1, 0]),
        pad_type=pad_type,
        output_shape=np.int32([count, channels, sizes]),
    )


#: The sizes from which a convolution of 3 with the stride 2 makes 4, by how it pads.
SIZES = {"valid": (9, 10), "custom": (8, 9), "same": (7, 8), "same_lower": (7, 8)}


@pytest.mark.parametrize("pad_type", SIZES)
def test_output_shapes_that_contradict_the_padding(pad_type):
    for size in range(1, 13):
        assert refused(*transposed(pad_type, size)) == (size not in SIZES[pad_type]), size
    assert refused(*transposed(pad_type, SIZES[pad_type][0], channels=3))
    assert refused(*transposed(pad_type, SIZES[pad_type][0], count=2))


@pytest.mark.parametrize("pad_type", ["valid", "custom"])
def test_sizes_of_which_a_convolution_makes_those(pad_type):
    """torch's convolution of every size, as the definition of what may be asked for."""
    torch = pytest.importorskip("torch")
    before = (1, 0) if pad_type == "custom" else (0, 0)
    for size in range(3, 13):
        x = torch.nn.functional.pad(torch.zeros(1, 2, size), before)
        made = torch.nn.functional.conv1d(x, torch.zeros(2, 2, 3), stride=2).shape[-1]
        assert (made == 4) == (size in SIZES[pad_type])


def test_a_bias_for_each_channel():
    """numpy would make more channels of one."""
    settings = {"weight": values(1, 2, 3), "bias": values(4)}
    assert refused(*of_one("conv", {"x": values(1, 2, 5)}, ("fp32", None, None, None), **settings))


def test_a_parameter_of_one_number_has_one():
    """Broadcast, it would be a table of sums."""
    made, arrays = of_one("log", {"x": values(3, 1) ** 2}, ("fp32", None, None), epsilon=values(1, 4) ** 2)
    assert refused(made, arrays)

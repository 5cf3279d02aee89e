"""Operations on inputs of unknown sizes: in OpenVINO where it can, held to the reference engine."""

import numpy as np
import pytest

pytest.importorskip("openvino")

from mil_graphs import _MIL_NAMES, call, program, tensor, variable
from sd_mil import Operation, PackageError, Reference
from sd_mil.engines import reference
from sd_mil.engines.portable import compile_program

RNG = np.random.default_rng(21)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int32)


IMAGE, MATRIX = normal(2, 4, 6, 5), normal(3, 8)
#: Operation: its data, its parameters, and the ranks of its results.
CASES = {
    "add": ({"x": MATRIX, "y": normal(3, 8)}, {}, [2]),
    "argsort": ({"x": MATRIX}, {"axis": np.int32(1)}, [2]),
    "avg_pool": (
        {"x": IMAGE},
        {"kernel_sizes": ints(2, 2), "strides": ints(2, 2), "pad_type": "custom", "pad": ints(1, 0, 0, 1)},
        [4],
    ),
    "band_part": ({"x": normal(4, 5)}, {"lower": np.int32(0)}, [2]),
    "batch_norm": ({"x": IMAGE}, {"mean": normal(4), "variance": abs(normal(4))}, [4]),
    "concat": ({"values": (MATRIX, normal(2, 8))}, {"axis": np.int32(0)}, [2]),
    "conv": ({"x": IMAGE}, {"weight": normal(3, 4, 3, 3), "pad_type": "same"}, [4]),
    "conv_transpose": ({"x": IMAGE}, {"weight": normal(4, 3, 3, 3), "strides": ints(2, 2)}, [4]),
    "crop": ({"x": IMAGE}, {"crop_height": ints(1, 2), "crop_width": ints(0, 1)}, [4]),
    "cumsum": ({"x": MATRIX}, {"axis": np.int32(1)}, [2]),
    "depth_to_space": ({"x": IMAGE}, {"block_size": np.int32(2)}, [4]),
    "einsum": ({"values": (normal(2, 3, 4, 5), normal(2, 5, 4, 6))}, {"equation": "nchw,nwhu->nchu"}, [4]),
    "expand_dims": ({"x": MATRIX}, {"axes": ints(1)}, [3]),
    "fill_like": ({"ref_tensor": MATRIX}, {"value": np.float32(2)}, [2]),
    "flatten2d": ({"x": IMAGE}, {"axis": np.int32(2)}, [2]),
    "floor_div": ({"x": ints(7, -7), "y": ints(2, 2)}, {}, [1]),
    "gather": ({"x": MATRIX, "indices": ints(2, -1)}, {"axis": np.int32(1)}, [2]),
    "gather_along_axis": ({"x": MATRIX, "indices": RNG.integers(-3, 3, (2, 8)).astype(np.int32)}, {}, [2]),
    "gather_nd": ({"x": MATRIX, "indices": np.array([[1], [0]], np.int32)}, {}, [2]),
    "instance_norm": ({"x": IMAGE}, {}, [4]),
    "l2_norm": ({"x": IMAGE}, {}, [4]),
    "layer_norm": ({"x": MATRIX}, {"axes": ints(-1), "gamma": normal(8), "beta": normal(8)}, [2]),
    "linear": ({"x": MATRIX}, {"weight": normal(5, 8), "bias": normal(5)}, [2]),
    "lstm": (
        {"x": normal(5, 2, 3), "initial_h": normal(2, 4), "initial_c": normal(2, 4)},
        {"weight_ih": normal(16, 3), "weight_hh": normal(16, 4), "output_sequence": np.bool_(True)},
        [3, 2, 2],
    ),
    "matmul": ({"x": MATRIX, "y": normal(8, 2)}, {}, [2]),
    "max_pool": ({"x": IMAGE}, {"kernel_sizes": ints(3, 3), "strides": ints(2, 2), "pad_type": "same"}, [4]),
    "non_zero": ({"x": ints(0, 3, 0, 1)}, {}, [2]),
    "one_hot": ({"indices": ints(1, 0)}, {"one_hot_vector_size": np.int32(3)}, [2]),
    "pad": ({"x": IMAGE}, {"pad": ints(1, 1, 2, 0), "mode": "reflect"}, [4]),
    "reduce_argmax": ({"x": MATRIX}, {"axis": np.int32(1)}, [1]),
    "reduce_mean": ({"x": IMAGE}, {"axes": ints(2, 3)}, [2]),
    "reshape": ({"x": IMAGE}, {"shape": ints(0, -1, 6, 5)}, [4]),
    "reshape_like": (
        {"x": MATRIX, "ref_tensors": (normal(4, 2), normal(9, 3))},
        {
            "begins": (np.int32(0), np.int32(1)),
            "ends": (np.int32(2), np.int32(2)),
            "end_masks": (False, True),
        },
        [3],
    ),
    "resize_bilinear": (
        {"x": IMAGE},
        {
            "target_size_height": np.int32(4),
            "target_size_width": np.int32(9),
            "sampling_mode": "UNALIGN_CORNERS",
        },
        [4],
    ),
    "reverse": ({"x": MATRIX}, {"axes": ints(-1)}, [2]),
    "scatter": ({"data": MATRIX, "indices": ints(1, 0), "updates": normal(2, 8)}, {"mode": "update"}, [2]),
    "scatter_nd": ({"data": MATRIX, "indices": ints(1, 0)[:, None], "updates": normal(2, 8)}, {}, [2]),
    "scaled_dot_product_attention": (
        {"query": normal(1, 2, 3, 4), "key": normal(1, 2, 5, 4), "value": normal(1, 2, 5, 4)},
        {},
        [4],
    ),
    "select": ({"cond": MATRIX > 0, "a": MATRIX, "b": -MATRIX}, {}, [2]),
    "shape": ({"x": IMAGE}, {}, [1]),
    "slice_by_index": ({"x": IMAGE}, {"begin": ints(0, 1, -3, 0), "end": ints(1, 4, -1, 4)}, [4]),
    "slice_by_size": ({"x": MATRIX}, {"begin": ints(1, 2), "size": ints(-1, 3)}, [2]),
    "slice_update": (
        {"x": MATRIX, "update": normal(2, 8), "begin": ints(1, 0), "end": ints(3, 8)},
        {},
        [2],
    ),
    "softmax": ({"x": MATRIX}, {"axis": np.int32(-1)}, [2]),
    "split": ({"x": MATRIX}, {"axis": np.int32(1), "num_splits": np.int32(2)}, [2, 2]),
    "squeeze": ({"x": normal(1, 4)}, {"axes": ints(0)}, [1]),
    "stack": ({"values": (MATRIX, MATRIX)}, {"axis": np.int32(1)}, [3]),
    "tile": ({"x": MATRIX}, {"reps": ints(2, 1)}, [2]),
    "topk": ({"x": MATRIX}, {"k": np.int32(3), "axis": np.int32(1)}, [2, 2]),
    "transpose": ({"x": IMAGE}, {"perm": ints(0, 2, 3, 1)}, [4]),
    "upsample_bilinear": (
        {"x": IMAGE},
        {"scale_factor_height": np.float32(1.5), "scale_factor_width": np.float32(2)},
        [4],
    ),
    "upsample_nearest_neighbor": ({"x": IMAGE}, {"scale_factor_height": np.float32(1.5)}, [4]),
}
#: What has to know a size before running: the width of an index, the shape of an update.
IN_NUMPY = {"gather_along_axis", "gather_nd", "scatter", "scatter_nd", "slice_update"}
INTEGERS = {"argsort", "floor_div", "non_zero", "one_hot", "reduce_argmax", "shape"}


def single(kind):
    """The operation on inputs of unknown sizes, and arrays for them."""
    data, parameters, ranks = CASES[kind]
    arrays = {f"{key}{i}": one for key, value in data.items() for i, one in enumerate(_tuple(value))}
    inputs = {
        key: tuple(Reference(f"{key}{i}") for i in range(len(_tuple(value)))) for key, value in data.items()
    }
    inputs |= {key: tuple(map(_constant, _tuple(value))) for key, value in parameters.items()}
    dtypes = ["int32" if kind in INTEGERS or (kind, i) == ("topk", 1) else "fp32" for i in range(len(ranks))]
    outputs = [(dtype, *[None] * rank) for dtype, rank in zip(dtypes, ranks, strict=True)]
    results = tuple(variable(f"out{i}", one) for i, one in enumerate(outputs))
    declared = {name: (_MIL_NAMES[array.dtype], *[None] * array.ndim) for name, array in arrays.items()}
    operation = Operation(kind, "under_test", inputs, results)
    return program(declared, [operation], [one.name for one in results]), arrays


def _constant(value):
    return tensor(value if isinstance(value, str) else np.asarray(value))


def _tuple(value):
    return value if isinstance(value, tuple) else (value,)


def agree(made, compiled, arrays):
    expected = reference.compile_program(made).run(arrays)
    for name, value in compiled.run(arrays).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)
        assert value.shape == expected[name].shape


@pytest.mark.parametrize("kind", CASES)
def test_unknown_sizes(kind):
    made, arrays = single(kind)
    compiled = compile_program(made)
    agree(made, compiled, arrays)
    assert ("in numpy" in compiled.arithmetic) == (kind in IN_NUMPY)


def test_one_program_takes_many_sizes():
    made, _ = single("softmax")
    compiled = compile_program(made)
    for size in (1, 7, 0, 3):
        agree(made, compiled, {"x0": normal(size, 4)})


def test_sizes_that_depend_on_the_data():
    """The mean of what is positive: its positions, how many, and the values there."""
    made = program(
        {"x": ("fp32", 6)},
        [
            call("greater", "positive", ("bool", 6), x="x", y=tensor(np.float32(0))),
            call("non_zero", "where", ("int32", None, 1), x="positive"),
            call("gather_nd", "found", ("fp32", None), x="x", indices="where"),
            call("shape", "sizes", ("int32", 1), x="found"),
            call("cast", "count", ("fp32", 1), x="sizes", dtype=tensor("fp32")),
            call("reduce_sum", "total", ("fp32", 1), x="found", keep_dims=tensor(np.bool_(True))),
            call("real_div", "y", ("fp32", 1), x="total", y="count"),
        ],
        ["y", "found"],
    )
    compiled = compile_program(made)
    assert "in numpy" not in compiled.arithmetic
    for values in ([1, -1, 2, -3, 4, 0], [-1, -1, -1, 5, -1, -1]):
        agree(made, compiled, {"x": np.float32(values)})


def both(made, arrays):
    """Of each engine: its array, or the error."""
    found = []
    for compile_one in (reference.compile_program, compile_program):
        try:
            found.append(compile_one(made).run(arrays)["y"])
        except PackageError as error:
            found.append(error)
    return found


def test_sizes_that_are_contracted_have_to_fit():
    """The result has known sizes; OpenVINO, which does not look when it runs, would read beyond ``x``."""
    flags = {"transpose_x": tensor(np.bool_(True)), "transpose_y": tensor(np.bool_(False))}
    operation = call("matmul", "y", ("fp32", None, None), x="x", y=tensor(normal(5, 4)), **flags)
    made = program({"x": ("fp32", None, 5)}, [operation], ["y"])
    slow, fast = both(made, {"x": normal(5, 5)})
    np.testing.assert_allclose(slow, fast, rtol=1e-5, atol=1e-5)
    for found in both(made, {"x": normal(3, 5)}):
        assert isinstance(found, PackageError)


def test_parameters_of_norms_have_the_size_of_what_is_normalised():
    """One number is not spread over an axis whose size only running tells."""
    parameters = {"axes": tensor(ints(1)), "beta": tensor(np.float32([1.75]))}
    operation = call("layer_norm", "y", ("fp32", None, None), x="x", **parameters)
    made = program({"x": ("fp32", None, None)}, [operation], ["y"])
    slow, fast = both(made, {"x": normal(3, 1)})
    np.testing.assert_allclose(slow, fast, rtol=1e-5, atol=1e-5)
    for found in both(made, {"x": normal(3, 4)}):
        assert isinstance(found, PackageError)


def test_a_zero_of_a_result_without_elements_is_itself():
    operation = call("reshape", "y", ("fp32", 0), x="x", shape=tensor(ints(0)))
    made = program({"x": ("fp32", None, 4)}, [operation], ["y"])
    assert [found.shape for found in both(made, {"x": normal(0, 4)})] == [(0,), (0,)]


@pytest.mark.parametrize(
    ("kind", "given"), [("fill", {"shape": ints()}), ("fill_like", {"ref_tensor": np.float32(1)})]
)
def test_a_scalar_is_filled(kind, given):
    """To the shape of a scalar, OpenVINO's broadcast ends the process."""
    parameters = {name: tensor(value) for name, value in given.items()}
    made = program({"v": ("fp32",)}, [call(kind, "y", ("fp32",), value="v", **parameters)], ["y"])
    for found in both(made, {"v": np.float32(2.5)}):
        np.testing.assert_array_equal(found, np.float32(2.5))


def test_a_range_across_most_of_the_integers():
    start, end, step = (tensor(np.int32(value)) for value in (-2147483647, 17, 1048576))
    operation = call("range_1d", "y", ("int32", None), start=start, end=end, step=step)
    for found in both(program({}, [operation], ["y"]), {}):
        np.testing.assert_array_equal(found, np.arange(-2147483647, 17, 1048576, dtype=np.int64))


def test_a_size_that_comes_out_negative_is_named():
    pad = ints(0, 1, 1048576, 16777216, 1, 1)
    parameters = {"pad_type": "custom", "pad": pad, "weight": normal(1, 4, 1, 3, 1)}
    given = {name: tensor(value) for name, value in parameters.items()}
    operation = call("conv_transpose", "y", ("fp32", *[None] * 5), x="x", **given)
    made = program({"x": ("fp32", 1, 1, 6, 3, None)}, [operation], ["y"])
    for found in both(made, {"x": normal(1, 1, 6, 3, 2)}):
        assert isinstance(found, PackageError)


@pytest.mark.parametrize(
    ("kind", "shape", "given"),
    [
        ("depth_to_space", (5, 2, 4), {"block_size": np.int32(1)}),
        ("pixel_unshuffle", (5, 1, 4, 4, 4), {"downscale_factor": np.uint32(1)}),
        ("instance_norm", (4, 5), {"beta": normal(5)}),
    ],
)
def test_ranks_that_an_operation_does_not_have(kind, shape, given):
    """OpenVINO takes them; what it makes of them is not what numpy makes of them, or nobody's promise."""
    parameters = {name: tensor(value) for name, value in given.items()}
    operation = call(kind, "y", ("fp32", *[None] * len(shape)), x="x", **parameters)
    slow, fast = both(program({"x": ("fp32", *shape)}, [operation], ["y"]), {"x": normal(*shape)})
    if isinstance(slow, PackageError):
        assert isinstance(fast, PackageError)
    else:
        np.testing.assert_array_equal(slow, fast)


def test_linear_with_a_weight_of_unknown_size():
    """OpenVINO, left alone, fuses the bias with a weight that it takes to have no rows."""
    inputs = {"x": ("fp32", 4, 4, 1), "w": ("fp32", None, 1)}
    operation = call("linear", "y", ("fp32", None, None, None), x="x", weight="w", bias=tensor(normal(8)))
    made = program(inputs, [operation], ["y"])
    arrays = {"x": normal(4, 4, 1), "w": normal(8, 1)}
    expected = reference.compile_program(made).run(arrays)["y"]
    np.testing.assert_allclose(compile_program(made).run(arrays)["y"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", [(1, 2), (0, 2), (-1,)])
def test_layer_norm_over_unknown_sizes(axes):
    x = normal(3, 4, 5)
    sizes = [size for axis, size in enumerate(x.shape) if axis in {one % 3 for one in axes}]
    gamma, beta = normal(*sizes), normal(*sizes)
    normalise = call(
        "layer_norm", "y", ("fp32", None, None, None), x="x",
        axes=tensor(ints(*axes)), gamma=tensor(gamma), beta=tensor(beta),
    )  # fmt: skip
    compiled = compile_program(program({"x": ("fp32", None, None, None)}, [normalise], ["y"]))
    assert "in numpy" not in compiled.arithmetic
    deviation = np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5)
    along = [size if axis in {one % 3 for one in axes} else 1 for axis, size in enumerate(x.shape)]
    expected = (x - x.mean(axis=axes, keepdims=True)) / deviation * gamma.reshape(along) + beta.reshape(along)
    np.testing.assert_allclose(compiled.run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


def test_group_norm_of_unknown_sizes():
    """As converters write it, without scale: a pass makes it one operation, which is not refused."""
    shape, kept = ("fp32", 1, 2, 3, None), ("fp32", 1, 2, 1, 1)
    over = {"axes": tensor(ints(2, 3)), "keep_dims": tensor(np.bool_(True))}
    made = program(
        {"x": shape},
        [
            call("reduce_mean", "mean", kept, x="x", **over),
            call("sub", "centred", shape, x="x", y="mean"),
            call("square", "squares", shape, x="centred"),
            call("reduce_mean", "variance", kept, x="squares", **over),
            call("add", "shifted", kept, x="variance", y=tensor(np.float32(1e-5))),
            call("sqrt", "deviation", kept, x="shifted"),
            call("real_div", "y", shape, x="centred", y="deviation"),
        ],
        ["y"],
    )
    compiled = compile_program(made)
    assert "in numpy" not in compiled.arithmetic
    x = normal(1, 2, 3, 7)
    expected = (x - x.mean(axis=(2, 3), keepdims=True)) / np.sqrt(x.var(axis=(2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(compiled.run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [5, 2])
def test_transposed_convolution_of_what_was_padded(size):
    """torch's output padding as coremltools writes it: OpenVINO takes the padding as the result's."""
    torch = pytest.importorskip("torch")
    x, weight = normal(1, 3, size), normal(3, 2, 1)
    made = program(
        {"x": ("fp32", 1, 3, None)},
        [
            call("pad", "wide", ("fp32", 1, 3, None), x="x", pad=tensor(ints(0, 0, 0, 1)),
                 mode=tensor("constant"), constant_val=tensor(np.float32(0))),
            call("conv_transpose", "y", ("fp32", 1, 2, None), x="wide", weight=tensor(weight),
                 strides=tensor(ints(3)), pad_type=tensor("custom"), pad=tensor(ints(1, 1))),
        ],
        ["y"],
    )  # fmt: skip
    padded = torch.nn.functional.pad(torch.from_numpy(x), (0, 1))
    expected = torch.nn.functional.conv_transpose1d(padded, torch.from_numpy(weight), stride=3, padding=1)
    found = compile_program(made).run({"x": x})["y"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_zeros_in_a_shape_of_another_rank():
    rows = call("reshape", "y", ("fp32", 1, None, None, None), x="x", shape=tensor(ints(1, 0, -1, 0)))
    compiled = compile_program(program({"x": ("fp32", None, None)}, [rows], ["y"]))
    found = compiled.run({"x": MATRIX})["y"]
    np.testing.assert_array_equal(found, MATRIX.reshape(1, 1, 3, 8))


@pytest.mark.parametrize(
    ("kind", "size"), [("depth_to_space", 3), ("pixel_shuffle", 3), ("space_to_depth", 5)]
)
def test_tensors_without_elements_are_numpys(kind, size):
    """OpenVINO wants 0 channels to be a multiple of 9, and says otherwise."""
    name = "upscale_factor" if kind == "pixel_shuffle" else "block_size"
    shape = call(kind, "y", ("fp32", None, None, None, None), x="x", **{name: tensor(np.int32(size))})
    made = program({"x": ("fp32", 2, None, 5, 5)}, [shape], ["y"])
    x = {"x": np.zeros((2, 0, 5, 5), np.float32)}
    expected = reference.compile_program(made).run(x)["y"]
    assert compile_program(made).run(x)["y"].shape == expected.shape

"""Every operation of the portable engine against the reference engine, over its attributes."""

import numpy as np
import pytest

pytest.importorskip("openvino")

from mil_graphs import call, program, tensor
from portable_calls import agrees, portable
from sd_mil import PackageError
from sd_mil.engines.portable import compile_program
from sd_mil.engines.reference.ops import OPS

RNG = np.random.default_rng(11)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape):
    return (RNG.random(shape) + 0.1).astype(np.float32)


def ints(*values):
    return np.array(values, np.int32)


def whole(low, high, *shape):
    return RNG.integers(low, high, shape).astype(np.int32)


def bools(*values):
    return np.array(values, np.bool_)


X = normal(2, 3, 4, 5)

ANYWHERE = (
    *("abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor", "identity", "relu", "relu6"),
    *("sigmoid", "sign", "silu", "sin", "sinh", "softplus", "softsign", "square", "tanh"),
)
UNARY = {
    **dict.fromkeys(ANYWHERE, X * 3),
    **dict.fromkeys(("acos", "asin", "atanh", "tan"), np.tanh(X) * np.float32(0.9)),
    **dict.fromkeys(("inverse", "log", "rsqrt", "sqrt"), positive(3, 4)),
    "round": np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.4]),
    "logical_not": bools(True, False),
}


@pytest.mark.parametrize("kind", UNARY)
def test_unary(kind):
    agrees(kind, {"x": UNARY[kind]})


@pytest.mark.parametrize("kind", ["inverse", "log", "rsqrt"])
def test_epsilon(kind):
    agrees(kind, {"x": positive(7)}, epsilon=np.float32(0.25))


ARITHMETIC = ["add", "sub", "mul", "real_div", "floor_div", "mod", "maximum", "minimum"]
COMPARISONS = ["equal", "not_equal", "greater", "greater_equal", "less", "less_equal"]


@pytest.mark.parametrize("kind", [*ARITHMETIC, *COMPARISONS])
def test_binary_of_floats_broadcasts(kind):
    agrees(kind, {"x": np.round(X, 1), "y": np.float32([[1.5], [-0.7], [2.0], [0.3]])})


@pytest.mark.parametrize("kind", [*(one for one in ARITHMETIC if one != "real_div"), *COMPARISONS])
def test_binary_of_integers(kind):
    agrees(kind, {"x": whole(-9, 10, 5, 4), "y": ints(3, -3, 1, -2)})


def test_large_integers_stay_exact():
    x, y = ints(2**24 + 1, -(2**30) - 1), ints(1, 2)
    assert portable("add", {"x": x, "y": y}, [("int32", 2)])[0].tolist() == [2**24 + 2, -(2**30) + 1]


def test_division_of_integers_truncates():
    got = portable("real_div", {"x": ints(7, -7, 6), "y": ints(2, 2, 3)}, [("int32", 3)])
    assert got[0].tolist() == [3, -3, 2]


@pytest.mark.parametrize("kind", ["logical_and", "logical_or", "logical_xor"])
def test_logic(kind):
    agrees(kind, {"x": bools(True, True, False, False), "y": bools(True, False, True, False)})


def test_power():
    agrees("pow", {"x": positive(3, 4), "y": normal(4)})


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("clip", {"alpha": np.float32(-0.5), "beta": np.float32(0.75)}),
        ("threshold", {"alpha": np.float32(0.3)}),
        ("leaky_relu", {"alpha": np.float32(0.2)}),
        ("elu", {"alpha": np.float32(0.7)}),
        ("sigmoid_hard", {"alpha": np.float32(0.3), "beta": np.float32(0.4)}),
        ("thresholded_relu", {"alpha": np.float32(0.5)}),
        ("clamped_relu", {"alpha": np.float32(0.1), "beta": np.float32(0.6)}),
        ("linear_activation", {"alpha": np.float32(2), "beta": np.float32(0.5)}),
        ("scaled_tanh", {"alpha": np.float32(2), "beta": np.float32(0.5)}),
        ("prelu", {"alpha": np.float32([0.1, -0.2, 0.3])}),
        ("softplus_parametric", {"alpha": positive(3), "beta": positive(3)}),
        ("gelu", {}),
        ("gelu", {"mode": "EXACT"}),
        ("gelu", {"mode": "TANH_APPROXIMATION"}),
        ("gelu", {"mode": "SIGMOID_APPROXIMATION"}),
        *(("softmax", {"axis": np.int32(axis)}) for axis in (-4, -3, 1, 2, 3)),
    ],
)
def test_activation(kind, parameters):
    agrees(kind, {"x": X}, **parameters)


@pytest.mark.parametrize("bias", [None, normal(7)])
def test_linear(bias):
    agrees("linear", {"x": normal(2, 5, 4)}, weight=normal(7, 4), bias=bias)


@pytest.mark.parametrize("transpose_x", [False, True])
@pytest.mark.parametrize("transpose_y", [False, True])
def test_matmul(transpose_x, transpose_y):
    x, y = normal(2, 3, 4, 5), normal(3, 5, 6)
    data = {
        "x": x.swapaxes(-1, -2).copy() if transpose_x else x,
        "y": y.swapaxes(-1, -2).copy() if transpose_y else y,
    }
    agrees("matmul", data, transpose_x=np.bool_(transpose_x), transpose_y=np.bool_(transpose_y))


@pytest.mark.parametrize(
    ("equation", "x", "y"),
    [
        ("bkhc,bchq->bkhq", (2, 5, 1, 4), (2, 4, 1, 3)),
        ("bchk,bkhq->bchq", (2, 4, 3, 5), (2, 5, 3, 6)),
        (" ab, bc -> ac ", (3, 4), (4, 5)),
        ("bij,bkj->bki", (2, 3, 4), (2, 5, 4)),
        ("nchw,nwhu->nchu", (2, 3, 4, 5), (2, 5, 4, 6)),
        ("abc,bd->acd", (2, 3, 4), (3, 5)),  # two labels of the first operand alone: not one matrix product
    ],
)
def test_einsum(equation, x, y):
    x, y = normal(*x), normal(*y)
    expected = np.einsum(equation.replace(" ", ""), x, y)
    got = portable("einsum", {"values": (x, y)}, [("fp32", *expected.shape)], equation=equation)[0]
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("pad_type", ["custom", "valid", "same", "same_lower"])
def test_conv(stride, dilation, groups, pad_type):
    agrees(
        "conv",
        {"x": normal(2, 4, 9, 12)},
        weight=normal(8, 4 // groups, 3, 2),
        bias=normal(8),
        strides=ints(*stride),
        pad_type=pad_type,
        pad=ints(1, 2, 0, 3),
        dilations=ints(*dilation),
        groups=np.int32(groups),
    )


@pytest.mark.parametrize(
    ("sizes", "kernel", "dilations", "pad"),
    [
        ((2,), (1,), (1,), (0, 1)),
        ((1,), (2,), (1,), (2, 3)),
        ((2,), (2,), (2,), (0, 3)),
        ((1,), (2,), (3,), (2, 2)),  # as wide as the padding, and yet between two taps
        ((1, 3), (1, 1), (1, 1), (0, 0, 0, 2)),
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("apart", [False, True])
def test_conv_of_windows_in_the_padding_alone(sizes, kernel, dilations, pad, groups, apart):
    """OpenVINO 2026.4.1 ends the process, also where the padding is an operation of its own."""
    x, weight, bias = normal(1, 2, *sizes), normal(4, 2 // groups, *kernel), normal(4)
    settings = {"weight": weight, "bias": bias, "dilations": ints(*dilations), "groups": np.int32(groups)}
    if not apart:
        agrees("conv", {"x": x}, pad_type="custom", pad=ints(*pad), **settings)
        return
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pad[::2], pad[1::2], strict=True)])
    expected = OPS["conv"].function(x=padded, pad_type="valid", **settings)
    apart = call(
        "pad", "padded", ("fp32", *padded.shape), x="x", pad=tensor(ints(0, 0, 0, 0, *pad)),
        mode=tensor("constant"), constant_val=tensor(np.float32(0)),
    )  # fmt: skip
    given = {name: tensor(value) for name, value in settings.items()}
    convolved = call("conv", "y", ("fp32", *expected.shape), x="padded", pad_type=tensor("valid"), **given)
    made = program({"x": ("fp32", *x.shape)}, [apart, convolved], ["y"])
    found = compile_program(made).run({"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_an_even_dilated_window_that_misses_a_small_input():
    agrees("conv", {"x": normal(1, 2, 2)}, weight=normal(4, 2, 2), pad_type="same", dilations=ints(3))


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool", "l2_pool"])
@pytest.mark.parametrize("pad", [(0, 1), (1, 0), (2, 3)])
def test_pools_of_windows_in_the_padding_alone(kind, pad):
    agrees(kind, {"x": normal(1, 2, 3)}, kernel_sizes=ints(1), pad_type="custom", pad=ints(*pad))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_defaults(rank):
    agrees("conv", {"x": normal(1, 3, *[7] * rank)}, weight=normal(5, 3, *[3] * rank))


@pytest.mark.parametrize("pad_type", ["custom", "valid", "same"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_conv_transpose(pad_type, groups, stride):
    agrees(
        "conv_transpose",
        {"x": normal(2, 4, 5, 6)},
        weight=normal(4, 6 // groups, 4, 3),
        bias=normal(6),
        strides=ints(*stride),
        pad_type=pad_type,
        pad=ints(1, 0, 1, 1) if pad_type == "custom" else None,
        groups=np.int32(groups),
    )


def test_conv_transpose_to_a_stated_size():
    x, weight = normal(1, 2, 4, 4), normal(2, 3, 3, 3)
    settings = {"strides": ints(2, 2), "pad_type": "custom", "pad": ints(1, 1, 1, 1)}
    agrees("conv_transpose", {"x": x}, weight=weight, output_shape=ints(1, 3, 8, 8), **settings)


@pytest.mark.parametrize("axes", [[1], [-1], [3], [1, 2], [2, 3], [1, 2, 3]])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(axes, affine):
    shape = [X.shape[axis] for axis in axes]
    gamma, beta = (normal(*shape), normal(*shape)) if affine else (None, None)
    agrees("layer_norm", {"x": X}, axes=ints(*axes), gamma=gamma, beta=beta, epsilon=np.float32(1e-3))


def test_normalisation_over_channels():
    agrees("instance_norm", {"x": X}, gamma=normal(3), beta=normal(3), epsilon=np.float32(1e-3))
    agrees("instance_norm", {"x": X})
    given = {"mean": normal(3), "variance": positive(3)}
    agrees("batch_norm", {"x": X}, gamma=normal(3), beta=normal(3), epsilon=np.float32(1e-3), **given)
    agrees("batch_norm", {"x": X}, **given)
    agrees("l2_norm", {"x": X}, epsilon=np.float32(1e-3))


REDUCTIONS = [name for name in OPS if name.startswith("reduce_") and not name.startswith("reduce_arg")]


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize(("axes", "keep"), [([1], True), ([-1, 0], False), (None, False), ([2, 3], None)])
def test_reduction(kind, axes, keep):
    given = {} if axes is None else {"axes": ints(*axes)}
    x = positive(2, 3, 2, 4) if kind in ("reduce_prod", "reduce_log_sum") else X
    agrees(kind, {"x": x}, keep_dims=None if keep is None else np.bool_(keep), **given)


@pytest.mark.parametrize("kind", ["reduce_argmax", "reduce_argmin"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("keep", [False, True])
def test_the_first_of_equal_values_wins(kind, axis, keep):
    x = whole(0, 2, 6, 40)
    agrees(kind, {"x": x}, axis=np.int32(axis), keep_dims=np.bool_(keep))
    agrees(kind, {"x": x.astype(np.float32)}, axis=np.int32(axis), keep_dims=np.bool_(keep))


@pytest.mark.parametrize("shape", [(2, 12, 5), (-1, 5), (6, -1), (0, 0, 20, 1), (0, -1, 2, 5), (120,)])
def test_reshape(shape):
    agrees("reshape", {"x": X}, shape=ints(*shape))


def test_reshape_of_a_scalar_and_to_one():
    agrees("reshape", {"x": normal(1)}, shape=ints(1, 1))


@pytest.mark.parametrize(
    ("kind", "x", "parameters"),
    [
        ("transpose", X, {"perm": ints(0, 2, 3, 1)}),
        ("transpose", X, {"perm": ints(-1, 0, -2, 1)}),
        ("expand_dims", X, {"axes": ints(0, 3)}),
        ("expand_dims", X, {"axes": ints(-1)}),
        ("squeeze", normal(1, 3, 1, 2), {"axes": ints(2)}),
        ("squeeze", normal(1, 3, 1, 2), {}),
        ("squeeze", normal(1, 3, 1, 2), {"axes": ints()}),
        ("flatten2d", X, {"axis": np.int32(2)}),
        ("flatten2d", X, {}),
        ("shape", X, {}),
        ("depth_to_space", normal(2, 8, 3, 4), {"block_size": np.int32(2)}),
        ("space_to_depth", normal(2, 2, 6, 8), {"block_size": np.int32(2)}),
        ("pixel_shuffle", normal(2, 8, 3, 4), {"upscale_factor": np.int32(2)}),
        ("pixel_unshuffle", normal(2, 2, 6, 8), {"downscale_factor": np.int32(2)}),
        ("reverse", X, {"axes": ints(1, -1)}),
        ("reverse", X, {}),
        ("slice_by_size", X, {"begin": ints(0, 1, 2, 3), "size": ints(2, -1, 1, 2)}),
        ("split", X, {"num_splits": np.int32(2), "axis": np.int32(2)}),
        ("split", X, {"split_sizes": ints(2, 3), "axis": np.int32(-1)}),
        ("tile", X, {"reps": ints(1, 2, 1, 3)}),
        ("cumsum", X, {"axis": np.int32(1)}),
        ("cumsum", X, {"axis": np.int32(-1), "exclusive": np.True_, "reverse": np.True_}),
        ("topk", X, {"k": np.int32(2), "axis": np.int32(-1)}),
        ("topk", X, {"k": np.int32(3), "axis": np.int32(1), "ascending": np.True_}),
        ("argsort", X, {"axis": np.int32(3), "ascending": np.True_}),
        ("argsort", X, {}),
        ("band_part", X, {"lower": np.int32(1), "upper": np.int32(0)}),
        ("band_part", X, {}),
    ],
)
def test_rearrangement(kind, x, parameters):
    agrees(kind, {"x": x}, **parameters)


@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis, interleave):
    data = {"values": (normal(2, 3, 4), normal(2, 3, 4), normal(2, 3, 4))}
    agrees("concat", data, axis=np.int32(axis), interleave=np.bool_(interleave))


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_stack(axis):
    agrees("stack", {"values": (normal(2, 3), normal(2, 3))}, axis=np.int32(axis))


def test_scalars_join_to_a_vector():
    three = np.array(3, np.int32), np.array(5, np.int32)
    assert portable("concat", {"values": three}, [("int32", 2)], axis=np.int32(0))[0].tolist() == [3, 5]


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize("pads", [(0, 1, 2, 3), (1, 1)])
def test_pad(mode, pads):
    agrees("pad", {"x": X}, pad=ints(*pads), mode=mode, constant_val=np.float32(0.5))


def test_pad_of_integers():
    agrees("pad", {"x": whole(0, 9, 2, 3)}, pad=ints(1, 0, 0, 2))


def test_filling():
    got = portable("fill", {"shape": ints(2, 3)}, [("fp32", None, None)], value=np.float32(1.5))
    np.testing.assert_array_equal(got[0], np.full((2, 3), 1.5, np.float32))
    data = {"start": np.array(1, np.int32), "end": np.array(9, np.int32), "step": np.array(3, np.int32)}
    assert portable("range_1d", data, [("int32", None)])[0].tolist() == [1, 4, 7]


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis):
    parameters = {"axis": np.int32(axis), "on_value": np.int32(2), "off_value": np.int32(-1)}
    agrees("one_hot", {"indices": ints(0, 2, 1, 2)}, one_hot_vector_size=np.int32(3), **parameters)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.int32, np.int16, np.uint16])
def test_gather(axis, dtype):
    size = X.shape[axis]
    indices = whole(0 if dtype is np.uint16 else -size, size, 2, 2).astype(dtype)
    agrees("gather", {"x": X, "indices": indices}, axis=np.int32(axis))


def test_gather_within_a_batch():
    data = {"x": X, "indices": whole(0, 3, 2, 4)}
    agrees("gather", data, axis=np.int32(1), batch_dims=np.int32(1))


@pytest.mark.parametrize("axis", [1, -1])
def test_gather_along_axis(axis):
    agrees("gather_along_axis", {"x": X, "indices": whole(-3, 3, *X.shape)}, axis=np.int32(axis))


@pytest.mark.parametrize("batch_dims", [0, 1])
def test_gather_nd(batch_dims):
    agrees("gather_nd", {"x": X, "indices": whole(-2, 2, 2, 5, 2)}, batch_dims=np.int32(batch_dims))


SCATTER_MODES = ["add", "sub", "mul", "min", "max", "update"]


@pytest.mark.parametrize("mode", SCATTER_MODES)
def test_scatter_nd(mode):
    data = {"data": X, "indices": ints([0, -1], [1, 0]), "updates": positive(2, 4, 5)}
    agrees("scatter_nd", data, mode=mode)


@pytest.mark.parametrize("mode", ["add", "mul", "min", "max", "update"])
@pytest.mark.parametrize("axis", [1, -1])
def test_scatter(mode, axis):
    size = X.shape[axis]
    updates = positive(*(2 if i == axis % 4 else n for i, n in enumerate(X.shape)))
    given = {"axis": np.int32(axis), "mode": mode}
    agrees("scatter", {"data": X, "indices": ints(0, size - 1), "updates": updates}, **given)
    spots = np.stack([np.arange(size), np.arange(size)[::-1]]).astype(np.int32)
    data = {"data": normal(2, size), "indices": spots, "updates": positive(2, size)}
    agrees("scatter_along_axis", data, axis=np.int32(1), mode=mode)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_non_zero_lists_positions_row_by_row(dtype):
    x = (whole(0, 2, 3, 4, 2)).astype(dtype)
    got = portable("non_zero", {"x": x}, [("int32", None, 3)])[0]
    np.testing.assert_array_equal(got, np.argwhere(x))


@pytest.mark.parametrize(
    ("x", "dtype", "expected"),
    [
        (np.float32([1.9, -1.9, 0.2]), "int32", [1, -1, 0]),
        (np.float32([0.5, 0.0, -2.0]), "bool", [True, False, True]),
        (ints(0, 3), "bool", [False, True]),
        (bools(True, False), "fp16", [1.0, 0.0]),
        (ints(3, -4), "fp32", [3.0, -4.0]),
        (np.uint16([7, 65535]), "int32", [7, 65535]),
    ],
)
def test_cast(x, dtype, expected):
    got = portable("cast", {"x": x}, [(dtype, len(expected))], dtype=dtype)[0]
    assert got.tolist() == expected


def test_select():
    agrees("select", {"cond": X > 0, "a": X, "b": normal(5)})


@pytest.mark.parametrize("scale", [np.int32(2), np.float32(2), np.float32(1.5)])
def test_upsample_nearest(scale):
    agrees("upsample_nearest_neighbor", {"x": X}, scale_factor_height=scale, scale_factor_width=np.float32(3))


def test_resize_nearest():
    agrees(
        "resize_nearest_neighbor", {"x": X}, target_size_height=np.int32(7), target_size_width=np.int32(11)
    )


@pytest.mark.parametrize("align", [True, False])
def test_upsample_bilinear(align):
    scales = {"scale_factor_height": np.float32(2), "scale_factor_width": np.float32(2.5)}
    agrees("upsample_bilinear", {"x": X}, align_corners=np.bool_(align), **scales)


@pytest.mark.parametrize("mode", ["STRICT_ALIGN_CORNERS", "UNALIGN_CORNERS", "DEFAULT"])
@pytest.mark.parametrize("target", [(7, 11), (2, 3)])
def test_resize_bilinear(mode, target):
    sizes = {"target_size_height": np.int32(target[0]), "target_size_width": np.int32(target[1])}
    agrees("resize_bilinear", {"x": X}, sampling_mode=mode, **sizes)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (2, 1, 3, 4, 5)])
def test_constants_and_inputs_that_are_no_pictures_are_resized(shape):
    """OpenVINO folds the constants by other code than runs on inputs."""
    sizes = {"target_size_height": np.int32(7), "target_size_width": np.int32(3)}
    x, strict = normal(*shape), {"sampling_mode": "STRICT_ALIGN_CORNERS"}
    agrees("resize_bilinear", {"x": x}, **strict, **sizes)
    agrees("resize_bilinear", {}, x=x, **strict, **sizes)
    agrees("upsample_bilinear", {}, x=x, scale_factor_height=np.float32(2))


@pytest.mark.parametrize("pad_type", ["valid", "same", "custom"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_pools(pad_type, strides):
    given = {
        "kernel_sizes": ints(3, 2),
        "strides": ints(*strides),
        "pad_type": pad_type,
        "pad": ints(1, 1, 0, 1),
    }
    x = positive(2, 3, 7, 8)
    agrees("max_pool", {"x": x}, **given)
    for exclude in (False, True):
        agrees("avg_pool", {"x": x}, exclude_padding_from_average=np.bool_(exclude), **given)


@pytest.mark.parametrize("mask", [None, normal(2, 1, 4, 6), RNG.random((2, 1, 4, 6)) > 0.3])
def test_attention(mask):
    data = {"query": normal(2, 3, 4, 8), "key": normal(2, 3, 6, 8), "value": normal(2, 3, 6, 5)}
    agrees("scaled_dot_product_attention", data | ({} if mask is None else {"attn_mask": mask}))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_narrow_integers_keep_their_low_bits_between_operations(dtype):
    x = ints(300, -1, 40000, 70000, -129, 5)
    made = program(
        {"x": ("int32", 6)},
        [
            call("cast", "narrow", (dtype, 6), x="x", dtype=tensor(dtype)),
            call("cast", "y", ("fp32", 6), x="narrow", dtype=tensor("fp32")),
        ],
        ["y"],
    )
    assert compile_program(made).run({"x": x})["y"].tolist() == x.astype(dtype).tolist()


def test_every_translated_operation_has_a_reference():
    """So that a new translation without an oracle is noticed here."""
    from sd_mil.engines.openvino.registry import TRANSLATORS

    assert set(TRANSLATORS) <= set(OPS)


def test_products_of_floats_and_integers():
    weight = RNG.integers(-3, 4, (5, 4)).astype(np.int32)
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    (found,) = portable("linear", {"x": x}, [("fp32", 3, 5)], weight=weight)
    np.testing.assert_allclose(found, x @ weight.T, rtol=1e-5, atol=1e-5)
    (found,) = portable("matmul", {"x": x}, [("fp32", 3, 5)], y=weight.T.copy())
    np.testing.assert_allclose(found, x @ weight.T, rtol=1e-5, atol=1e-5)


def test_integer_coordinates():
    image = RNG.standard_normal((1, 1, 3, 4)).astype(np.float32)
    points = np.array([[[[1, -1], [-1, 0]]]], np.int32)
    (found,) = portable(
        "resample", {"x": image, "coordinates": points}, [("fp32", 1, 1, 1, 2)],
        sampling_mode="nearest", padding_mode="constant", padding_value=np.float32(0),
        coordinates_mode="normalized_minus_one_to_one", align_corners=np.bool_(True),
    )  # fmt: skip
    np.testing.assert_allclose(found.ravel(), [image[0, 0, 0, 3], image[0, 0, 1, 0]], rtol=1e-6)


def test_more_initial_rows_than_sequences():
    """coremltools gives packed sequences as many rows of zeros as they have steps."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.LSTM(3, 4).eval()
    x = RNG.standard_normal((5, 2, 3)).astype(np.float32)
    with torch.no_grad():
        expected, _ = layer(torch.from_numpy(x))
        weights = {name: one.numpy() for name, one in layer.named_parameters()}
    gates = np.r_[0:8, 12:16, 8:12]  # torch has i f z o, MIL i f o z
    zeros = np.zeros((5, 4), np.float32)
    found, *_ = portable(
        "lstm", {"x": x}, [("fp32", 5, 2, 4), ("fp32", 2, 4), ("fp32", 2, 4)],
        initial_h=zeros, initial_c=zeros,
        weight_ih=weights["weight_ih_l0"][gates], weight_hh=weights["weight_hh_l0"][gates],
        bias=(weights["bias_ih_l0"] + weights["bias_hh_l0"])[gates], output_sequence=np.bool_(True),
    )  # fmt: skip
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("perm", [ints(), ints(0)])
def test_a_transpose_that_leaves_axes_out(perm):
    """OpenVINO takes no axis at all for the reverse of all."""
    with pytest.raises(PackageError, match="axes don't match"):
        portable("transpose", {"x": normal(2, 3)}, [("fp32", None, None)], perm=perm)

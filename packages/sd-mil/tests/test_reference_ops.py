"""Operations whose oracle is numpy, or arithmetic on paper."""

import inspect

import numpy as np
import pytest
from sd_mil.constexpr import unpack
from sd_mil.engines.reference.ops import OPS
from sd_mil.engines.reference.registry import find_op, op

A = np.array([[1.5, -2.0, 3.0], [0.25, 5.0, -6.5]], np.float32)
B = np.array([2.0, -3.0, 0.5], np.float32)


def mil(name, /, *args, **kwargs):
    return find_op(name).function(*args, **kwargs)


def ints(*values):
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("add", [[3.5, -5, 3.5], [2.25, 2, -6]]),
        ("sub", [[-0.5, 1, 2.5], [-1.75, 8, -7]]),
        ("mul", [[3, 6, 1.5], [0.5, -15, -3.25]]),
        ("real_div", [[0.75, 2 / 3, 6], [0.125, -5 / 3, -13]]),
        ("floor_div", [[0, 0, 6], [0, -2, -13]]),
        ("mod", [[1.5, -2, 0], [0.25, -1, 0]]),
        ("maximum", [[2, -2, 3], [2, 5, 0.5]]),
        ("minimum", [[1.5, -3, 0.5], [0.25, -3, -6.5]]),
        ("greater", [[False, True, True], [False, True, False]]),
        ("greater_equal", [[False, True, True], [False, True, False]]),
        ("less", [[True, False, False], [True, False, True]]),
        ("less_equal", [[True, False, False], [True, False, True]]),
        ("equal", [[False] * 3] * 2),
        ("not_equal", [[True] * 3] * 2),
    ],
)
def test_binary(name, expected):
    np.testing.assert_allclose(mil(name, A, B), np.array(expected), rtol=1e-6)


def test_binary_on_logic_and_powers():
    p, q = np.array([True, True, False]), np.array([True, False, False])
    assert mil("logical_and", p, q).tolist() == [True, False, False]
    assert mil("logical_or", p, q).tolist() == [True, True, False]
    assert mil("logical_xor", p, q).tolist() == [False, True, False]
    assert mil("logical_not", p).tolist() == [False, False, True]
    assert mil("pow", np.float32([2, 9]), np.float32([3, 0.5])).tolist() == [8, 3]


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("abs", -2.5, 2.5),
        ("acos", 0.5, np.pi / 3),
        ("asin", 0.5, np.pi / 6),
        ("atan", 1, np.pi / 4),
        ("atanh", 0.5, np.log(3) / 2),
        ("ceil", -1.5, -1),
        ("cos", np.pi / 3, 0.5),
        ("cosh", np.log(2), 1.25),
        ("exp", np.log(3), 3),
        ("exp2", 3, 8),
        ("floor", -1.5, -2),
        ("identity", 3, 3),
        ("inverse", 1.9999, 0.5),
        ("log", np.e, 1),
        ("round", 2.5, 2),
        ("rsqrt", 16, 0.25),
        ("sign", -3, -1),
        ("sin", np.pi / 6, 0.5),
        ("sinh", np.log(2), 0.75),
        ("sqrt", 9, 3),
        ("square", -3, 9),
        ("tan", np.pi / 4, 1),
        ("tanh", np.log(3) / 2, 0.5),
    ],
)
def test_unary(name, x, expected):
    np.testing.assert_allclose(mil(name, np.float32(x)), expected, rtol=1e-6)


def test_cast():
    x = np.array([-1.7, 0, 2.9], np.float32)
    assert mil("cast", x, "int32").tolist() == [-1, 0, 2]
    assert mil("cast", x, "bool").tolist() == [True, False, True]
    assert mil("cast", x, "fp16").dtype == np.float32


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"begin": ints(0, 1), "end": ints(2, 3)}, "x[0:2, 1:3]"),
        ({"begin": ints(-2, 0), "end": ints(9, -1)}, "x[-2:9, 0:-1]"),
        ({"begin": ints(3, 3), "end": ints(0, 0), "stride": ints(-1, -2)}, "x[3:0:-1, 3:0:-2]"),
        (
            {
                "begin": ints(9, 9),
                "end": ints(0, 0),
                "stride": ints(-1, 1),
                "begin_mask": [True, True],
                "end_mask": [True, True],
            },
            "x[::-1, :]",
        ),
        (
            {
                "begin": ints(1, 2),
                "end": ints(0, 0),
                "squeeze_mask": [True, False],
                "end_mask": [False, True],
            },
            "x[1, 2:]",
        ),
        ({"begin": ints(-1, 2), "end": ints(0, 0), "squeeze_mask": [True, True]}, "x[-1, 2]"),
    ],
)
def test_slice_by_index(options, expected):
    x = np.arange(20).reshape(4, 5)
    masks = {key: np.array(value) for key, value in options.items()}
    np.testing.assert_array_equal(mil("slice_by_index", x, **masks), eval(expected))  # noqa: S307


def test_slice_by_size_and_update():
    x = np.arange(20).reshape(4, 5)
    np.testing.assert_array_equal(mil("slice_by_size", x, ints(1, -2), ints(2, -1)), x[1:3, -2:])
    updated = mil("slice_update", x, np.zeros((2, 5), int), ints(1, 0), ints(3, 5))
    assert updated[1:3].sum() == 0
    assert x[1:3].sum() > 0


def test_shapes():
    x = np.arange(24).reshape(2, 3, 4)
    assert mil("reshape", x, ints(0, -1, 2)).shape == (2, 6, 2)
    assert mil("reshape", x, ints(-1)).shape == (24,)
    assert mil("transpose", x, ints(2, 0, 1)).tolist() == x.transpose(2, 0, 1).tolist()
    assert mil("expand_dims", x, ints(0, -1)).shape == (1, 2, 3, 4, 1)
    assert mil("squeeze", x[:1, :, :1], ints(0)).shape == (3, 1)
    assert mil("squeeze", x[:1, :, :1]).shape == (3,)
    assert mil("flatten2d", x, ints(2)[0]).shape == (6, 4)
    assert mil("flatten2d", x, ints(-2)[0]).shape == (2, 12)
    assert mil("shape", x).tolist() == [2, 3, 4]
    assert mil("reverse", x, ints(1)).tolist() == x[:, ::-1].tolist()
    assert mil("tile", ints(1, 2), ints(3)).tolist() == [1, 2] * 3


def test_joining_and_splitting():
    x, y = np.arange(6).reshape(2, 3), -np.arange(6).reshape(2, 3)
    assert mil("concat", (x, y), ints(1)[0]).tolist() == np.concatenate([x, y], 1).tolist()
    assert mil("concat", (x, y), ints(-1)[0], True).tolist() == [[0, 0, 1, -1, 2, -2], [3, -3, 4, -4, 5, -5]]
    assert mil("concat", (np.int32(3), np.int32(4)), ints(0)[0]).tolist() == [3, 4]
    assert mil("stack", (x, y), ints(1)[0]).shape == (2, 2, 3)
    assert [part.shape for part in mil("split", x, 1, split_sizes=ints(1, 2))] == [(2, 1), (2, 2)]
    assert [part.shape for part in mil("split", x, 1, num_splits=ints(3)[0])] == [(2, 1)] * 3
    with pytest.raises(ValueError, match="sum to 3"):
        mil("split", x, 1, split_sizes=ints(1, 1))
    with pytest.raises(ValueError, match="got neither"):
        mil("split", x, 1)
    assert [part.shape for part in mil("split", x[:, :0], 1, num_splits=ints(3)[0])] == [(2, 0)] * 3
    for count in (2**30, 0, -1, 5):
        with pytest.raises(ValueError, match=r"parts|equal division"):
            mil("split", x[:, :0] if count > 5 else x, 1, num_splits=ints(count)[0])


def test_groups_of_no_channels_are_bounded():
    nothing, kernels = np.zeros((1, 0, 4), np.float32), np.zeros((0, 0, 3), np.float32)
    assert mil("conv_transpose", nothing, kernels, groups=ints(3)[0]).shape == (1, 0, 6)
    for name in ("conv", "conv_transpose"):
        with pytest.raises(ValueError, match="as many parts as 0 elements can be in, got 1073741824"):
            mil(name, nothing, kernels, groups=ints(2**30)[0])


def test_steps_of_recurrent_layers_are_bounded():
    one, weight = np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32)
    with pytest.raises(ValueError, match="more than 131072 iterations"):
        mil("rnn", np.zeros((2**17 + 1, 1, 1), np.float32), one, weight, weight)


def test_finding_and_filling():
    assert mil("non_zero", np.array([[0, 5], [7, 0]])).tolist() == [[0, 1], [1, 0]]
    assert mil("non_zero", np.zeros((2, 2))).shape == (0, 2)
    assert mil("select", np.array([True, False]), A[0, :2], B[:2]).tolist() == [1.5, -3]
    assert mil("fill", ints(2, 1), np.float32(3)).tolist() == [[3], [3]]
    assert mil("fill_like", A, np.float32(1)).shape == A.shape
    assert mil("range_1d", ints(1)[0], ints(8)[0], ints(3)[0]).tolist() == [1, 4, 7]


def test_cumulative_sums():
    x = np.float32([1, 2, 3])
    assert mil("cumsum", x, exclusive=True).tolist() == [0, 1, 3]
    assert mil("cumsum", x, reverse=True).tolist() == [6, 5, 3]
    assert mil("reduce_log_sum", x).item() == pytest.approx(np.log(6))


@pytest.mark.parametrize(
    ("mode", "points"),
    [
        ("DEFAULT", [0, 0.4, 0.8, 1, 1]),
        ("STRICT_ALIGN_CORNERS", [0, 0.25, 0.5, 0.75, 1]),
        ("ALIGN_CORNERS", [0, 0.25, 0.5, 0.75, 1]),
        ("OFFSET_CORNERS", [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("UNALIGN_CORNERS", [0, 0.1, 0.5, 0.9, 1]),
    ],
)
def test_sampling_points_are_those_that_coremltools_documents(mode, points):
    x = np.float32([[[0, 1]]])
    np.testing.assert_allclose(mil("resize_bilinear", x, 1, 5, mode)[0, 0], points, atol=1e-6)
    if mode == "ALIGN_CORNERS":
        assert mil("resize_bilinear", x, 1, 1, mode).item() == 0.5


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_unpacking_is_least_significant_bit_first(bits):
    values = np.random.default_rng(bits).integers(0, 2**bits, 37)
    number = sum(int(value) << bits * index for index, value in enumerate(values))
    packed = np.frombuffer(number.to_bytes(-(-37 * bits // 8), "little"), np.uint8)
    assert unpack(packed, bits, 37).tolist() == values.tolist()


def test_ios16_compression():
    data = np.array([[10, 20], [30, 40]], np.uint8)
    got = mil("constexpr_affine_dequantize", data, np.uint8([10, 20]), np.float32([0.5, 2]), ints(0)[0])
    assert got.tolist() == [[0, 5], [20, 40]]
    assert mil("constexpr_affine_dequantize", data, np.uint8(10), np.float32(1), ints(0)[0]).tolist() == [
        [0, 10],
        [20, 30],
    ]
    lut = np.float32([10, 11, 12, 13])
    got = mil("constexpr_lut_to_dense", np.uint8([0b01101100, 0b11]), lut, np.uint32([5]))
    assert got.tolist() == [10, 13, 12, 11, 13]
    got = mil("constexpr_sparse_to_dense", np.float32([7, 8]), np.uint8([0b01100]), np.uint32([5]))
    assert got.tolist() == [0, 0, 7, 8, 0]


def test_ios18_compression():
    data = np.arange(8, dtype=np.int8).reshape(2, 4)
    scale, offset = np.float32([[1, 10], [100, 1000]]), np.int8([[0, 1], [2, 3]])
    got = mil("constexpr_blockwise_shift_scale", data, scale, offset)
    assert got.tolist() == [[0, 1, 10, 20], [200, 300, 3000, 4000]]
    lut = np.float32([[[[1], [2]]], [[[3], [4]]]])  # a table per row
    got = mil("constexpr_lut_to_dense", np.uint8([[0, 1], [1, 0]]), lut)
    assert got.tolist() == [[1, 2], [4, 3]]
    vectors = np.float32([[[[1, 2], [3, 4]]]])
    got = mil("constexpr_lut_to_dense", np.uint8([[0, 1]]), vectors, vector_axis=ints(0)[0])
    assert got.tolist() == [[1, 3], [2, 4]]
    mask, values = mil("constexpr_lut_to_sparse", np.uint8([[1, 0], [0, 1]]), np.uint8([1, 0]), lut)
    assert mil("constexpr_sparse_to_dense", values, mask).tolist() == [[2, 0], [0, 3]]
    mask, values = mil(
        "constexpr_sparse_blockwise_shift_scale", mask, np.int8([5, 6]), np.float32([[2], [3]])
    )
    assert mil("constexpr_sparse_to_dense", values, mask).tolist() == [[10, 0], [0, 18]]


def test_a_second_implementation_is_refused():
    with pytest.raises(ValueError, match="one implementation of 'add'"):
        op("add")(lambda x: x)


def test_parameters_that_are_ignored_or_limited_are_spelt_right():
    for name, entry in OPS.items():
        parameters = inspect.signature(entry.function).parameters
        assert not entry.ignored & parameters.keys(), name
        assert entry.choices.keys() <= parameters.keys() | entry.ignored, name


def test_places_in_nothing_are_bounded_too():
    """A tensor without elements, a thousand million times as wide: the places alone would take gigabytes."""
    from sd_mil.engines.reference.ops.resizing import upsample_nearest_neighbor

    with pytest.raises(ValueError, match="more than 1073741824 elements"):
        upsample_nearest_neighbor(np.zeros((0, 3, 5, 1), np.float32), 2.0, 1e9)

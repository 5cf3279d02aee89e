"""Sampling, suppression, quantisation and rearranging, against torch where it has them."""

import itertools

import numpy as np
import pytest
from sd_mil.engines.reference.ops import OPS

RNG = np.random.default_rng(5)


def mil(name, *args, **kwargs):
    return OPS[name].function(*args, **kwargs)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["constant", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
def test_resample_is_grid_sample(mode, padding, align):
    torch = pytest.importorskip("torch")
    x, points = normal(2, 3, 5, 7), RNG.uniform(-1.6, 1.6, (2, 4, 6, 2)).astype(np.float32)
    torch_padding = "zeros" if padding == "constant" else padding
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(x), torch.from_numpy(points), mode, torch_padding, align_corners=align
    )
    for coordinates, kind in (
        (points, "normalized_minus_one_to_one"),
        ((points + 1) / 2, "normalized_zero_to_one"),
    ):
        got = mil("resample", x, coordinates, mode, padding, np.float32(0), kind, align)
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_resample_of_pixels_outside_and_symmetric():
    """The examples of coremltools' documentation: |1, 2, 3| between its paddings."""
    x = np.float32([[[[1, 2, 3]]]])
    places = np.stack([np.arange(-3, 6), np.zeros(9)], axis=-1).astype(np.float32)[None, None]
    for padding, expected in (
        ("constant", [9, 9, 9, 1, 2, 3, 9, 9, 9]),
        ("border", [1, 1, 1, 1, 2, 3, 3, 3, 3]),
        ("symmetric", [3, 2, 1, 1, 2, 3, 3, 2, 1]),
    ):
        got = mil("resample", x, places, "bilinear", padding, np.float32(9), "unnormalized", False)
        assert got.ravel().tolist() == expected
    reflected = mil(
        "resample", x, places[:, :, 1:], "nearest", "reflection", np.float32(9), "unnormalized", False
    )
    assert reflected.ravel().tolist() == [3, 2, 1, 2, 3, 2, 1, 2]


def test_affine_is_affine_grid():
    torch = pytest.importorskip("torch")
    x, maps = normal(2, 3, 5, 7), normal(2, 6)
    grid = torch.nn.functional.affine_grid(
        torch.from_numpy(maps.reshape(2, 2, 3)), (2, 3, 4, 6), align_corners=True
    )
    expected = torch.nn.functional.grid_sample(torch.from_numpy(x), grid, align_corners=True)
    options = ("bilinear", "constant", np.float32(0), "normalized_minus_one_to_one", True)
    np.testing.assert_allclose(mil("affine", x, maps, 4, 6, *options), expected, atol=1e-4)


IMAGE = np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("box", "size", "options", "expected"),
    [
        ([1, 1, 2, 2], 2, {}, [6, 7, 10, 11]),
        ([1, 1, 2, 2], 1, {}, [8.5]),
        ([2, 2, 1, 1], 2, {}, [11, 10, 7, 6]),
        ([0, 0, 1 / 3, 1 / 3], 2, {"normalized_coordinates": True}, [1, 2, 5, 6]),
        ([0.1, 0.3, 1.3, 1], 2, {"normalized_coordinates": True, "pad_value": 9}, [3.1, 5.2, 9, 9]),
        ([0.5, 1.8, 1, 0.3], 2, {"normalized_coordinates": True, "pad_value": 9}, [9, 7.9, 9, 13.9]),
        ([1.5, 1.5, 1, 1], 2, {"box_coordinate_mode": "CENTER_SIZE_HEIGHT_FIRST"}, [6, 7, 10, 11]),
        ([1, 0, 2, 3], 2, {"box_coordinate_mode": "CORNERS_WIDTH_FIRST"}, [2, 3, 14, 15]),
        ([1, 1, 2, 2], 2, {"spatial_scale": 0.5}, [3.5, 4, 5.5, 6]),
        ([0, 0, 3, 3], 2, {"sampling_mode": "DEFAULT"}, [1, 3, 9, 11]),
        ([0, 0, 3, 3], 2, {"sampling_mode": "UNALIGN_CORNERS"}, [3.5, 5.5, 11.5, 13.5]),
        ([0, 0, 3, 3], 3, {"sampling_mode": "OFFSET_CORNERS"}, None),
    ],
)
def test_crop_resize(box, size, options, expected):
    """The expected numbers of coremltools' tests, and what its sampling grids mean for whole images."""
    given = {"sampling_mode": "ALIGN_CORNERS", **options}
    target = {"target_height": size, "target_width": size}
    boxes = np.float32([box])
    got = mil("crop_resize", IMAGE, boxes=boxes, **target, **given)
    assert got.shape == (1, 1, size, size)
    if expected is None:
        expected = mil("resize_bilinear", IMAGE, size, size, given["sampling_mode"]).ravel()
    np.testing.assert_allclose(got.ravel(), expected, rtol=1e-4)
    roi = mil("crop_resize", IMAGE, roi=boxes.reshape(1, 1, 4, 1, 1), **target, **given)
    assert roi.shape == (1, 1, 1, size, size)
    indexed = np.concatenate([[[0]], boxes], axis=1).astype(np.float32).reshape(1, 1, 5, 1, 1)
    np.testing.assert_array_equal(roi, mil("crop_resize", IMAGE, roi=indexed, **target, **given))


def test_crop():
    assert mil("crop", IMAGE, np.int32([1, 0]), np.int32([0, 2])).ravel().tolist() == [5, 6, 9, 10, 13, 14]


@pytest.mark.parametrize(
    ("sizes", "mode", "expected"),
    [
        ([3], "NEAREST_NEIGHBOR", [0, 1, 1]),
        ([5], "LINEAR", [0, 0.4, 0.8, 1, 1]),
        ([0], "LINEAR", [0, 1]),
    ],
)
def test_resize_as_coremltools_expects(sizes, mode, expected):
    x = np.float32([[0, 1]])
    got = mil("resize", x, np.int32([7, *sizes]), np.uint32(1), mode)
    np.testing.assert_allclose(got, [expected], atol=1e-6)


def test_resize_of_three_axes_is_torchs():
    torch = pytest.importorskip("torch")
    x, sizes = normal(1, 2, 3, 4, 5), (5, 7, 4)
    for align, mode in ((True, "STRICT_ALIGN_CORNERS"), (False, "UNALIGN_CORNERS")):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(x), sizes, mode="trilinear", align_corners=align
        )
        got = mil("resize", x, np.int32(sizes), np.uint32(3), sampling_mode=mode)
        np.testing.assert_allclose(got, expected, atol=1e-5)


def overlap(a, b):
    low, high = (np.array([one[:2] + sign * one[2:] / 2 for one in (a, b)]) for sign in (-1, 1))
    shared = np.clip(high.min(axis=0) - low.max(axis=0), 0, None).prod()
    return shared / (a[2:].prod() + b[2:].prod() - shared)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_suppression(per_class, threshold):
    """No two kept boxes overlap, and everything that is dropped overlaps a better one, or is too weak."""
    boxes = np.concatenate([RNG.uniform(0, 10, (2, 30, 2)), RNG.uniform(1, 5, (2, 30, 2))], axis=2)
    boxes, scores = boxes.astype(np.float32), RNG.random((2, 30, 3)).astype(np.float32)
    options = {"iou_threshold": np.float32(0.3), "max_boxes": 30, "per_class_suppression": per_class}
    if threshold is None:
        found = mil("non_maximum_suppression", boxes.swapaxes(1, 2), scores.swapaxes(1, 2), **options)
        assert [one.shape for one in found] == [(2, 4, 30), (2, 3, 30), (2, 30)]
        kept_boxes, indices = found[0].swapaxes(1, 2), found[2]
    else:
        found = mil(
            "non_maximum_suppression", boxes, scores, score_threshold=np.float32(threshold), **options
        )
        kept_boxes, indices = found[0], found[2]
        assert found[3].tolist() == [(one >= 0).sum() for one in indices]
    for image in range(2):
        best, label = scores[image].max(axis=1), scores[image].argmax(axis=1)
        kept = indices[image][indices[image] >= 0].tolist()
        np.testing.assert_array_equal(kept_boxes[image, : len(kept)], boxes[image][kept])
        assert not kept_boxes[image, len(kept) :].any()
        assert best[kept].tolist() == sorted(best[kept], reverse=True)

        def clash(a, b, image=image, label=label):
            rivals = not per_class or label[a] == label[b]
            return rivals and overlap(boxes[image, a], boxes[image, b]) > 0.3

        assert not any(clash(a, b) for a, b in itertools.combinations(kept, 2))
        for one in set(range(30)) - set(kept):
            weak = threshold is not None and best[one] < threshold
            assert weak or any(clash(one, other) and best[other] > best[one] for other in kept)


def test_suppression_stops_when_there_is_no_more_room():
    boxes = np.float32([[[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]])
    scores = np.float32([[[-3.5], [9.4], [2.3], [0.7]]])
    found = mil("non_maximum_suppression", boxes, scores, np.float32(0.2), 2, np.float32(0.4), True)
    assert found[2].tolist() == [[1, 2]]
    assert found[3].tolist() == [2]


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("axis", [None, 1])
def test_quantize_and_dequantize_are_torchs(dtype, axis):
    torch = pytest.importorskip("torch")
    x, limits = normal(3, 4, 5) * 4, np.iinfo(dtype)
    scale = np.float32([0.05, 0.1, 0.02, 0.2]) if axis else np.float32(0.05)
    zero = np.array([3, 0, 1, 7], dtype) if axis else np.array(3, dtype)
    given, bounds = torch.from_numpy(x), (limits.min, limits.max)
    if axis:
        scales, zeros = torch.from_numpy(scale), torch.from_numpy(zero.astype(np.int32))
        expected = torch.fake_quantize_per_channel_affine(given, scales, zeros, 1, *bounds)
    else:
        expected = torch.fake_quantize_per_tensor_affine(given, float(scale), int(zero), *bounds)
    where = None if axis is None else np.int32(axis)
    integers = mil("quantize", x, scale, dtype, zero, where)
    assert integers.dtype == dtype
    np.testing.assert_allclose(mil("dequantize", integers, scale, zero, where), expected, atol=1e-5)


def test_conv_quantized():
    x, weight = normal(1, 2, 6), RNG.integers(0, 255, (3, 2, 3)).astype(np.uint8)
    scale, shift = np.float32([0.1, 0.2, 0.3]), np.float32([-1, 0, 1])
    real = weight * scale[:, None, None] + shift[:, None, None]
    got = mil("conv_quantized", x, weight, scale, shift, strides=np.int32([2]))
    np.testing.assert_allclose(got, mil("conv", x, real, strides=np.int32([2])), rtol=1e-5)


def test_space_and_batch():
    x, block, around = normal(2, 3, 4, 7), np.int32([2, 3]), np.int32([[1, 1], [0, 2]])
    batch = mil("space_to_batch", x, block, around)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 2)])
    assert batch.shape == (12, 3, 3, 3)
    for down, across in itertools.product(range(2), range(3)):
        place = (down * 3 + across) * 2
        np.testing.assert_array_equal(batch[place : place + 2], padded[:, :, down::2, across::3])
    np.testing.assert_array_equal(mil("batch_to_space", batch, block, around), x)


def test_sliding_windows_and_reversed_sequences():
    torch = pytest.importorskip("torch")
    x = normal(2, 9, 3)
    windows = mil("sliding_windows", x, np.int32(1), np.int32(4), np.int32(2))
    np.testing.assert_array_equal(windows, torch.from_numpy(x).unfold(1, 4, 2).transpose(2, 3))
    reversed_ = mil("reverse_sequence", x, np.int32([4, 9]), 1, 0)
    np.testing.assert_array_equal(reversed_[0], np.concatenate([x[0, 3::-1], x[0, 4:]]))
    np.testing.assert_array_equal(reversed_[1], x[1, ::-1])


def test_reshape_like_and_zeros_in_shapes():
    x, (a, b) = normal(6, 20), (np.zeros((2, 3, 4)), np.zeros((1, 5, 4)))
    like = mil("reshape_like", x, (a, b), (0, 1), (2, 0), (False, True))
    assert like.shape == (2, 3, 5, 4)
    assert mil("reshape", normal(2, 50), np.int32([1, 0, -1, 0])).shape == (1, 1, 2, 50)
    assert mil("reshape", normal(2, 3, 4), np.int32([6, 0])).shape == (6, 4)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_local_response_norm(size):
    torch = pytest.importorskip("torch")
    x = normal(2, 7, 5, 3)
    expected = torch.nn.functional.local_response_norm(torch.from_numpy(x), size, 0.5, 0.6, 2)
    got = mil("local_response_norm", x, np.int32(size), np.float32(0.5), np.float32(0.6), np.float32(2))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("padding", [0, 1])
def test_rounding_pooled_sizes_up(padding):
    torch = pytest.importorskip("torch")
    x, pool = normal(1, 2, 8, 9), torch.nn.functional
    pad = {"pad_type": "custom", "pad": np.int32([padding] * 4)} if padding else {}
    options = {"strides": np.int32([2, 2]), "ceil_mode": True, **pad}
    size, given = np.int32([3, 2]), (torch.from_numpy(x), (3, 2), 2, padding)
    np.testing.assert_allclose(mil("max_pool", x, size, **options), pool.max_pool2d(*given, ceil_mode=True))
    for counted in (True, False):
        expected = pool.avg_pool2d(*given, ceil_mode=True, count_include_pad=counted)
        got = mil("avg_pool", x, size, exclude_padding_from_average=not counted, **options)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    expected = pool.lp_pool2d(torch.from_numpy(x), 2, (3, 2), 2)
    np.testing.assert_allclose(mil("l2_pool", x, size, np.int32([2, 2])), expected, rtol=1e-5)


def test_random_numbers_have_their_distributions_and_seeds():
    shape = np.int32([100, 200])
    uniform = mil("random_uniform", shape, np.float32(-1), np.float32(3), 4)
    assert (uniform.shape, uniform.dtype) == ((100, 200), np.float32)
    assert -1 <= uniform.min() < -0.99
    assert 2.99 < uniform.max() < 3
    normal_ = mil("random_normal", shape, np.float32(2), np.float32(0.5), 4)
    assert (abs(normal_.mean() - 2), abs(normal_.std() - 0.5)) < (0.02, 0.02)
    assert mil("random_bernoulli", shape, np.float32(0.3), 4).mean() == pytest.approx(0.3, abs=0.02)
    logits = np.log(np.float32([[0.1, 0.2, 0.7], [1, 1e-9, 1e-9]]))
    drawn = mil("random_categorical", logits, size=20000, seed=4)
    counts = np.bincount(drawn[0].astype(int), minlength=3) / 20000
    np.testing.assert_allclose(counts, [0.1, 0.2, 0.7], atol=0.02)
    assert not drawn[1].any()
    for seed in (-1, 0):
        np.testing.assert_array_equal(mil("random_normal", shape, seed=seed), mil("random_normal", shape))
    assert (mil("random_normal", shape, seed=1) != mil("random_normal", shape)).any()


def test_classify():
    label, probabilities = mil("classify", np.float32([0.25, 0.75]), ("cat", "dog"))
    assert (label, probabilities) == ("dog", {"cat": 0.25, "dog": 0.75})
    number, _ = mil("classify", np.float32([[0.9, 0.1]]), np.array([5, 6]))
    assert number == 5
    with pytest.raises(ValueError, match="one for each label"):
        mil("classify", np.float32([1]), ("cat", "dog"))

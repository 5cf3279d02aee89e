"""Operations as coremltools defines them, on both engines: its types and, where it infers them, its values.

Where coremltools infers no value, torch or numpy says what is right; where neither has the operation, the
engines are held to each other, and the reference engine's own tests say the rest.
"""

import numpy as np
import pytest

pytest.importorskip("coremltools")
pytest.importorskip("openvino")
pytest.importorskip("torch")

import torch
from coremltools_oracle import declared, define, run_both

F = torch.nn.functional
RNG = np.random.default_rng(5)
SPECIAL = np.float32([np.inf, -np.inf, 0.0, -0.0, 1.5, -2.5, 0.5, -0.5, 1e-30, 1e30, 3.7, -3.7])
WITH_NAN = np.append(SPECIAL, np.float32(np.nan))


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int32)


def of(function):
    """A torch function as an oracle on numpy arrays."""
    return lambda *arrays: function(*map(torch.from_numpy, arrays)).numpy()


def double(function):
    """A numpy function in double precision."""
    return lambda *arrays: np.asarray(function(*(one.astype(np.float64) for one in arrays))).astype(
        np.float32
    )


X = normal(2, 3, 4, 5)
PIXELS = normal(1, 2, 5, 7)
BIG = ints(7, -7, 7, -7, 6, -6, 0, 2**31 - 1, 1 - 2**31, 2**30 + 1, 2**24 + 1, -(2**24) - 1, 33554435)
DIVISORS = ints(2, 2, -2, -2, 3, 3, 5, 3, 3, 7, 1, 1, 5)
UPDATES = abs(normal(3, 3)) + np.float32(0.5)

#: Operation, first opset it is tried in, data, parameters, and the expected value where coremltools has none.
CASES = [
    *((kind, 15, {"x": normal(2, 1, 3)}, {}, None) for kind in ("abs", "atan", "ceil", "cos", "cosh", "erf")),
    *((kind, 15, {"x": normal(2, 1, 3)}, {}, None) for kind in ("exp", "exp2", "floor", "identity", "relu")),
    *(
        (kind, 15, {"x": normal(2, 1, 3)}, {}, None)
        for kind in ("relu6", "sigmoid", "sign", "sin", "sinh", "tan")
    ),
    *((kind, 15, {"x": normal(2, 1, 3)}, {}, None) for kind in ("softplus", "softsign", "square", "tanh")),
    *((kind, 15, {"x": np.tanh(normal(7))}, {}, None) for kind in ("acos", "asin", "atanh")),
    *((kind, 15, {"x": abs(normal(7))}, {}, None) for kind in ("inverse", "log", "rsqrt", "sqrt")),
    *(
        (kind, 17, {"x": abs(normal(7))}, {"epsilon": np.float32(0.1)}, None)
        for kind in ("inverse", "log", "rsqrt")
    ),
    ("silu", 15, {"x": X}, {}, of(F.silu)),
    ("exp", 15, {"x": WITH_NAN}, {}, double(np.exp)),
    ("round", 15, {"x": np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])}, {}, lambda x: np.rint(x)),
    ("exp2", 15, {"x": ints(0, 3, 20)}, {}, lambda x: 2**x),
    ("logical_not", 15, {"x": np.array([True, False])}, {}, None),
    *(
        (kind, 15, {"x": np.repeat(WITH_NAN, 13), "y": np.tile(WITH_NAN, 13)}, {}, getattr(np, kind))
        for kind in (
            "maximum",
            "minimum",
            "greater",
            "greater_equal",
            "less",
            "less_equal",
            "equal",
            "not_equal",
        )
    ),
    *(
        (kind, 15, {"x": normal(2, 1, 3), "y": normal(4, 1)}, {}, None)
        for kind in ("add", "sub", "mul", "real_div", "floor_div", "mod", "maximum", "equal", "less")
    ),
    *(
        (kind, 15, {"x": BIG, "y": DIVISORS}, {}, None)
        for kind in ("add", "sub", "mul", "floor_div", "mod", "maximum")
    ),
    *((kind, 15, {"x": BIG, "y": DIVISORS}, {}, None) for kind in ("greater", "equal", "less_equal")),
    ("pow", 15, {"x": ints(2, 3, -2, 0, 5), "y": ints(3, 4, 3, 0, 1)}, {}, None),
    ("pow", 15, {"x": np.float32([-2, -8, 4, 0, 0]), "y": np.float32([2, 3, 0.5, 0, 2])}, {}, None),
    *(
        (kind, 15, {"x": np.array([[True], [False]]), "y": np.array([True, False])}, {}, None)
        for kind in ("logical_and", "logical_or", "logical_xor")
    ),
    *(
        ("cast", 17, {"x": np.float32([0.0, 1.9, 2.5, 100.7])}, {"dtype": dtype}, None)
        for dtype in ("fp32", "int32", "bool", "int16", "uint16", "int8", "uint8")
    ),
    ("cast", 17, {"x": np.float32([-1.9, -0.5, -100.7])}, {"dtype": "int32"}, lambda x: np.trunc(x)),
    *(
        ("cast", 17, {"x": ints(300, -1, 40000, 70000)}, {"dtype": dtype}, lambda x, d=dtype: x.astype(d))
        for dtype in ("int8", "uint8", "int16", "uint16")
    ),
    ("select", 15, {"cond": np.array([[True], [False]]), "a": normal(2, 3), "b": normal(2, 3)}, {}, None),
    ("clip", 15, {"x": SPECIAL}, {"alpha": np.float32(-0.7), "beta": np.float32(2)}, None),
    ("threshold", 15, {"x": SPECIAL}, {"alpha": np.float32(0.3)}, None),
    ("leaky_relu", 15, {"x": X}, {"alpha": np.float32(0.3)}, None),
    ("elu", 15, {"x": X}, {"alpha": np.float32(0.3)}, None),
    ("clamped_relu", 15, {"x": X}, {"alpha": np.float32(0.3), "beta": np.float32(0.6)}, None),
    ("thresholded_relu", 15, {"x": X}, {"alpha": np.float32(0.3)}, None),
    ("linear_activation", 15, {"x": X}, {"alpha": np.float32(0.3), "beta": np.float32(0.6)}, None),
    ("scaled_tanh", 15, {"x": X}, {"alpha": np.float32(0.3), "beta": np.float32(0.6)}, None),
    ("sigmoid_hard", 15, {"x": X}, {"alpha": np.float32(0.3), "beta": np.float32(0.6)}, None),
    ("prelu", 15, {"x": X}, {"alpha": np.float32([0.1, -0.2, 0.3])}, None),
    ("softplus_parametric", 15, {"x": X}, {"alpha": abs(normal(3)), "beta": abs(normal(3))}, None),
    *(("gelu", 15, {"x": X * 4}, {"mode": mode}, None) for mode in ("EXACT", "TANH_APPROXIMATION")),
    ("gelu", 15, {"x": X * 4}, {"mode": "SIGMOID_APPROXIMATION"}, None),
    *(
        ("softmax", 15, {"x": X}, {"axis": np.int32(axis)}, of(lambda x, a=axis: x.softmax(a)))
        for axis in (1, -1)
    ),
    ("softmax", 15, {"x": np.float32([[1000, -np.inf, 999]])}, {"axis": np.int32(-1)}, None),
    *(
        (kind, 15, {"x": abs(normal(2, 3, 4))}, {"axes": axes, "keep_dims": np.bool_(keep)}, None)
        for kind in (
            "l1_norm",
            "l2_norm",
            "log_sum",
            "log_sum_exp",
            "max",
            "mean",
            "min",
            "prod",
            "sum",
            "sum_square",
        )
        for kind in (f"reduce_{kind}",)
        for axes, keep in ((ints(0, -1), False), (ints(1), True), (None, False))
    ),
    (
        "reduce_log_sum_exp",
        15,
        {"x": np.float32([[np.inf, 1], [-np.inf, -np.inf]])},
        {"axes": ints(1)},
        of(lambda x: x.logsumexp(1)),
    ),
    ("reduce_max", 15, {"x": np.float32([[-np.inf, -np.inf], [1, np.inf]])}, {"axes": ints(1)}, None),
    ("reduce_max", 15, {"x": ints(2**24 + 1, 2**24)}, {"axes": ints(0)}, None),
    *(
        (
            kind,
            17,
            {"x": RNG.integers(0, 3, (3, 4, 5)).astype(np.float32)},
            {"axis": np.int32(axis), "keep_dims": np.bool_(axis), "output_dtype": dtype},
            None,
        )
        for kind in ("reduce_argmax", "reduce_argmin")
        for axis, dtype in ((-1, "int32"), (0, "uint16"))
    ),
    ("reduce_argmax", 15, {"x": np.full((2, 3), -np.inf, np.float32)}, {"axis": np.int32(1)}, None),
    ("cumsum", 15, {"x": X}, {"axis": np.int32(1)}, None),
    ("cumsum", 15, {"x": X}, {"axis": np.int32(1), "reverse": np.bool_(True)}, None),
    *(
        (kind, 15, {"x": normal(3, 5)}, {"axis": np.int32(0), "ascending": np.bool_(up)}, None)
        for kind in ("argsort", "topk")
        for up in (True, False)
    ),
    ("topk", 17, {"x": normal(3, 5)}, {"k": np.int32(2), "output_indices_dtype": "uint16"}, None),
    ("reshape", 15, {"x": X}, {"shape": ints(0, -1, 2, 10)}, None),
    ("reshape", 15, {"x": normal(1)}, {"shape": np.zeros(0, np.int32)}, None),
    (
        "reshape_like",
        16,
        {"x": normal(3, 8), "ref_tensors": (normal(4, 2), normal(9, 3))},
        {
            "begins": (np.int32(0), np.int32(1)),
            "ends": (np.int32(2), np.int32(2)),
            "end_masks": (False, False),
        },
        lambda x, *_: x.reshape(4, 2, 3),
    ),
    ("transpose", 15, {"x": X}, {"perm": ints(-1, 0, 2, 1)}, None),
    ("expand_dims", 15, {"x": normal(2, 3)}, {"axes": ints(-1, 0)}, None),
    ("squeeze", 15, {"x": normal(1, 3, 1)}, {"axes": ints(-1)}, None),
    ("flatten2d", 15, {"x": X}, {"axis": np.int32(-1)}, None),
    ("shape", 15, {"x": X}, {}, None),
    ("depth_to_space", 15, {"x": normal(1, 8, 2, 3)}, {"block_size": np.int32(2)}, None),
    ("space_to_depth", 15, {"x": normal(1, 2, 4, 6)}, {"block_size": np.int32(2)}, None),
    (
        "pixel_shuffle",
        15,
        {"x": normal(1, 8, 2, 3)},
        {"upscale_factor": np.int32(2)},
        of(lambda x: F.pixel_shuffle(x, 2)),
    ),
    (
        "pixel_unshuffle",
        16,
        {"x": normal(1, 2, 4, 6)},
        {"downscale_factor": np.uint32(2)},
        of(lambda x: F.pixel_unshuffle(x, 2)),
    ),
    (
        "space_to_batch",
        15,
        {"x": normal(2, 3, 4, 5)},
        {"block_shape": ints(2, 3), "paddings": np.int32([[1, 1], [0, 1]])},
        None,
    ),
    (
        "batch_to_space",
        15,
        {"x": normal(12, 3, 4, 5)},
        {"block_shape": ints(2, 3), "crops": np.int32([[1, 1], [0, 1]])},
        None,
    ),
    ("concat", 15, {"values": (normal(2, 3), normal(2, 1))}, {"axis": np.int32(-1)}, None),
    (
        "concat",
        15,
        {"values": (ints(1, 2), ints(3, 4))},
        {"axis": np.int32(0), "interleave": np.bool_(True)},
        lambda *_: [1, 3, 2, 4],
    ),
    ("stack", 15, {"values": (normal(2, 3), normal(2, 3))}, {"axis": np.int32(-1)}, None),
    ("split", 15, {"x": normal(2, 6)}, {"axis": np.int32(-1), "split_sizes": ints(1, 2, 3)}, None),
    ("tile", 15, {"x": normal(2, 3)}, {"reps": ints(2, 2)}, None),
    ("reverse", 15, {"x": X}, {"axes": ints(-1, 1)}, None),
    (
        "reverse_sequence",
        15,
        {"x": normal(4, 3, 2), "lengths": ints(1, 4, 2)},
        {"seq_axis": np.int32(0), "batch_axis": np.int32(1)},
        None,
    ),
    (
        "sliding_windows",
        15,
        {"x": normal(6, 7)},
        {"axis": np.int32(-1), "size": np.int32(3), "stride": np.int32(2)},
        of(lambda x: x.unfold(1, 3, 2)),
    ),
    *(
        ("pad", 15, {"x": normal(2, 3, 4)}, {"pad": ints(1, 0, 1, 2), "mode": mode}, None)
        for mode in ("constant", "reflect", "replicate")
    ),
    ("fill", 15, {"shape": ints(2, 3)}, {"value": np.float32(1.5)}, None),
    (
        "fill_like",
        16,
        {"ref_tensor": normal(2, 3)},
        {"value": np.float32(1.5)},
        lambda x: np.full_like(x, 1.5),
    ),
    (
        "range_1d",
        15,
        {"start": np.array(5, np.int32), "end": np.array(0, np.int32), "step": np.array(-2, np.int32)},
        {},
        lambda *_: [5, 3, 1],
    ),
    (
        "one_hot",
        15,
        {"indices": ints(-1, 2, 9)},
        {"one_hot_vector_size": np.int32(3)},
        lambda _: [[0, 0, 0], [0, 0, 1], [0, 0, 0]],
    ),
    *(
        ("band_part", 15, {"x": normal(3, 5)}, {"lower": np.int32(low), "upper": np.int32(up)}, None)
        for low, up in ((1, 0), (-1, 1), (0, -1))
    ),
    ("non_zero", 15, {"x": np.float32([[0, 1], [2, 0]])}, {}, None),
    (
        "slice_by_index",
        15,
        {"x": X},
        {
            "begin": ints(1, -1, 3, 0),
            "end": ints(2, 0, 0, 0),
            "stride": ints(1, -2, -1, 1),
            "end_mask": np.array([0, 0, 1, 1], bool),
            "squeeze_mask": np.array([1, 0, 0, 0], bool),
        },
        None,
    ),
    ("slice_by_index", 15, {"x": X}, {"begin": ints(-9, 2, 1, -3), "end": ints(9, 2, -1, -1)}, None),
    ("slice_by_size", 15, {"x": X}, {"begin": ints(1, 0, 2, 1), "size": ints(-1, 2, 1, -1)}, None),
    (
        "slice_update",
        18,
        {"x": normal(4, 5), "update": normal(2, 5)},
        {"begin": ints(1, 0), "end": ints(3, 5)},
        None,
    ),
    (
        "slice_update",
        18,
        {"x": normal(4, 5), "update": normal(2)},
        {
            "begin": ints(-1, 0),
            "end": ints(0, 4),
            "stride": ints(1, 2),
            "squeeze_mask": np.array([1, 0], bool),
        },
        None,
    ),
    *(
        ("gather", 17, {"x": normal(4, 5), "indices": np.array([1, 3], kind)}, {"axis": np.int32(1)}, None)
        for kind in (np.int32, np.int16, np.uint16, np.int8, np.uint8)
    ),
    (
        "gather",
        17,
        {"x": normal(2, 3, 5), "indices": ints(0, -1, 2, 2)[:, None].reshape(2, 2)},
        {"axis": np.int32(1), "batch_dims": np.int32(1), "validate_indices": np.bool_(False)},
        None,
    ),
    (
        "gather_along_axis",
        17,
        {"x": normal(3, 4), "indices": np.int32([[0, -1, 2, 1]])},
        {"axis": np.int32(0), "validate_indices": np.bool_(False)},
        None,
    ),
    (
        "gather_nd",
        17,
        {"x": normal(3, 4), "indices": np.int32([[0, -1], [2, 1]])},
        {"validate_indices": np.bool_(False)},
        None,
    ),
    *(
        (
            kind,
            17,
            {"data": normal(4, 3), "indices": indices, "updates": UPDATES[: len(indices)]},
            {"mode": mode, "validate_indices": np.bool_(False)}
            | ({} if kind == "scatter_nd" else {"axis": np.int32(0)}),
            None,
        )
        for kind, indices in (("scatter", ints(1, -1, 0)), ("scatter_nd", ints(1, -1, 0)[:, None]))
        for mode in ("update", "add", "sub", "mul", "div", "max", "min")
    ),
    (
        "scatter_along_axis",
        17,
        {"data": normal(4, 3), "indices": np.int32([[0, 1, 2], [3, -2, 1]]), "updates": UPDATES[:2]},
        {"axis": np.int32(0), "mode": "update", "validate_indices": np.bool_(False)},
        None,
    ),
    *(
        (
            "matmul",
            15,
            {"x": normal(2, 3, 4), "y": normal(*shape)},
            {"transpose_y": np.bool_(shape[-1] == 4)},
            None,
        )
        for shape in ((4, 5), (5, 4), (1, 4, 5))
    ),
    ("matmul", 15, {"x": np.int32([[4097, 4097]]), "y": np.int32([[4097], [1]])}, {}, None),
    ("linear", 15, {"x": normal(2, 3, 4)}, {"weight": normal(5, 4), "bias": normal(5)}, None),
    (
        "einsum",
        15,
        {"values": (normal(2, 1, 4, 5), normal(2, 5, 4, 6))},
        {"equation": "nchw,nwhu->nchu"},
        lambda x, y: np.einsum("nchw,nwhu->nchu", x, y),
    ),
    *(
        (
            "conv",
            16,
            {"x": normal(1, 4, 7, 6)},
            {
                "weight": normal(6, 2, 3, 3),
                "groups": np.int32(2),
                "pad_type": kind,
                "strides": ints(2, 2),
                "pad": ints(1, 0, 2, 1) if kind == "custom" else ints(0, 0, 0, 0),
            },
            None,
        )
        for kind in ("valid", "same", "same_lower", "custom")
    ),
    (
        "conv_transpose",
        15,
        {"x": normal(1, 4, 5, 5)},
        {"weight": normal(4, 3, 3, 3), "pad_type": "custom", "pad": ints(1, 1, 1, 1), "strides": ints(2, 2)},
        None,
    ),
    (
        "conv_transpose",
        15,
        {"x": normal(1, 4, 5, 5)},
        {
            "weight": normal(4, 3, 3, 3),
            "pad_type": "same",
            "strides": ints(2, 2),
            "output_shape": ints(1, 3, 9, 10),
        },
        None,
    ),
    *(
        (
            kind,
            15,
            {"x": PIXELS},
            {
                "kernel_sizes": ints(3, 3),
                "strides": ints(2, 2),
                "pad_type": "custom",
                "pad": ints(1, 1, 1, 1),
                "ceil_mode": np.bool_(ceil),
            },
            oracle,
        )
        for ceil in (False, True)
        for kind, oracle in (
            ("max_pool", of(lambda x, c=ceil: F.max_pool2d(x, 3, 2, 1, ceil_mode=c))),
            ("avg_pool", of(lambda x, c=ceil: F.avg_pool2d(x, 3, 2, 1, ceil_mode=c))),
        )
    ),
    (
        "l2_pool",
        15,
        {"x": PIXELS},
        {"kernel_sizes": ints(2, 2), "strides": ints(1, 1), "pad_type": "valid"},
        of(lambda x: F.lp_pool2d(x, 2, 2, 1)),
    ),
    ("layer_norm", 15, {"x": X}, {"axes": ints(2, 3), "gamma": normal(4, 5), "beta": normal(4, 5)}, None),
    ("batch_norm", 15, {"x": X}, {"mean": normal(3), "variance": abs(normal(3)), "beta": normal(3)}, None),
    ("instance_norm", 15, {"x": X}, {"gamma": normal(3), "beta": normal(3)}, None),
    ("l2_norm", 15, {"x": X}, {"epsilon": np.float32(1e-3)}, None),
    (
        "local_response_norm",
        15,
        {"x": X},
        {"size": np.int32(3), "alpha": np.float32(0.3), "beta": np.float32(0.5), "k": np.float32(2)},
        of(lambda x: F.local_response_norm(x, 3, 0.3, 0.5, 2)),
    ),
    *(
        (
            "resize_bilinear",
            15,
            {"x": PIXELS},
            {"target_size_height": np.int32(8), "target_size_width": np.int32(4), "sampling_mode": mode},
            None
            if align is None
            else of(lambda x, a=align: F.interpolate(x, (8, 4), mode="bilinear", align_corners=a)),
        )
        for mode, align in (
            ("UNALIGN_CORNERS", False),
            ("STRICT_ALIGN_CORNERS", True),
            ("ALIGN_CORNERS", True),
            ("DEFAULT", None),
            ("OFFSET_CORNERS", None),
        )
    ),
    *(
        (
            "resize",
            17,
            {"x": PIXELS},
            {
                "shape": ints(8, 0),
                "resized_dims": np.uint32(2),
                "interpolation_mode": mode,
                "sampling_mode": "UNALIGN_CORNERS",
            },
            None,
        )
        for mode in ("LINEAR", "NEAREST_NEIGHBOR")
    ),
    (
        "resize_nearest_neighbor",
        15,
        {"x": PIXELS},
        {"target_size_height": np.int32(8), "target_size_width": np.int32(4)},
        of(lambda x: F.interpolate(x, (8, 4), mode="nearest-exact")),
    ),
    (
        "upsample_nearest_neighbor",
        15,
        {"x": PIXELS},
        {"scale_factor_height": np.float32(1.5), "scale_factor_width": np.float32(2)},
        of(lambda x: F.interpolate(x, (7, 14), mode="nearest")),
    ),
    *(
        (
            "upsample_bilinear",
            16,
            {"x": PIXELS},
            {
                "scale_factor_height": np.int32(2),
                "scale_factor_width": np.int32(3),
                "align_corners": np.bool_(align),
                "half_pixel_centers": np.bool_(not align),
            },
            of(lambda x, a=align: F.interpolate(x, (10, 21), mode="bilinear", align_corners=a)),
        )
        for align in (True, False)
    ),
    (
        "upsample_bilinear",
        16,
        {"x": PIXELS},
        {
            "scale_factor_height": np.int32(2),
            "scale_factor_width": np.int32(3),
            "align_corners": np.bool_(False),
            "half_pixel_centers": np.bool_(False),
        },
        None,
    ),
    *(
        (
            "resample",
            16,
            {"x": normal(2, 3, 5, 6), "coordinates": normal(2, 3, 4, 2) * np.float32(1.2)},
            {
                "sampling_mode": "bilinear",
                "padding_mode": mode,
                "padding_value": np.float32(0),
                "coordinates_mode": "normalized_minus_one_to_one",
                "align_corners": np.bool_(align),
            },
            of(lambda x, c, m=theirs, a=align: F.grid_sample(x, c, padding_mode=m, align_corners=a)),
        )
        for mode, theirs in (("constant", "zeros"), ("border", "border"), ("reflection", "reflection"))
        for align in (True, False)
    ),
    (
        "resample",
        16,
        {"x": normal(1, 1, 5, 6), "coordinates": abs(normal(1, 3, 4, 2)) * 2},
        {
            "sampling_mode": "nearest",
            "padding_mode": "border",
            "padding_value": np.float32(0),
            "coordinates_mode": "unnormalized",
            "align_corners": np.bool_(False),
        },
        None,
    ),
    (
        "crop",
        15,
        {"x": PIXELS},
        {"crop_height": ints(1, 2), "crop_width": ints(0, 1)},
        lambda x: x[..., 1:-2, :-1],
    ),
    (
        "quantize",
        17,
        {"input": X * 60},
        {
            "scale": abs(normal(3)) + np.float32(0.1),
            "zero_point": np.int8([1, 2, 3]),
            "axis": np.int32(1),
            "output_dtype": "int8",
        },
        None,
    ),
    (
        "dequantize",
        17,
        {"input": RNG.integers(0, 255, (2, 3, 4)).astype(np.uint8)},
        {"scale": abs(normal(3)), "zero_point": np.uint8([1, 2, 3]), "axis": np.int32(-2)},
        None,
    ),
    (
        "rnn",
        15,
        {"x": normal(5, 2, 3), "initial_h": normal(2, 4)},
        {
            "weight_ih": normal(4, 3),
            "weight_hh": normal(4, 4),
            "direction": "reverse",
            "output_sequence": np.bool_(True),
            "activation": "relu",
        },
        None,
    ),
    *(
        (
            "gru",
            18,
            {"x": normal(5, 2, 3), "initial_h": normal(2, 4)},
            {
                "weight_ih": normal(12, 3),
                "weight_hh": normal(12, 4),
                "bias": normal(12),
                "input_bias": normal(12),
                "reset_after": np.bool_(after),
                "output_sequence": np.bool_(after),
            },
            None,
        )
        for after in (True, False)
    ),
    *(
        (
            "lstm",
            15,
            {"x": normal(5, 2, 3), "initial_h": normal(2, 4), "initial_c": normal(2, 4)},
            {
                "weight_ih": normal(16, 3),
                "weight_hh": normal(16, 4),
                "bias": normal(16),
                "direction": direction,
                "output_sequence": np.bool_(True),
            },
            None,
        )
        for direction in ("forward", "reverse")
    ),
    (
        "lstm",
        15,
        {"x": normal(5, 2, 3), "initial_h": normal(2, 8), "initial_c": normal(2, 8)},
        {
            "weight_ih": normal(16, 3),
            "weight_hh": normal(16, 4),
            "weight_ih_back": normal(16, 3),
            "weight_hh_back": normal(16, 4),
            "direction": "bidirectional",
            "output_sequence": np.bool_(True),
        },
        None,
    ),
    *(
        (
            "scaled_dot_product_attention",
            18,
            {"query": normal(2, 3, 4, 8), "key": normal(2, 3, 6, 8), "value": normal(2, 3, 6, 5)} | mask,
            {},
            of(lambda q, k, v, *m: F.scaled_dot_product_attention(q, k, v, *m)),
        )
        for mask in (
            {},
            {"attn_mask": normal(4, 6)},
            {"attn_mask": normal(2, 1, 4, 6) > -1},
            {"attn_mask": normal(2, 1, 1, 6)},
        )
    ),
]
#: What the portable engine leaves to numpy; here sizes are inputs, which OpenVINO would trust.
IN_NUMPY = {
    ("scatter", "div"),
    ("scatter_nd", "div"),
    ("avg_pool", True),
    ("fill", False),
    ("range_1d", False),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "opset", "data", "parameters", "oracle"),
    CASES,
    ids=[f"{i}-{one[0]}" for i, one in enumerate(CASES)],
)
def test_as_defined(kind, opset, data, parameters, oracle):
    flat = [one for value in data.values() for one in (value if isinstance(value, tuple) else (value,))]
    given = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in {**data, **parameters}.items()
    }
    outputs = define(kind, opset, given)
    slow, fast, left = run_both(kind, data, parameters, [declared(one) for one in outputs])
    expected = [one.val for one in outputs] if oracle is None else [oracle(*flat)]
    for ours, theirs, wanted in zip(slow, fast, expected, strict=True):
        wanted = ours if wanted is None else wanted
        for got in (ours, theirs):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
            assert got.shape == np.shape(wanted)
    choice = parameters.get("mode", bool(parameters.get("ceil_mode")))
    empty = any(0 in np.shape(one) for one in (*flat, *slow))
    assert bool(left) == ((kind, choice) in IN_NUMPY or empty)


def test_every_translated_operation_is_here():
    from sd_mil.engines.openvino.registry import TRANSLATORS

    assert {one[0] for one in CASES} == set(TRANSLATORS)

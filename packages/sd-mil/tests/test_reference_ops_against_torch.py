"""Operations with a counterpart in torch, at odd sizes and with the options that diffusion models use."""

import numpy as np
import pytest
from sd_mil.engines.reference.ops import OPS

torch = pytest.importorskip("torch")
F = torch.nn.functional

RNG = np.random.default_rng(7)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int32)


def mil(name, /, *args, **kwargs):
    return OPS[name].function(*args, **kwargs)


def close(got, expected, tolerance=2e-5):
    expected = expected.numpy()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


def t(array):
    return torch.from_numpy(np.ascontiguousarray(array))


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_conv_with_custom_padding(stride, dilation, groups):
    x, weight, bias = normal(2, 4, 9, 11), normal(8, 4 // groups, 3, 2), normal(8)
    got = mil(
        "conv",
        x,
        weight,
        bias,
        strides=ints(*stride),
        pad_type="custom",
        pad=ints(1, 2, 0, 3),
        dilations=ints(*dilation),
        groups=ints(groups)[0],
    )
    padded = F.pad(t(x), (0, 3, 1, 2))
    close(got, F.conv2d(padded, t(weight), t(bias), stride, 0, dilation, groups))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_ranks_and_valid_padding(rank):
    x, weight = normal(1, 3, *[7] * rank), normal(5, 3, *[3] * rank)
    close(mil("conv", x, weight), getattr(F, f"conv{rank}d")(t(x), t(weight)))


@pytest.mark.parametrize(("pad_type", "before", "after"), [("same", 0, 1), ("same_lower", 1, 0)])
def test_conv_same_puts_the_odd_zero_on_its_side(pad_type, before, after):
    x, weight = normal(1, 2, 6), normal(3, 2, 3)
    got = mil("conv", x, weight, strides=ints(2), pad_type=pad_type)
    close(got, F.conv1d(F.pad(t(x), (before, after)), t(weight), stride=2))


def test_conv_in_bands_is_conv(monkeypatch):
    from sd_mil.engines.reference.ops import convolution

    x, weight = normal(1, 3, 13, 5), normal(4, 3, 3, 3)
    monkeypatch.setattr(convolution, "_COLUMN_LIMIT", 3 * 9 * 3 * 2)  # two rows at a time
    close(mil("conv", x, weight), F.conv2d(t(x), t(weight)))


def test_conv_refuses_other_channels():
    with pytest.raises(ValueError, match="expected 3 channels"):
        mil("conv", normal(1, 4, 5), normal(2, 3, 1))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("output_padding", [0, 1])
def test_conv_transpose(groups, output_padding):
    x, weight, bias = normal(2, 4, 5, 6), normal(4, 3, 3, 3), normal(3 * groups)
    expected = F.conv_transpose2d(
        t(x), t(weight), t(bias), stride=2, padding=1, output_padding=output_padding, groups=groups
    )
    got = mil(
        "conv_transpose",
        x,
        weight,
        bias,
        pad=ints(1, 1, 1, 1),
        output_shape=ints(*expected.shape),
        pad_type="custom",
        strides=ints(2, 2),
        groups=groups,
    )
    close(got, expected)


def test_conv_transpose_valid_and_dilated():
    x, weight = normal(1, 2, 4), normal(2, 3, 3)
    got = mil("conv_transpose", x, weight, strides=ints(2), dilations=ints(2))
    close(got, F.conv_transpose1d(t(x), t(weight), stride=2, dilation=2))


def test_pooling():
    x = normal(2, 3, 8, 9)
    options = {"strides": ints(2, 2), "pad_type": "custom", "pad": ints(1, 1, 1, 1)}
    size = ints(3, 3)
    close(mil("max_pool", x, size, **options), F.max_pool2d(t(x), 3, 2, 1))
    close(mil("avg_pool", x, size, **options), F.avg_pool2d(t(x), 3, 2, 1))
    got = mil("avg_pool", x, size, **options, exclude_padding_from_average=True)
    close(got, F.avg_pool2d(t(x), 3, 2, 1, count_include_pad=False))


@pytest.mark.parametrize(
    "equation", ["bkhc,bchq->bkhq", "bchk,bkhq->bchq", "abc,acd->abd", "ij,jk->ki", "i,j->ij"]
)
def test_einsum(equation):
    sizes = {letter: 2 + index for index, letter in enumerate(sorted(set(equation) - set(",->")))}
    left, right = ([sizes[letter] for letter in part] for part in equation.split("->")[0].split(","))
    x, y = normal(*left), normal(*right)
    close(mil("einsum", (x, y), equation), torch.einsum(equation, t(x), t(y)))


def test_einsum_refuses_sums_over_one_operand():
    with pytest.raises(ValueError, match="every letter"):
        mil("einsum", (normal(2, 3), normal(3)), "ij,j->")


@pytest.mark.parametrize("transpose_x", [False, True])
@pytest.mark.parametrize("transpose_y", [False, True])
def test_matmul(transpose_x, transpose_y):
    x, y = normal(2, 1, 3, 4), normal(5, 4, 6)
    left = x.swapaxes(-1, -2) if transpose_x else x
    right = y.swapaxes(-1, -2) if transpose_y else y
    close(mil("matmul", left, right, transpose_x, transpose_y), t(x) @ t(y))


def test_linear():
    x, weight, bias = normal(2, 5, 3), normal(4, 3), normal(4)
    close(mil("linear", x, weight, bias), F.linear(t(x), t(weight), t(bias)))
    close(mil("linear", x, weight), F.linear(t(x), t(weight)))


@pytest.mark.parametrize("mask", ["none", "bool", "float"])
def test_attention(mask):
    q, k, v = normal(2, 3, 5, 8), normal(2, 3, 7, 8), normal(2, 3, 7, 8)
    masks = {"none": None, "bool": RNG.random((5, 7)) < 0.7, "float": normal(5, 7)}
    chosen = masks[mask]
    expected = F.scaled_dot_product_attention(t(q), t(k), t(v), None if chosen is None else t(chosen))
    close(mil("scaled_dot_product_attention", q, k, v, chosen), expected)


def test_normalisations():
    x, gamma, beta, mean = normal(2, 3, 4, 5), normal(3), normal(3), normal(3)
    variance = np.abs(normal(3)) + 0.1
    eps = np.float32(1e-3)
    got = mil("batch_norm", x, mean, variance, gamma, beta, eps)
    close(got, F.batch_norm(t(x), t(mean), t(variance), t(gamma), t(beta), eps=1e-3))
    close(
        mil("instance_norm", x, gamma, beta, eps),
        F.instance_norm(t(x), None, None, t(gamma), t(beta), eps=1e-3),
    )
    scale, shift = normal(4, 5), normal(4, 5)
    got = mil("layer_norm", x, ints(-2, -1), scale, shift, eps)
    close(got, F.layer_norm(t(x), (4, 5), t(scale), t(shift), 1e-3))
    got = mil("layer_norm", x, ints(1), gamma, beta, eps)
    close(got, F.layer_norm(t(x).movedim(1, -1), (3,), t(gamma), t(beta), 1e-3).movedim(-1, 1))
    close(mil("l2_norm", x), t(x) / (t(x).square().sum((1, 2, 3), keepdim=True) + 1e-6).sqrt())


@pytest.mark.parametrize(
    ("name", "options", "function"),
    [
        ("relu", {}, F.relu),
        ("relu6", {}, F.relu6),
        ("leaky_relu", {"alpha": np.float32(0.2)}, lambda x: F.leaky_relu(x, 0.2)),
        ("elu", {"alpha": np.float32(1.5)}, lambda x: F.elu(x, 1.5)),
        ("thresholded_relu", {"alpha": np.float32(0.5)}, lambda x: F.threshold(x, 0.5, 0)),
        ("sigmoid", {}, torch.sigmoid),
        ("sigmoid_hard", {"alpha": np.float32(1 / 6)}, F.hardsigmoid),
        ("silu", {}, F.silu),
        ("softplus", {}, F.softplus),
        ("softsign", {}, F.softsign),
        ("gelu", {}, F.gelu),
        ("gelu", {"mode": "TANH_APPROXIMATION"}, lambda x: F.gelu(x, approximate="tanh")),
        ("gelu", {"mode": "SIGMOID_APPROXIMATION"}, lambda x: x * torch.sigmoid(1.702 * x)),
        (
            "clamped_relu",
            {"alpha": np.float32(0.5), "beta": np.float32(1)},
            lambda x: F.leaky_relu(x, 0.5).clamp(max=1),
        ),
        ("linear_activation", {"alpha": np.float32(2), "beta": np.float32(1)}, lambda x: 2 * x + 1),
        ("scaled_tanh", {"alpha": np.float32(2), "beta": np.float32(3)}, lambda x: 2 * torch.tanh(3 * x)),
        ("softmax", {"axis": ints(1)[0]}, lambda x: F.softmax(x, 1)),
        ("erf", {}, torch.erf),
        ("clip", {"alpha": np.float32(-0.5), "beta": np.float32(1)}, lambda x: x.clamp(-0.5, 1)),
        ("threshold", {"alpha": np.float32(0.25)}, lambda x: x.clamp(min=0.25)),
        ("round", {}, torch.round),
        ("reduce_log_sum_exp", {"axes": ints(0, -1)}, lambda x: x.logsumexp((0, 2))),
        ("reduce_mean", {"axes": ints(1), "keep_dims": True}, lambda x: x.mean(1, keepdim=True)),
        ("reduce_l1_norm", {"axes": ints(2)}, lambda x: x.abs().sum(2)),
        ("reduce_l2_norm", {"axes": ints(2)}, lambda x: x.norm(dim=2)),
        ("reduce_sum_square", {}, lambda x: x.square().sum()),
        ("reduce_max", {"axes": ints(0)}, lambda x: x.amax(0)),
        ("reduce_min", {"axes": ints(0)}, lambda x: x.amin(0)),
        ("reduce_prod", {"axes": ints(0)}, lambda x: x.prod(0)),
        ("reduce_argmax", {"axis": ints(1)[0]}, lambda x: x.argmax(1)),
        ("reduce_argmin", {"axis": ints(1)[0], "keep_dims": True}, lambda x: x.argmin(1, keepdim=True)),
        ("cumsum", {"axis": ints(1)[0]}, lambda x: x.cumsum(1)),
        ("argsort", {"ascending": True}, lambda x: x.argsort(stable=True)),
        ("argsort", {}, lambda x: x.argsort(descending=True, stable=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_functions_of_one_array(name, options, function):
    x = normal(3, 4, 5) * 2
    close(mil(name, x, **options), function(t(x)))


def test_activations_with_a_slope_per_channel():
    x, alpha, beta = normal(2, 3, 4, 5), np.abs(normal(3)), np.abs(normal(3))
    close(mil("prelu", x, alpha), F.prelu(t(x), t(alpha)))
    wide = t(beta)[:, None, None]
    close(mil("softplus_parametric", x, alpha, beta), t(alpha)[:, None, None] * F.softplus(wide * t(x)))


def test_saturated_activations_stay_finite():
    x = np.array([-1e4, -100, 0, 100, 1e4], np.float32)
    for name, function in (
        ("sigmoid", torch.sigmoid),
        ("silu", F.silu),
        ("softplus", F.softplus),
        ("gelu", F.gelu),
    ):
        close(mil(name, x), function(t(x)))
    close(mil("softmax", x), F.softmax(t(x), -1))


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_nearest_upsampling(scale):
    x = normal(1, 2, 3, 4)
    got = mil("upsample_nearest_neighbor", x, np.float32(scale), np.int32(2))
    close(got, F.interpolate(t(x), scale_factor=(scale, 2), mode="nearest"))


def test_nearest_resizing():
    x = normal(1, 2, 5, 7)
    close(
        mil("resize_nearest_neighbor", x, ints(8)[0], ints(3)[0]),
        F.interpolate(t(x), (8, 3), mode="nearest-exact"),
    )


@pytest.mark.parametrize("align", [True, False])
def test_bilinear(align):
    x = normal(1, 2, 3, 4)
    got = mil("upsample_bilinear", x, np.float32(2), np.float32(3), align_corners=align)
    close(got, F.interpolate(t(x), (6, 12), mode="bilinear", align_corners=align))
    mode = "STRICT_ALIGN_CORNERS" if align else "UNALIGN_CORNERS"
    got = mil("resize_bilinear", x, ints(5)[0], ints(2)[0], mode)
    close(got, F.interpolate(t(x), (5, 2), mode="bilinear", align_corners=align))


@pytest.mark.parametrize(
    ("mode", "torch_mode"), [("constant", "constant"), ("reflect", "reflect"), ("replicate", "replicate")]
)
def test_padding(mode, torch_mode):
    x = normal(2, 3, 4, 5)
    value = 1.5 if mode == "constant" else 0
    got = mil("pad", x, ints(0, 0, 0, 0, 1, 2, 3, 0), mode, np.float32(value))
    close(got, F.pad(t(x), (3, 0, 1, 2), torch_mode, value))
    close(mil("pad", x, ints(1, 2), "constant", np.float32(value)), F.pad(t(x), (1, 2), "constant", value))


def test_pixel_shuffles():
    x = normal(1, 12, 3, 4)
    shuffled = mil("pixel_shuffle", x, ints(2)[0])
    close(shuffled, F.pixel_shuffle(t(x), 2))
    close(mil("pixel_unshuffle", shuffled, ints(2)[0]), t(x))
    spread = mil("depth_to_space", x, ints(2)[0])
    expected = F.pixel_shuffle(t(x).reshape(1, 4, 3, 3, 4).transpose(1, 2).reshape(1, 12, 3, 4), 2)
    close(spread, expected)
    close(mil("space_to_depth", spread, ints(2)[0]), t(x))


def test_gathering():
    x, index = normal(3, 4, 5), ints(2, 0, -1)
    close(mil("gather", x, index, ints(1)[0]), t(x)[:, index.tolist()])
    close(
        mil("gather", x, index.reshape(3, 1), 1, 1),
        torch.stack([t(x)[i, index[i : i + 1].tolist()] for i in range(3)]),
    )
    along = RNG.integers(0, 4, (3, 2, 5)).astype(np.int32)
    close(mil("gather_along_axis", x, along, 1), t(x).gather(1, t(along).long()))
    pairs = ints(0, 1, 2, 3).reshape(2, 2)
    close(mil("gather_nd", x, pairs), t(x)[[0, 2], [1, 3]])
    close(mil("gather_nd", x, ints(1, 0, 3).reshape(3, 1), 1), t(x)[[0, 1, 2], [1, 0, 3]])


def test_scattering():
    x, updates = normal(4, 3), normal(2, 3)
    index = ints(2, 2)
    expected = t(x).index_add(0, t(index).long(), t(updates))
    close(mil("scatter", x, index, updates), expected)
    close(mil("scatter_nd", x, index.reshape(2, 1), updates), expected)
    along = RNG.integers(0, 4, (2, 3)).astype(np.int32)
    close(mil("scatter_along_axis", x, along, updates), t(x).scatter_add(0, t(along).long(), t(updates)))
    put = mil("scatter_nd", x, ints(1, 0, 3, 2).reshape(2, 2), np.float32([5, 6]), "update")
    assert (put[1, 0], put[3, 2]) == (5, 6)
    assert (put != x).sum() == 2


def test_topk():
    x = normal(3, 6)
    for ascending in (False, True):
        values, indices = mil("topk", x, ints(2)[0], ascending=ascending)
        expected = t(x).topk(2, largest=not ascending)
        close(values, expected.values)
        close(indices, expected.indices)
    assert len(mil("topk", x, ints(2)[0], return_indices=False)) == 1


def test_band_and_one_hot():
    x = normal(2, 4, 5)
    close(mil("band_part", x, 0, -1), t(x).triu())
    close(mil("band_part", x, 1, 2), t(x).triu(-1).tril(2))
    index = ints(0, 2, 1)
    close(mil("one_hot", index, ints(4)[0]), F.one_hot(t(index).long(), 4))
    close(mil("one_hot", index, ints(4)[0], axis=0), F.one_hot(t(index).long(), 4).T)

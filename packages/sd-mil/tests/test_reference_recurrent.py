"""Recurrent layers against torch's, at every option that both have, and by hand where torch has none."""

import numpy as np
import pytest
from sd_mil.engines.reference.ops import OPS

torch = pytest.importorskip("torch")

S, N, WIDE, H = 5, 2, 3, 4
RNG = np.random.default_rng(3)
X = RNG.standard_normal((S, N, WIDE)).astype(np.float32)


def state(width=H):
    return RNG.standard_normal((N, width)).astype(np.float32)


def mil(name, *args, **kwargs):
    return OPS[name].function(*args, **kwargs)


def reordered(array, gates, order):
    parts = dict(zip(gates, np.split(array.detach().numpy(), len(gates)), strict=True))
    return np.concatenate([parts[gate] for gate in order])


def close(got, expected):
    expected = expected.detach().numpy()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def lstm_weights(layer, suffix=""):
    ih, hh, first, second = (
        reordered(getattr(layer, f"{name}_l0{suffix}"), "ifzo", "ifoz")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return ih, hh, first + second


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_lstm_one_way(whole, reverse):
    layer, h, c = torch.nn.LSTM(WIDE, H), state(), state()
    given = X[::-1].copy() if reverse else X
    expected, (h_n, c_n) = layer(
        *map(torch.from_numpy, (given,)), tuple(torch.from_numpy(one)[None] for one in (h, c))
    )
    ih, hh, bias = lstm_weights(layer)
    direction = "reverse" if reverse else "forward"
    got = mil("lstm", X, h, c, ih, hh, bias, direction=direction, output_sequence=whole)
    close(got[0], expected if whole else expected[-1:])
    close(got[1], h_n[0])
    close(got[2], c_n[0])


@pytest.mark.parametrize("whole", [False, True])
def test_lstm_both_ways(whole):
    layer, h, c = torch.nn.LSTM(WIDE, H, bidirectional=True), state(2 * H), state(2 * H)
    states = tuple(torch.from_numpy(np.stack(np.split(one, 2, axis=1))) for one in (h, c))
    expected, (h_n, c_n) = layer(torch.from_numpy(X), states)
    ih, hh, bias = lstm_weights(layer)
    ih_back, hh_back, bias_back = lstm_weights(layer, "_reverse")
    got = mil(
        "lstm",
        X,
        h,
        c,
        ih,
        hh,
        bias,
        weight_ih_back=ih_back,
        weight_hh_back=hh_back,
        bias_back=bias_back,
        direction="bidirectional",
        output_sequence=whole,
    )
    final = torch.cat(tuple(h_n), dim=1)
    close(got[0], expected if whole else final[None])
    close(got[1], final)
    close(got[2], torch.cat(tuple(c_n), dim=1))
    with pytest.raises(ValueError, match="both directions"):
        mil("lstm", X, h, c, ih, hh, direction="bidirectional")


ACTIVATIONS = {
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "scaled_tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("kinds", [*zip(ACTIVATIONS, [*ACTIVATIONS][2:] + [*ACTIVATIONS][:2], strict=True)])
def test_lstm_with_peepholes_clip_and_activations(kinds):
    """The equations of coremltools' documentation and of its test, one element at a time."""
    gate, cell = kinds
    ih, hh, bias, peep = (
        RNG.standard_normal(shape).astype(np.float32) for shape in ((4 * H, WIDE), (4 * H, H), 4 * H, 3 * H)
    )
    h, c = h_first, c_first = state(), state()
    for x in X:
        i, f, o, z = np.split(x @ ih.T + h @ hh.T + bias, 4, axis=1)
        act = ACTIVATIONS[gate]
        p_i, p_f, p_o = np.split(peep, 3)
        c = np.clip(act(f + c * p_f) * c + act(i + c * p_i) * ACTIVATIONS[cell](z), -0.4, 0.4)
        h = act(o + c * p_o) * ACTIVATIONS["relu"](c)
    got = mil(
        "lstm",
        X,
        h_first,
        c_first,
        ih,
        hh,
        bias,
        peep,
        recurrent_activation=gate,
        cell_activation=cell,
        activation="relu",
        clip=np.float32(0.4),
    )
    np.testing.assert_allclose(got[1], h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[2], c, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_gru_with_the_reset_after_the_product_is_torchs(whole, reverse):
    layer, h = torch.nn.GRU(WIDE, H), state()
    given = X[::-1].copy() if reverse else X
    expected, h_n = layer(torch.from_numpy(given), torch.from_numpy(h)[None])
    ih, hh, first, second = (
        reordered(getattr(layer, f"{name}_l0"), "rzo", "roz")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    options = {"reset_after": True, "input_bias": first, "output_sequence": whole}
    got = mil("gru", X, h, ih, hh, second, "reverse" if reverse else "forward", **options)
    close(got[0], expected if whole else expected[-1:])
    close(got[1], h_n[0])


def test_gru_with_the_reset_before_the_product():
    ih, hh, bias = (
        RNG.standard_normal(shape).astype(np.float32) for shape in ((3 * H, WIDE), (3 * H, H), 3 * H)
    )
    h = first = state()
    sigmoid = ACTIVATIONS["sigmoid"]
    for x in X:
        (xr, xo, xz), (br, bo, bz) = np.split(x @ ih.T, 3, axis=1), np.split(bias, 3)
        wr, wo, wz = np.split(hh, 3)
        r, z = sigmoid(xr + h @ wr.T + br), sigmoid(xz + h @ wz.T + bz)
        h = (1 - z) * np.tanh(xo + (r * h) @ wo.T + bo) + z * h
    np.testing.assert_allclose(mil("gru", X, first, ih, hh, bias)[1], h, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_rnn(activation):
    layer, h = torch.nn.RNN(WIDE, H, nonlinearity=activation), state()
    expected, h_n = layer(torch.from_numpy(X), torch.from_numpy(h)[None])
    ih, hh, first, second = (one.detach().numpy() for one in layer.parameters())
    got = mil("rnn", X, h, ih, hh, first + second, output_sequence=True, activation=activation)
    close(got[0], expected)
    close(got[1], h_n[0])

"""Recurrent layers, one step at a time.

Gates stand one below the other in the weights: input, forget, output, cell for ``lstm``; reset, output,
update for ``gru``. Sequences are [S, N, I], as everywhere in MIL. Outputs of the direction ``reverse`` begin
with that of the last input; those of ``bidirectional`` stand beside the forward ones of the same input.

Source of all this: coremltools' tests of these layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from sd_mil.engines.reference.ops.activation import sigmoid, sigmoid_hard
from sd_mil.engines.reference.registry import Array, op
from sd_mil.ir.limits import check_computed, check_iterations

_Activation: TypeAlias = Callable[[Array], Array]

#: ``scaled_tanh`` has no scales here: both are 1, as in coremltools' tests of these layers.
_ACTIVATIONS: dict[str, _Activation] = {
    "hard_sigmoid": sigmoid_hard,
    "linear": lambda x: x,
    "relu": lambda x: np.asarray(np.maximum(x, 0)),
    "scaled_tanh": lambda x: np.asarray(np.tanh(x)),
    "sigmoid": sigmoid,
    "sigmoid_hard": sigmoid_hard,
    "tanh": lambda x: np.asarray(np.tanh(x)),
}
_ONE_WAY = ("forward", "reverse")
_CHOICES = {"direction": _ONE_WAY, "activation": _ACTIVATIONS, "recurrent_activation": _ACTIVATIONS}


@op("rnn", choices={"direction": _ONE_WAY, "activation": _ACTIVATIONS})
def rnn(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    direction: str = "forward",
    output_sequence: Array | bool = False,
    activation: str = "tanh",
) -> tuple[Array, Array]:
    """h = activation(W x + R h + b)."""
    _check_rows(x, weight_ih, initial_h)
    inputs = x @ weight_ih.T + _or_zero(bias)

    def step(index: int, h: Array) -> Array:
        return _ACTIVATIONS[activation](inputs[index] + h @ weight_hh.T)

    return _unrolled(step, initial_h, len(x), direction, output_sequence)


@op("gru", choices=_CHOICES)
def gru(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    direction: str = "forward",
    output_sequence: Array | bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: Array | bool = False,
    input_bias: Array | None = None,
) -> tuple[Array, Array]:
    """h = (1 - z) o + z h; the reset gate scales h before the product, or the product and its bias after it.

    Source: arXiv:1406.1078, equations 5 to 8; with ``reset_after`` as torch has it.
    """
    _check_rows(x, weight_ih, initial_h)
    gate, last = _ACTIVATIONS[recurrent_activation], _ACTIVATIONS[activation]
    inputs = x @ weight_ih.T + _or_zero(input_bias)
    hidden = np.zeros(len(weight_hh), np.float32) if bias is None else bias
    (reset_b, output_b, update_b), (reset_w, output_w, update_w) = np.split(hidden, 3), np.split(weight_hh, 3)

    def step(index: int, h: Array) -> Array:
        reset_x, output_x, update_x = np.split(inputs[index], 3, axis=-1)
        r = gate(reset_x + h @ reset_w.T + reset_b)
        z = gate(update_x + h @ update_w.T + update_b)
        scaled = r * (h @ output_w.T + output_b) if reset_after else (r * h) @ output_w.T + output_b
        return np.asarray((1 - z) * last(output_x + scaled) + z * h)

    return _unrolled(step, initial_h, len(x), direction, output_sequence)


def _unrolled(
    step: Callable[[int, Array], Array], h: Array, length: int, direction: str, output_sequence: Array | bool
) -> tuple[Array, Array]:
    """Every hidden state where they are asked for, in the order in which they were computed, and the last."""
    check_iterations(length)
    states = []
    for index in range(length) if direction == "forward" else reversed(range(length)):
        h = step(index, h)
        states.append(h)
    if not output_sequence:
        return h[None], h
    return np.stack(states), h


@op("lstm", choices={**_CHOICES, "direction": (*_ONE_WAY, "bidirectional"), "cell_activation": _ACTIVATIONS})
def lstm(
    x: Array,
    initial_h: Array,
    initial_c: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    peephole: Array | None = None,
    weight_ih_back: Array | None = None,
    weight_hh_back: Array | None = None,
    bias_back: Array | None = None,
    peephole_back: Array | None = None,
    direction: str = "forward",
    output_sequence: Array | bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: Array | None = None,
) -> tuple[Array, Array, Array]:
    """c = f c + i z, h = o activation(c); with peepholes, the gates see the cell too.

    Source: Hochreiter and Schmidhuber, Long Short-Term Memory, 1997; the peepholes are Gers' of 2000.
    """
    kinds = tuple(_ACTIVATIONS[one] for one in (recurrent_activation, cell_activation, activation))
    forward = (weight_ih, weight_hh, bias, peephole)
    if direction != "bidirectional":
        return _one_way(x, initial_h, initial_c, forward, kinds, clip, direction, output_sequence)
    if weight_ih_back is None or weight_hh_back is None:
        raise ValueError("expected weights for both directions, got those of one")
    backward = (weight_ih_back, weight_hh_back, bias_back, peephole_back)
    (h_first, h_second), (c_first, c_second) = (np.split(one, 2, axis=-1) for one in (initial_h, initial_c))
    first = _one_way(x, h_first, c_first, forward, kinds, clip, "forward", output_sequence)
    second = _one_way(x, h_second, c_second, backward, kinds, clip, "reverse", output_sequence)
    outputs = np.concatenate([first[0], second[0][::-1]], axis=-1)
    h, c = (np.concatenate(pair, axis=-1) for pair in zip(first[1:], second[1:], strict=True))
    return outputs, h, c


def _one_way(
    x: Array,
    h: Array,
    c: Array,
    weights: tuple[Array, Array, Array | None, Array | None],
    activations: tuple[_Activation, ...],
    clip: Array | None,
    direction: str,
    output_sequence: Array | bool,
) -> tuple[Array, Array, Array]:
    weight_ih, weight_hh, bias, peephole = weights
    h, c = h[: x.shape[1]], c[: x.shape[1]]  # coremltools makes too many rows of zeros for packed sequences
    _check_rows(x, weight_ih, h, c)
    inputs = x @ weight_ih.T + _or_zero(bias)
    gate, cell, last = activations
    peep_i, peep_f, peep_o = np.split(np.zeros(3, np.float32) if peephole is None else peephole, 3)

    def step(index: int, state: Array) -> Array:
        h, c = state
        i, f, o, z = np.split(inputs[index] + h @ weight_hh.T, 4, axis=-1)
        c = gate(f + c * peep_f) * c + gate(i + c * peep_i) * cell(z)
        c = c if clip is None else np.clip(c, -clip, clip)
        return np.stack([gate(o + c * peep_o) * last(c), c])

    states, final = _unrolled(step, np.stack([h, c]), len(x), direction, output_sequence)
    return states[:, 0], final[0], final[1]


def _check_rows(x: Array, weight_ih: Array, *states: Array) -> None:
    """numpy would broadcast one row to all sequences.

    Raises:
        ValueError: a state has not one row [H] for each of the N sequences of ``x`` [S, N, I]; or the gates
            of all sequences would be too large.
    """
    check_computed(*x.shape[:2], len(weight_ih))
    for state in states:
        if x.ndim != 3 or state.ndim != 2 or len(state) != x.shape[1]:
            raise ValueError(f"expected x [S, N, I] and states [N, H], got {x.shape} and {state.shape}")


def _or_zero(bias: Array | None) -> Array:
    return np.zeros((), np.float32) if bias is None else bias

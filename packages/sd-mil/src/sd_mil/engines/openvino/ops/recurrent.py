"""Recurrent layers. Source: coremltools ``defs/iOS15/recurrent.py``.

MIL has sequences as [S, N, I] and a direction's gates below each other; OpenVINO has [N, S, I], and the gates
in another order. Layers with peepholes, a clip, or other activations than the usual ones are left to numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import openvino.opset14 as ov
from openvino import Node, Output

from sd_mil.engines.openvino.bounds import first_rows
from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list

Float32 = npt.NDArray[np.float32]

#: Where OpenVINO's gates stand among MIL's: f i z o of i f o z, and z r o of r o z.
_LSTM_ORDER = (1, 0, 3, 2)
_GRU_ORDER = (2, 0, 1)


@translate("lstm")
def lstm(call: Call) -> list[Output]:
    """``c = f · c + i · z``, ``h = o · tanh(c)``: [S, N, I] -> [S or 1, N, D·H], [N, D·H], [N, D·H]."""
    for parameter in ("peephole", "peephole_back", "clip"):
        if parameter in call:
            raise call.unsupported(f"a {parameter}")
    _check_activations(
        call, {"recurrent_activation": "sigmoid", "cell_activation": "tanh", "activation": "tanh"}
    )
    direction = call.choice("direction", "forward", among=("forward", "reverse", "bidirectional"))
    suffixes = ("", "_back") if direction == "bidirectional" else ("",)
    weights = [_stacked(call, f"weight_{kind}", suffixes, _LSTM_ORDER) for kind in ("ih", "hh")]
    bias = np.stack([_gates(_bias(call, f"bias{one}", 4), _LSTM_ORDER) for one in suffixes])
    states = [_state(call, name, len(suffixes)) for name in ("initial_h", "initial_c")]
    x = _batch_first(call)
    made = ov.lstm_sequence(x, *states, _lengths(x), *weights, bias, bias.shape[1] // 4, direction)
    return _results(call, made, direction)


@translate("gru")
def gru(call: Call) -> list[Output]:
    """``h = (1 - z) · o + z · h``: [S, N, I] -> [S or 1, N, H], [N, H]."""
    _check_activations(call, {"recurrent_activation": "sigmoid", "activation": "tanh"})
    direction = call.choice("direction", "forward", among=("forward", "reverse"))
    weights = [_stacked(call, f"weight_{kind}", ("",), _GRU_ORDER) for kind in ("ih", "hh")]
    hidden, given = (_gates(_bias(call, name, 3), _GRU_ORDER) for name in ("bias", "input_bias"))
    after, size = call.flag("reset_after"), hidden.size // 3
    bias = hidden + given
    if after:
        bias = np.concatenate([bias[: 2 * size], given[2 * size :], hidden[2 * size :]])
    x = _batch_first(call)
    made = ov.gru_sequence(
        x,
        _state(call, "initial_h", 1),
        _lengths(x),
        *weights,
        bias[None],
        size,
        direction,
        linear_before_reset=after,
    )
    return _results(call, made, direction)


@translate("rnn")
def rnn(call: Call) -> list[Output]:
    """``h = tanh(W · x + R · h + b)``: [S, N, I] -> [S or 1, N, H], [N, H]."""
    activation = call.choice("activation", "tanh", among=("tanh", "relu", "sigmoid"))
    direction = call.choice("direction", "forward", among=("forward", "reverse"))
    weights = [_stacked(call, f"weight_{kind}", ("",), (0,)) for kind in ("ih", "hh")]
    bias = _bias(call, "bias", 1)[None]
    x, state = _batch_first(call), _state(call, "initial_h", 1)
    made = ov.rnn_sequence(
        x, state, _lengths(x), *weights, bias, bias.size, direction, activations=[activation]
    )
    return _results(call, made, direction)


def _check_activations(call: Call, usual: dict[str, str]) -> None:
    for parameter, name in usual.items():
        call.choice(parameter, name, among=(name,))


def _stacked(call: Call, parameter: str, suffixes: Sequence[str], order: Sequence[int]) -> Float32:
    """[D, gates · H, …], the gates in OpenVINO's order."""
    name, _, kind = parameter.rpartition("_")
    return np.stack([_gates(_float32(call, f"{name}_{kind}{one}"), order) for one in suffixes])


def _bias(call: Call, parameter: str, gates: int) -> Float32:
    if parameter in call:
        return _float32(call, parameter)
    return np.zeros(gates * call.array("weight_hh").shape[1], np.float32)


def _gates(array: Float32, order: Sequence[int]) -> Float32:
    parts = np.split(array, len(order))
    return np.concatenate([parts[position] for position in order])


def _float32(call: Call, parameter: str) -> Float32:
    return call.array(parameter).astype(np.float32)


def _batch_first(call: Call) -> Output:
    return ov.transpose(call.output("x"), int_list([1, 0, 2])).output(0)


def _state(call: Call, parameter: str, directions: int) -> Output:
    """[N, D·H] -> [N, D, H], of as many rows as ``x`` has sequences: OpenVINO takes a single one for all.

    coremltools makes too many rows of zeros for the LSTMs of packed sequences.
    """
    state, x = call.output(parameter), call.output("x")
    rows, batch = state.get_partial_shape()[0], x.get_partial_shape()[1]
    more_is_fine = call.operation.type == "lstm"
    if rows.is_dynamic or batch.is_dynamic or (more_is_fine and rows.get_length() > batch.get_length()):
        count = ov.gather(ov.shape_of(x, "i32"), int_list([1]), 0).output(0)
        state = first_rows(call, state, count, exactly=not more_is_fine)
    elif rows != batch:
        raise call.unsupported(f"{parameter} of {rows} rows for {batch} sequences")
    return ov.reshape(state, int_list([0, directions, -1]), True).output(0)


def _lengths(x: Output) -> Output:
    """Every sequence is as long as the longest."""
    sizes = ov.shape_of(x, "i32")
    batch, length = (ov.gather(sizes, int_list([axis]), 0) for axis in (0, 1))
    return ov.broadcast(length, batch).output(0)


def _results(call: Call, made: Node, direction: str) -> list[Output]:
    """[N, D, S, H] and [N, D, H] -> [S, N, D·H] and [N, D·H]; MIL has reverse sequences as computed."""
    finals = [ov.reshape(one, int_list([0, -1]), True).output(0) for one in made.outputs()[1:]]
    if not call.flag("output_sequence"):
        return [ov.unsqueeze(finals[0], int_list([0])).output(0), *finals]
    steps = ov.reshape(ov.transpose(made.output(0), int_list([2, 0, 1, 3])), int_list([0, 0, -1]), True)
    if direction == "reverse":
        zeros, back = int_list([0, 0, 0]), int_list([-1, 1, 1])
        steps = ov.strided_slice(steps, zeros, zeros, back, begin_mask=[1, 1, 1], end_mask=[1, 1, 1])
    return [steps.output(0), *finals]

"""The bookkeeping of views against torch's own permute and reshape."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_convert.lowering.views import View, arrange

SIZES = st.lists(st.sampled_from([1, 1, 2, 3, 4, 6]), min_size=1, max_size=4)


def materialise(store: np.ndarray, view: View, order, shape):
    """Carry out an arrangement with numpy."""
    steps = arrange(store.shape, view, order, shape)
    array = store if steps.before is None else store.reshape(steps.before)
    array = array if steps.perm is None else array.transpose(steps.perm)
    return array if steps.after is None else array.reshape(steps.after)


def factorisation(draw, total: int) -> tuple[int, ...]:
    """A random shape with ``total`` elements."""
    shape = []
    while total > 1 and len(shape) < 3:
        shape.append(draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0])))
        total //= shape[-1]
    shape.insert(draw(st.integers(0, len(shape))), total)
    return tuple(shape)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_chain_of_permutes_and_reshapes_equals_torch(data):
    shape = tuple(data.draw(SIZES))
    store = np.arange(math.prod(shape)).reshape(shape)
    tensor, view = torch.from_numpy(store), View.of(shape)
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            order = data.draw(st.permutations(range(tensor.ndim)))
            tensor, view = tensor.permute(*order), view.permute(order)
        else:
            new = factorisation(data.draw, tensor.numel())
            reshaped = view.reshape(new)
            tensor = tensor.reshape(new)
            if (
                reshaped is None
            ):  # cannot be bookkeeping: what a lowering does is to start from what ATen sees
                store, reshaped = tensor.numpy(), View.of(new)
            view = reshaped
        assert view.shape == tuple(tensor.shape)
    result = materialise(store, view, tuple(range(tensor.ndim)), view.shape)
    assert np.array_equal(result, tensor.numpy())


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_arrange_reaches_any_order_with_axes_of_one_anywhere(data):
    shape = tuple(data.draw(SIZES))
    order = data.draw(st.permutations([*range(len(shape)), None]))
    wanted = tuple(1 if axis is None else shape[axis] for axis in order)
    store = np.arange(math.prod(shape)).reshape(shape)
    expected = store.transpose([axis for axis in order if axis is not None]).reshape(wanted)
    assert np.array_equal(materialise(store, View.of(shape), order, wanted), expected)


def test_a_transformer_block_on_an_image_needs_no_transpose():
    image = View.of((2, 64, 8, 4))
    tokens = image.permute((0, 2, 3, 1)).reshape((2, 32, 64))
    steps = arrange((2, 64, 8, 4), tokens, (0, 2, None, 1), (2, 64, 1, 32))
    assert (steps.before, steps.perm, steps.after) == (None, None, (2, 64, 1, 32))
    back = View.of((2, 64, 32)).permute((0, 2, 1)).reshape((2, 8, 4, 64)).permute((0, 3, 1, 2))
    assert arrange((2, 64, 1, 32), back, (0, 1, 2, 3), (2, 64, 8, 4)).perm is None


def test_a_reshape_that_cuts_unevenly_is_not_bookkeeping():
    assert View.of((4, 6)).permute((1, 0)).reshape((4, 6)) is None
    assert View.of((4, 6)).reshape((6, 4)) is None
    assert View.of((4, 6)).reshape((2, 2, 3, 2)).atoms == (2, 2, 3, 2)


def test_one_transpose_where_one_will_do():
    heads = View.of((1, 7, 12)).reshape((1, 7, 3, 4)).permute((0, 2, 1, 3))
    steps = arrange((1, 7, 12), heads, (0, 1, 2, 3), (1, 3, 7, 4))
    assert (steps.before, steps.perm, steps.after) == ((1, 7, 3, 4), (0, 2, 1, 3), None)

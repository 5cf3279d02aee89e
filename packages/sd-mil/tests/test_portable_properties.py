"""Slices, reshapes, pads, transposes and einsums of any shape, against numpy."""

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("openvino")

from portable_calls import portable

SETTINGS = settings(max_examples=40, deadline=None)
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def counted(shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@st.composite
def slices(draw):
    """A shape, and numpy slices of it that keep at least one element of every dimension."""
    shape = draw(SHAPES)
    chosen = []
    for size in shape:
        step = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        first, last = draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))
        low, high = min(first, last), max(first, last)
        begin, end = (low, high + 1) if step > 0 else (high, low - 1)
        no_begin, no_end = draw(st.booleans()), end < 0 or draw(st.booleans())
        if draw(st.booleans()) and not no_begin:
            begin -= size
        if step > 0 and draw(st.booleans()):
            end = end - size if end < size else end + draw(st.integers(0, 3))
        chosen.append((begin, end, step, no_begin, no_end))
    return shape, chosen


@SETTINGS
@given(slices(), st.data())
def test_slices_are_numpys(drawn, data):
    shape, chosen = drawn
    squeezed = [data.draw(st.booleans()) and not no_begin for _, _, _, no_begin, _ in chosen]
    x = counted(shape)
    index = tuple(
        begin if squeeze else slice(None if no_begin else begin, None if no_end else end, step)
        for (begin, end, step, no_begin, no_end), squeeze in zip(chosen, squeezed, strict=True)
    )
    expected = np.asarray(x[index])
    begins, ends, steps, no_begins, no_ends = zip(*chosen, strict=True)
    got = portable(
        "slice_by_index",
        {"x": x},
        [("fp32", *expected.shape)],
        begin=np.int32(begins),
        end=np.int32(ends),
        stride=np.int32([1 if squeeze else step for step, squeeze in zip(steps, squeezed, strict=True)]),
        begin_mask=np.array(no_begins),
        end_mask=np.array(no_ends),
        squeeze_mask=np.array(squeezed),
    )[0]
    np.testing.assert_array_equal(got, expected)


@SETTINGS
@given(SHAPES, st.data())
def test_reshape(shape, data):
    factors = data.draw(st.permutations(shape))
    cut = data.draw(st.integers(0, len(factors)))
    target = [int(np.prod(factors[:cut])), *factors[cut:]]
    hidden = data.draw(st.integers(-1, len(target) - 1))
    given_shape = [-1 if position == hidden else size for position, size in enumerate(target)]
    x = counted(shape)
    got = portable("reshape", {"x": x}, [("fp32", *target)], shape=np.int32(given_shape))[0]
    np.testing.assert_array_equal(got, x.reshape(target))


@SETTINGS
@given(SHAPES, st.data())
def test_transpose(shape, data):
    order = data.draw(st.permutations(range(len(shape))))
    x = counted(shape)
    expected = x.transpose(order)
    got = portable("transpose", {"x": x}, [("fp32", *expected.shape)], perm=np.int32(order))[0]
    np.testing.assert_array_equal(got, expected)


@SETTINGS
@given(SHAPES, st.data())
def test_pad(shape, data):
    mode = data.draw(st.sampled_from(["constant", "reflect", "replicate"]))
    count = data.draw(st.integers(1, len(shape)))
    most = [min(size - 1, 3) if mode == "reflect" else 3 for size in shape[-count:]]
    pads = [tuple(data.draw(st.tuples(st.integers(0, top), st.integers(0, top)))) for top in most]
    x = counted(shape)
    widths = [(0, 0)] * (len(shape) - count) + pads
    settings_ = {"constant_values": 7} if mode == "constant" else {}
    expected = np.pad(x, widths, {"replicate": "edge"}.get(mode, mode), **settings_)
    flat = np.int32([side for pair in pads for side in pair])
    given_pads = {"pad": flat, "mode": mode, "constant_val": np.float32(7)}
    got = portable("pad", {"x": x}, [("fp32", *expected.shape)], **given_pads)[0]
    np.testing.assert_array_equal(got, expected)


@SETTINGS
@given(st.data())
def test_einsum_of_one_product(data):
    batch = string.ascii_lowercase[: data.draw(st.integers(0, 2))]
    size = {label: data.draw(st.integers(1, 4)) for label in batch + "xyz"}
    left, right, result = (
        "".join(data.draw(st.permutations(batch + labels))) for labels in ("xz", "zy", "xy")
    )
    x, y = (counted(tuple(size[label] for label in term)) / 7 for term in (left, right))
    equation = f"{left},{right}->{result}"
    expected = np.einsum(equation, x, y)
    got = portable("einsum", {"values": (x, y)}, [("fp32", *expected.shape)], equation=equation)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5)

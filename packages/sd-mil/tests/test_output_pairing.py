"""A comparison looks at every output of both models, and says which it held against which."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_mil import ComparisonError, compare, compare_outputs
from sd_mil.analysis.measures import fidelity
from sd_mil.engines.reference import ListValue

A, B = np.float32([[1, 2, 3, 4]]), np.float32([[2, 4, 6, 8]])


def test_names_come_first():
    comparison = compare_outputs({"a": A, "b": B}, {"b": B, "a": A})
    assert [(row.output, row.other, row.paired_by) for row in comparison.rows] == [
        ("a", "a", "name"),
        ("b", "b", "name"),
    ]
    assert comparison.passed(np.inf)


def test_the_only_ones_of_their_shape_and_type():
    comparison = compare_outputs(
        {"a": A, "b": B, "label": "cat"}, {"a": A, "c": B.astype(np.float16), "class": "cat"}
    )
    assert [row.other for row in comparison.rows] == ["a", "c", "class"]
    assert [row.paired_by for row in comparison.rows] == ["name", "shape and type", "shape and type"]
    assert "b [1, 4] with c, paired by shape and type: equal" in str(comparison)


def test_another_name_does_not_hide_another_value():
    comparison = compare_outputs({"plus": A, "times": 2 * A}, {"plus": A, "other": 3 * A})
    assert not comparison.passed(10)


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ({"a": A, "b": B}, {"c": A, "d": B}),  # two of a shape: which is which?
        ({"a": A, "b": B}, {"a": A}),
        ({"a": A}, {"a": A, "b": B}),
        ({"a": A}, {"b": A[:, :3]}),
        ({"a": A}, {"b": A.astype(np.int32)}),
        ({"a": A}, {}),
        ({}, {}),
        ({"a": {"cat": 1.0}}, {"b": A}),
    ],
)
def test_what_is_left_over_is_refused(expected, got):
    with pytest.raises(ComparisonError, match=r"expected (a counterpart|outputs)") as caught:
        compare_outputs(expected, got)
    lost = expected.keys() ^ got.keys()
    assert all(repr(name) in str(caught.value) for name in lost)


def test_outputs_without_names_go_in_order():
    comparison = compare(lambda _: {"a": A, "b": B}, lambda _: (A, B), {})
    assert [(row.other, row.paired_by) for row in comparison.rows] == [("0", "order"), ("1", "order")]
    assert comparison.passed(np.inf)
    assert not compare(lambda _: (A, B), lambda _: {"b": B, "a": A}, {}).passed(35)


SHAPES = st.dictionaries(
    st.sampled_from("abcdefgh"), st.sampled_from([(1,), (2,), (3,), (1, 2), (2, 2)]), max_size=6
)


@given(SHAPES, SHAPES)
def test_every_output_has_exactly_one_counterpart(left, right):
    expected, got = ({name: np.ones(shape) for name, shape in side.items()} for side in (left, right))
    try:
        rows = compare_outputs(expected, got).rows
    except ComparisonError:
        assert set(left) != set(right) or not left
        return
    assert [row.output for row in rows] == list(left)
    assert sorted(row.other for row in rows) == sorted(right)
    assert all(left[row.output] == right[row.other] for row in rows if row.output != row.other)


@pytest.mark.parametrize(
    ("expected", "got", "equal"),
    [
        ("cat", "cat", True),
        ("cat", "car", False),  # one letter apart is not nearly the same class
        (281, 282, False),
        (281, 281, True),
        ({"cat": 0.9, "dog": 0.1}, {"dog": 0.1, "cat": 0.9}, True),
        ({"cat": 0.9, "dog": 0.1}, {"cat": 0.9, "cow": 0.1}, False),
        (2.0, np.float32([2.0]), True),
        (np.zeros((0, 4)), np.zeros((0, 4)), True),
        (np.zeros((0, 4)), np.zeros((1, 4)), False),
        ("cat", A, False),
        (A, {"cat": 0.9}, False),
    ],
)
def test_labels_and_numbers(expected, got, equal):
    assert compare_outputs({"y": expected}, {"y": got}).passed(35) == equal


def test_a_row_that_is_not_a_number_does_not_pass():
    nan = np.float32([np.nan, 1])
    assert not compare_outputs({"a": A, "b": A[0, :2]}, {"a": A, "b": nan}).passed(-1e9)


def test_numbers_whose_squares_float64_does_not_hold():
    comparison = compare_outputs({"a": np.float64([1e300, -1e308])}, {"a": np.float64([0, 1e308])})
    assert comparison.worst.psnr == -np.inf


def test_lists_of_other_lengths_differ():
    def made(*items):
        return ListValue(items, (1, 4), np.dtype(np.float32), grows=False)

    assert fidelity(made(A, B), made(A, B)) == np.inf
    assert fidelity(made(A, B), made(A)) == -np.inf
    assert fidelity(made(A, B), made(A, None)) == -np.inf

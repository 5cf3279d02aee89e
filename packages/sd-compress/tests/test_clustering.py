"""k-means on a line is exact: as good as trying everything, and as the solver that coremltools ships."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_compress import _loops, clustering, packing
from sd_compress.clustering import Histogram, kmeans
from sd_compress.palettes import nearest_entries
from sd_compress.vectors import kmeans_vectors, nearest
from sd_mil import constexpr

RNG = np.random.default_rng(3)


def squared_error(values, centres):
    return (np.abs(np.subtract.outer(np.asarray(values, np.float64), centres)).min(axis=1) ** 2).sum()


def best_of_all(values, counts, clusters):
    """The least error of any division into intervals, every one of them tried."""
    size, best = len(values), np.inf
    for inner in itertools.combinations(range(1, size), min(clusters, size) - 1):
        edges = [0, *inner, size]
        total = 0.0
        for start, stop in itertools.pairwise(edges):
            part, weight = values[start:stop], counts[start:stop]
            total += float(weight @ (part - np.average(part, weights=weight)) ** 2)
        best = min(best, total)
    return best


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(-1000, 1000), st.integers(1, 50), min_size=1, max_size=10), st.integers(1, 6)
)
def test_as_good_as_every_division(counted, clusters):
    values = np.array(sorted(counted), np.float64) / 16
    counts = np.array([counted[one] for one in sorted(counted)], np.float64)
    centres = kmeans(Histogram(values, counts), clusters)
    assert len(centres) == min(clusters, len(values))
    total = float(counts @ np.abs(np.subtract.outer(values, centres)).min(axis=1) ** 2)
    assert total == pytest.approx(best_of_all(values, counts, clusters), rel=1e-9, abs=1e-9)


DRAWN = {
    "normal": RNG.standard_normal(20_000) / 50,
    "heavy tails": RNG.standard_t(3, 20_000) / 50,
    "uniform": RNG.uniform(-0.1, 0.1, 20_000),
    "few values": RNG.integers(0, 300, 20_000) / 64,
    "one side": RNG.exponential(size=20_000),
}


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("drawn", DRAWN)
def test_as_good_as_kmeans1d(drawn, bits):
    pytest.importorskip("coremltools")
    from coremltools._deps import kmeans1d

    histogram = Histogram.of(DRAWN[drawn].astype(np.float16))
    values, counts = histogram.values, histogram.counts
    expected = np.array(kmeans1d.cluster(values, 2**bits, weights=counts).centroids)
    ours, theirs = (
        float(counts @ np.abs(np.subtract.outer(values, one)).min(axis=1) ** 2)
        for one in (kmeans(histogram, 2**bits), expected)
    )
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def test_a_histogram_counts_every_element():
    elements = np.array([[0.5, -0.0, 0.0], [-2, 0.5, 0.5]], np.float16)
    histogram = Histogram.of(elements)
    assert histogram.values.tolist() == [-2, 0, 0.5]
    assert histogram.counts.tolist() == [1, 2, 3]


def test_many_values_of_fp32_are_merged_and_no_worse_for_it():
    elements = RNG.standard_normal(200_000).astype(np.float32)
    histogram = Histogram.of(elements)
    assert len(histogram.values) <= 1 << 16
    assert histogram.counts.sum() == elements.size
    assert histogram.counts @ histogram.values == pytest.approx(elements.sum(dtype=np.float64), abs=1e-6)
    halves = kmeans(Histogram.of(elements.astype(np.float16)), 16)
    assert squared_error(elements, kmeans(histogram, 16)) <= squared_error(elements, halves)


@pytest.mark.parametrize("size", [100, 70_001])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_nearest_entry(size, dtype):
    elements = RNG.standard_normal(size).astype(dtype)
    table = np.sort(RNG.standard_normal(64)).astype(dtype)
    distances = np.abs(np.subtract.outer(elements.astype(np.float64), table.astype(np.float64)))
    chosen = nearest_entries(elements, table)
    np.testing.assert_array_equal(distances[np.arange(size), chosen], distances.min(axis=1))


def test_vectors_of_a_few_kinds_are_found():
    kinds = RNG.standard_normal((16, 4)).astype(np.float32) * 8
    points = kinds[RNG.integers(0, 16, 20_000)] + RNG.standard_normal((20_000, 4)).astype(np.float32) / 100
    centres = kmeans_vectors(points, 16)
    labels, total = nearest(points, centres)
    assert total == pytest.approx(((points - centres[labels]) ** 2).sum(), rel=1e-2)
    assert total < 20_000 * 4 / 100**2 * 1.1


def test_vectors_are_better_than_numbers_of_as_many_bits():
    points = (RNG.standard_normal((30_000, 1)) + RNG.standard_normal((30_000, 2)) / 5).astype(np.float16)
    numbers = squared_error(points.reshape(-1), kmeans(Histogram.of(points), 4))
    assert nearest(points.astype(np.float32), kmeans_vectors(points, 16))[1] < 0.7 * numbers


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-2000, 2000), st.integers(1, 50)), min_size=3, max_size=300),
    st.integers(2, 40),
)
def test_penalties_lead_to_what_layers_find(pairs, clusters):
    counted = {}
    for value, count in pairs:
        counted[value] = counted.get(value, 0) + count
    values = np.array(sorted(counted), np.float64) / 1000
    histogram = clustering.Histogram(values, np.array([counted[one] for one in sorted(counted)], np.float64))
    if len(values) <= clusters:
        return
    sums = clustering._Sums.of(histogram)
    known = clustering._good_cost(histogram, sums, clusters)
    layers = clustering._by_layers(sums, clusters, known)
    edges = clustering._by_penalty(sums, clusters, known)
    if edges is not None:
        assert len(edges) == len(layers) == clusters + 1
        assert sums.cost(edges) == pytest.approx(sums.cost(layers), rel=1e-9, abs=1e-9)


def test_penalties_suffice_for_what_weights_are_like():
    values = np.random.default_rng(0).standard_t(6, 10**6).astype(np.float16) / np.float16(50)
    histogram = clustering.Histogram.of(values)
    sums = clustering._Sums.of(histogram)
    for clusters in (2, 4, 8, 16, 64, 256):
        edges = clustering._by_penalty(sums, clusters, clustering._good_cost(histogram, sums, clusters))
        assert edges is not None
        assert len(edges) == clusters + 1


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("more", [0, 1, 7])
def test_many_integers_are_packed_as_few(bits, more):
    values = RNG.integers(-128, 128, (1 << 16) + more).astype(np.int8)
    assert np.array_equal(packing.pack(values, bits), constexpr.pack(values, bits))


@pytest.mark.parametrize("word", [0x7C00, 0xFC00, 0x7E01, 0xFFFF])
def test_one_number_that_is_not_finite_is_found(word):
    words = np.arange(1 << 16, dtype=np.uint16)
    finite = words[(words & 0x7C00) != 0x7C00]
    assert _loops.are_finite(finite)
    assert not _loops.are_finite(np.append(finite, np.uint16(word)))

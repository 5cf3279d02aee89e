"""Noise of weights that are compressed alone: by one process, by several, and by any backend of joblib's."""

import sys

import numpy as np
import pytest
from networks import ENGINE, const, layer, normal, program
from sd_compress import (
    CompressionError,
    Keep,
    Palettize,
    Recipe,
    compress,
    measured_sensitivities,
    signal_to_noise,
)
from sd_mil import Description, Port, read_package, write_package

SCHEMES = [Palettize(2), Palettize(4)]
INPUTS = [{"x": normal(5, 24)} for _ in range(2)]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The second layer sees little of the first, whose errors count less."""
    made = program(
        (5, 24),
        const("first", normal(32, 24)),
        const("second", normal(8, 32)),
        layer("linear", "a", (5, 32), {"x": "x", "weight": "first"}),
        layer("linear", "y", (5, 8), {"x": "a", "weight": "second"}),
        output="y",
    )
    path = tmp_path_factory.mktemp("measured") / "two.mlpackage"
    ports = Port("x", (5, 24), "float32"), Port("y", (5, 8), "float32")
    write_package(path, made, Description((ports[0],), (ports[1],)))
    return path


def sensitivities(package, **options):
    given = {"schemes": SCHEMES, "engine": ENGINE, **options}
    return measured_sensitivities(package, ["second", "first"], INPUTS, **given)


def test_each_is_the_noise_of_the_network_with_that_weight_alone(package):
    whole, told = read_package(package).program, []
    found = sensitivities(package, progress=lambda done, total: told.append((done, total)))
    assert [one.weight for one in found] == ["second", "first"]
    assert told == [(1, 2), (2, 2)]
    for one in found:
        assert one.candidates[0].scheme == Keep()
        assert one.candidates[0].noise == 0
        assert one.candidates[0].stored_bytes == one.elements * 4
        for candidate in one.candidates[1:]:
            made = compress(whole, Recipe({one.weight: candidate.scheme})).program
            assert candidate.snr == pytest.approx(signal_to_noise(whole, made, INPUTS, ENGINE), abs=1e-6)
        two, four = one.candidates[1:]
        assert two.noise > 4 * four.noise > 0
        assert two.stored_bytes < four.stored_bytes < one.candidates[0].stored_bytes


def test_processes_find_the_same(package):
    pytest.importorskip("joblib")
    assert sensitivities(package, jobs=2) == sensitivities(package)


def test_the_backend_is_joblib_s(package):
    joblib = pytest.importorskip("joblib")
    alone, started = sensitivities(package), []

    class Backend(joblib.parallel.SequentialBackend):
        def configure(self, n_jobs=1, parallel=None, **rest):
            started.append(n_jobs)
            return super().configure(n_jobs, parallel, **rest)

    joblib.register_parallel_backend("ours", Backend)
    with joblib.parallel_config(backend="ours", n_jobs=3):
        assert sensitivities(package) == alone
    assert started == [3]


def test_a_scheme_that_does_not_suit_is_left_out(package):
    (found,) = measured_sensitivities(package, ["second"], INPUTS, schemes=[Palettize(8)], engine=ENGINE)
    assert [one.scheme for one in found.candidates] == [Keep()]  # its table would take more than the weight


def test_what_is_refused(package, monkeypatch):
    with pytest.raises(CompressionError, match="expected weights of the program, got third"):
        measured_sensitivities(package, ["first", "third"], INPUTS, engine=ENGINE)
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(CompressionError, match=r"joblib for 2 jobs.*sd-compress\[parallel\]"):
        sensitivities(package, jobs=2)
    assert len(sensitivities(package)) == 2
    assert np.isfinite([one.noise for found in sensitivities(package) for one in found.candidates]).all()

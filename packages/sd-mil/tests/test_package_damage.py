"""Whatever happens to the bytes, the answer is a typed error or a package, at once."""

import mil_graphs as graphs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_mil import MLModel, SdMilError, read_package


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = graphs.write(tmp_path_factory.mktemp("good"))
    return path, graphs.model_file(path).read_bytes(), graphs.weight_file(path).read_bytes()


@pytest.fixture(scope="module")
def opens(at_most):
    """Whether it reads and compiles; any other outcome than a typed error fails the test, and much work."""

    def whether(path):
        try:
            with at_most(200_000):
                MLModel(path, engine="reference")
        except SdMilError:
            return False
        return True

    return whether


def test_every_truncation_of_the_model_is_refused(good, opens):
    path, model, _ = good
    for size in range(len(model)):
        graphs.model_file(path).write_bytes(model[:size])
        assert not opens(path), size
    graphs.model_file(path).write_bytes(model)
    assert opens(path)


def test_every_truncation_of_the_weights_is_refused(good, opens):
    path, _, weights = good
    needed = 64 + 64 + 6  # header, record, three halves
    for size in range(len(weights)):
        graphs.weight_file(path).write_bytes(weights[:size])
        assert opens(path) == (size >= needed), size
    graphs.weight_file(path).write_bytes(weights)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_flipped_bits_never_escape(good, opens, data):
    path, model, weights = good
    for file, content in ((graphs.model_file(path), model), (graphs.weight_file(path), weights)):
        damaged = bytearray(content)
        for position in data.draw(st.lists(st.integers(0, len(content) * 8 - 1), max_size=3)):
            damaged[position // 8] ^= 1 << position % 8
        file.write_bytes(damaged)
    try:
        opens(path)
    finally:
        graphs.model_file(path).write_bytes(model)
        graphs.weight_file(path).write_bytes(weights)


@settings(max_examples=200, deadline=None)
@given(junk=st.binary(max_size=200))
def test_junk_is_refused(good, junk):
    path, model, _ = good
    graphs.model_file(path).write_bytes(junk)
    try:
        with pytest.raises(SdMilError):
            read_package(path)
    finally:
        graphs.model_file(path).write_bytes(model)

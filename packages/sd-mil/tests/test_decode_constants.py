"""Decoding as a pass: the program means the same before and after, from the cache or not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_graphs import call, const, program, tensor

pytest.importorskip("openvino")

from sd_mil import Operation, PackageError
from sd_mil.cache import Cache
from sd_mil.engines.portable import compile_program
from sd_mil.engines.reference import compile_program as compile_reference
from sd_mil.rewriting import decode_constants, decoding

RNG = np.random.default_rng(11)
X = ("fp16", 2, 3)


def palette(name, *, scale=1.0):
    lut = tensor((np.arange(4) * scale).astype(np.float16))
    packed = tensor(np.array([0b11_10_01_00, 0b0001], np.uint8))
    attributes = {"indices": packed, "lut": lut, "shape": tensor(np.array([2, 3], np.uint32))}
    made = call("constexpr_lut_to_dense", name, X)
    return Operation(made.type, name, {}, made.outputs, attributes)


def chained(name):
    """A palette of int8 entries with a scale: the lut is itself decoded."""
    lut = np.arange(-8, 8, dtype=np.int8).reshape(1, 1, 16, 1)
    indices = tensor(RNG.integers(0, 256, 3, np.uint8), dtype="uint4")
    indices = type(indices)(type(indices.type)("uint4", (2, 3)), indices.value)
    scales = tensor(np.full((1, 1, 1, 1), 0.5, np.float16))
    return [
        call(
            "constexpr_blockwise_shift_scale",
            f"{name}_lut",
            ("fp16", 1, 1, 16, 1),
            data=tensor(lut),
            scale=scales,
        ),
        call("constexpr_lut_to_dense", name, X, indices=indices, lut=f"{name}_lut"),
    ]


def network(*compressed):
    terms = [one.name for one in compressed if not one.name.endswith("_lut")]
    sums = [call("add", f"s{i}", X, x=f"s{i - 1}" if i else "x", y=term) for i, term in enumerate(terms)]
    return program({"x": X}, [*compressed, *sums], [sums[-1].outputs[0].name])


@pytest.fixture
def stored(monkeypatch):
    monkeypatch.setattr(decoding, "_WORTH_STORING", 0)


@given(scale=st.floats(0.125, 8), many=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_the_reference_engine_computes_the_same(scale, many):
    made = network(*(palette(f"w{i}", scale=scale * (i + 1)) for i in range(many)))
    after = decode_constants(made)
    assert not any(one.type.startswith("constexpr_") for one in after.main.body.operations)
    x = {"x": RNG.standard_normal((2, 3)).astype(np.float16)}
    for name, value in compile_reference(made).run(x).items():
        np.testing.assert_array_equal(compile_reference(after).run(x)[name], value)


def test_chains_are_followed_and_left_out():
    made = network(palette("a"), *chained("w"))
    after = decode_constants(made)
    assert [one.name for one in after.main.body.operations if one.type == "const"] == ["a", "w"]
    x = {"x": np.zeros((2, 3), np.float16)}
    np.testing.assert_array_equal(
        list(compile_reference(after).run(x).values()), list(compile_reference(made).run(x).values())
    )


def test_a_program_without_compression_is_untouched():
    made = program(
        {"x": X}, [const("w", np.ones((2, 3), np.float16)), call("add", "y", X, x="x", y="w")], ["y"]
    )
    assert decode_constants(made) is made


def test_a_decoded_value_that_the_program_returns(stored, tmp_path):
    made = program({"x": X}, [palette("w"), call("relu", "y", X, x="x")], ["w", "y"])
    result = compile_program(made).run({"x": np.zeros((2, 3), np.float16)})
    np.testing.assert_array_equal(result["w"], [[0, 1, 2], [3, 1, 0]])


def test_the_second_time_nothing_is_decoded(stored, tmp_path, monkeypatch):
    cache = Cache(tmp_path, 1 << 20)
    first = decode_constants(network(palette("w")), cache)
    assert len(cache.entries()) == 1
    monkeypatch.setattr(decoding, "_decode", lambda *_: pytest.fail("decoded again"))
    second = decode_constants(network(palette("w")), cache)
    for made in (first, second):
        (weight,) = (one for one in made.main.body.operations if one.type == "const")
        np.testing.assert_array_equal(weight.attributes["val"].value, [[0, 1, 2], [3, 1, 0]])


def test_other_content_is_another_entry(stored, tmp_path):
    cache = Cache(tmp_path, 1 << 20)
    for scale in (1, 2, 4):
        decode_constants(network(palette("w", scale=scale)), cache)
    decode_constants(network(palette("w"), *chained("v")), cache)
    assert len(cache.entries()) == 4


def test_a_damaged_entry_is_decoded_again(stored, tmp_path):
    cache = Cache(tmp_path, 1 << 20)
    decode_constants(network(palette("w")), cache)
    (path,) = cache.entries()
    content = bytearray(path.read_bytes())
    content[4096] ^= 1
    path.write_bytes(content)
    made = decode_constants(network(palette("w")), cache)
    (weight,) = (one for one in made.main.body.operations if one.type == "const")
    np.testing.assert_array_equal(weight.attributes["val"].value, [[0, 1, 2], [3, 1, 0]])
    assert len(cache.entries()) == 1


def test_arguments_that_do_not_fit_are_refused(stored, tmp_path):
    broken = palette("w")
    attributes = {**broken.attributes, "indices": tensor(np.zeros(1, np.uint8))}
    with pytest.raises(PackageError):
        decode_constants(
            network(Operation(broken.type, "w", {}, broken.outputs, attributes)), Cache(tmp_path, 1 << 20)
        )
    assert list(tmp_path.iterdir()) == []

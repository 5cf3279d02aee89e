"""Decoders of compressed constants against coremltools' own, bit for bit."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_mil import Constant, Operation, PackageError, Reference, TensorType, Variable
from sd_mil.constexpr import decode
from sd_mil.constexpr.packing import look_up, pack, unpack

pytest.importorskip("coremltools")
from coremltools.converters.mil.mil.ops.defs.iOS16 import constexpr_ops as ios16
from coremltools.converters.mil.mil.ops.defs.iOS18 import compression as ios18

WIDTHS = (1, 2, 3, 4, 6, 8)
FLOATS = {"fp16": np.float16, "fp32": np.float32}
BYTES = {"int4": (-8, 7), "uint4": (0, 15), "int8": (-128, 127), "uint8": (0, 255)}


def constant(array, dtype=None):
    """A constant as a reader gives it: sub-byte types packed."""
    names = {np.dtype(kind): name for name, kind in FLOATS.items()} | {
        np.dtype(np.int32): "int32",
        np.dtype(np.uint32): "uint32",
        np.dtype(np.int8): "int8",
        np.dtype(np.uint8): "uint8",
    }
    array = np.asarray(array)
    kind = TensorType(dtype or names[array.dtype], array.shape)
    bits = int(kind.dtype.removeprefix("u").removeprefix("int")) if "int" in kind.dtype else 32
    return Constant(kind, pack(array, bits) if bits < 8 else array)


def decoded(kind, outputs, **parameters):
    """What our decoder makes of the operation: an array per output, sub-byte types unpacked."""
    operation = Operation(
        kind,
        "under_test",
        {name: (one,) for name, one in parameters.items() if one is not None},
        tuple(Variable(f"out{i}", TensorType(*declared)) for i, declared in enumerate(outputs)),
    )
    results = decode(operation, lambda argument: argument)
    return [
        unpack(one.value, 1, math.prod(one.type.shape)).reshape(one.type.shape)
        if one.type.dtype == "uint1"
        else one.value
        for one in results.values()
    ]


def same_bits(got, expected):
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


@st.composite
def blocks(draw, rank=4, largest=3):
    """Counts of blocks and their sizes, per axis."""
    axes = draw(st.integers(1, rank))
    counts = [draw(st.integers(1, largest)) for _ in range(axes)]
    return counts, [draw(st.integers(1, largest)) for _ in range(axes)]


def numbers(rng, shape, dtype):
    return (rng.standard_normal(shape) * rng.choice([1e-3, 1, 300])).astype(FLOATS[dtype])


seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)
floats = st.sampled_from(sorted(FLOATS))


@given(rng=seeds, bits=st.sampled_from(WIDTHS), count=st.integers(0, 300))
def test_packing(rng, bits, count):
    values = rng.integers(0, 1 << bits, count).astype(np.uint8)
    expected = "".join(format(value, f"0{bits}b")[::-1] for value in values)
    packed = pack(values, bits)
    assert "".join(format(byte, "08b")[::-1] for byte in packed)[: count * bits] == expected
    assert unpack(packed, bits, count).tolist() == values.tolist()


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
def test_look_up_of_many(bits, dtype):
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 1 << bits, 300_001)
    table = rng.integers(-100, 100, 1 << bits).astype(dtype)
    same_bits(look_up(pack(values, bits), bits, values.size, table), table[values])


@given(
    rng=seeds,
    dtype=floats,
    scalar=st.booleans(),
    signed=st.booleans(),
    float_zero=st.booleans(),
    data=st.data(),
)
def test_affine(rng, dtype, scalar, signed, float_zero, data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    kind = np.int8 if signed else np.uint8
    info = np.iinfo(kind)
    size = () if scalar else (shape[axis],)
    quantized = rng.integers(info.min, info.max + 1, shape).astype(kind)
    zero = rng.integers(info.min, info.max + 1, size).astype(np.float32 if float_zero else kind)
    scale = numbers(rng, size, dtype)
    got = decoded(
        "constexpr_affine_dequantize",
        [(dtype, tuple(shape))],
        quantized_data=constant(quantized),
        zero_point=constant(zero),
        scale=constant(scale),
        axis=constant(np.int32(axis)),
    )
    with np.errstate(all="ignore"):
        same_bits(got[0], ios16.constexpr_affine_dequantize.decompress(quantized, zero, scale, axis))


@given(
    rng=seeds,
    bits=st.sampled_from([1, 2, 4, 6, 8]),
    kind=st.sampled_from([np.float16, np.float32, np.int8]),
    data=st.data(),
)
def test_one_table(rng, bits, kind, data):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    indices = rng.integers(0, 1 << bits, math.prod(shape)).astype(np.uint8)
    lut = (rng.standard_normal(1 << bits) * 50).astype(kind)
    packed = pack(indices, bits)
    dtype = {np.float16: "fp16", np.float32: "fp32", np.int8: "int8"}[kind]
    got = decoded(
        "constexpr_lut_to_dense",
        [(dtype, tuple(shape))],
        indices=constant(packed),
        lut=constant(lut),
        shape=constant(np.array(shape, np.uint32)),
    )
    same_bits(got[0], ios16.constexpr_lut_to_dense.decompress(lut, packed, np.array(shape)))


@given(rng=seeds, dtype=floats, data=st.data())
def test_packed_mask(rng, dtype, data):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    bits = rng.integers(0, 2, math.prod(shape)).astype(np.uint8)
    nonzero = numbers(rng, int(bits.sum()), dtype)
    got = decoded(
        "constexpr_sparse_to_dense",
        [(dtype, tuple(shape))],
        nonzero_data=constant(nonzero),
        mask=constant(pack(bits, 1)),
        shape=constant(np.array(shape, np.uint32)),
    )
    same_bits(got[0], ios16.constexpr_sparse_to_dense.decompress(nonzero, pack(bits, 1), np.array(shape)))


def quantized(rng, kind, shape):
    if kind in FLOATS:
        return numbers(rng, shape, kind)
    low, high = BYTES[kind]
    return rng.integers(low, high + 1, shape).astype(np.int8 if kind.startswith("int") else np.uint8)


kinds = st.sampled_from([*BYTES, *FLOATS])


@settings(max_examples=300)
@given(rng=seeds, dtype=floats, kind=kinds, offset_kind=st.none() | kinds, shape=blocks())
def test_blockwise(rng, dtype, kind, offset_kind, shape):
    counts, sizes = shape
    full = tuple(count * size for count, size in zip(counts, sizes, strict=True))
    data, scale = quantized(rng, kind, full), numbers(rng, counts, dtype)
    offset = None if offset_kind is None else quantized(rng, offset_kind, counts)
    got = decoded(
        "constexpr_blockwise_shift_scale",
        [(dtype, full)],
        data=constant(data, kind),
        scale=constant(scale),
        offset=None if offset is None else constant(offset, offset_kind),
    )
    with np.errstate(all="ignore"):
        expected = ios18.constexpr_blockwise_shift_scale.decompress(data, scale, offset)
        same_bits(got[0], expected.astype(FLOATS[dtype]))


@settings(max_examples=300)
@given(
    rng=seeds,
    bits=st.sampled_from(WIDTHS),
    kind=st.sampled_from(["fp16", "fp32", "int8"]),
    shape=blocks(),
    data=st.data(),
)
def test_tables_per_block(rng, bits, kind, shape, data):
    counts, sizes = shape
    full = [count * size for count, size in zip(counts, sizes, strict=True)]
    vector = data.draw(st.sampled_from([1, 2, 3]))
    axis = data.draw(st.integers(-len(full), len(full) - 1))
    lut = (rng.standard_normal((*counts, 1 << bits, vector)) * 40).astype({**FLOATS, "int8": np.int8}[kind])
    indices = rng.integers(0, 1 << bits, full).astype(np.uint8)
    target = list(full)
    target[axis] *= vector
    got = decoded(
        "constexpr_lut_to_dense",
        [(kind, tuple(target))],
        indices=constant(indices, f"uint{bits}"),
        lut=constant(lut),
        vector_axis=constant(np.int32(axis)) if vector > 1 else None,
    )
    same_bits(got[0], ios18.constexpr_lut_to_dense.decompress(indices, lut, axis))


@given(rng=seeds, dtype=floats, kind=kinds, offset_kind=st.none() | kinds, shape=blocks())
def test_sparse_blockwise(rng, dtype, kind, offset_kind, shape):
    counts, sizes = shape
    mask = rng.integers(0, 2, [count * size for count, size in zip(counts, sizes, strict=True)]).astype(
        np.uint8
    )
    data, scale = quantized(rng, kind, int(mask.sum())), numbers(rng, counts, dtype)
    offset = None if offset_kind is None else quantized(rng, offset_kind, counts)
    got = decoded(
        "constexpr_sparse_blockwise_shift_scale",
        [("uint1", mask.shape), (dtype, data.shape)],
        data_mask=constant(mask, "uint1"),
        nonzero_data=constant(data, kind),
        scale=constant(scale),
        offset=None if offset is None else constant(offset, offset_kind),
    )
    with np.errstate(all="ignore"):
        expected = ios18.constexpr_sparse_blockwise_shift_scale.decompress(mask, data, scale, offset)
        same_bits(got[0], expected[0])
        same_bits(got[1], expected[1].astype(FLOATS[dtype]))


@given(rng=seeds, bits=st.sampled_from(WIDTHS), kind=floats, shape=blocks(rank=3), data=st.data())
def test_sparse_tables(rng, bits, kind, shape, data):
    counts, sizes = shape
    full = [count * size for count, size in zip(counts, sizes, strict=True)]
    vector = data.draw(st.sampled_from([1, 2]))
    axis = data.draw(st.integers(0, len(full) - 1)) if vector > 1 else None
    mask = rng.integers(0, 2, full).astype(np.uint8)
    indices = rng.integers(0, 1 << bits, int(mask.sum())).astype(np.uint8)
    lut = numbers(rng, (*counts, 1 << bits, vector), kind)
    target = [size * (vector if own == axis else 1) for own, size in enumerate(full)]
    got = decoded(
        "constexpr_lut_to_sparse",
        [("uint1", tuple(target)), (kind, (indices.size * vector,))],
        indices_mask=constant(mask, "uint1"),
        indices_nonzero_data=constant(indices, f"uint{bits}"),
        lut=constant(lut),
        vector_axis=None if axis is None else constant(np.int32(axis)),
    )
    expected = ios18.constexpr_lut_to_sparse.decompress(mask, indices, lut, axis)
    for ours, theirs in zip(got, expected, strict=True):
        same_bits(ours, theirs)


def test_cast():
    values = np.float16([1, -0.5, np.inf, 6e-8])
    got = decoded(
        "constexpr_cast",
        [("fp32", (4,))],
        source_val=constant(values),
        output_dtype=Constant(TensorType("string", ()), "fp32"),
    )
    same_bits(got[0], values.astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "bits", "expected"),
    [
        ("fp8e4m3fn", [0x38, 0xC0, 0x7E, 0x01], [1, -2, 448, 2**-9]),
        ("fp8e5m2", [0x3C, 0xC0, 0x7B, 0x01], [1, -2, 57344, 2**-16]),
    ],
)
def test_blockwise_of_narrow_floats(dtype, bits, expected):
    data = Constant(TensorType(dtype, (4,)), np.array(bits, np.uint8))
    got = decoded(
        "constexpr_blockwise_shift_scale", [("fp32", (4,))], data=data, scale=constant(np.float32([0.5]))
    )
    assert got[0].tolist() == [value / 2 for value in expected]


@pytest.mark.parametrize(
    "parameters",
    [
        {"indices": constant(np.zeros(3, np.uint8)), "shape": constant(np.uint32([100_000, 100_000]))},
        {"indices": constant(np.zeros(3, np.uint8)), "shape": constant(np.uint32([4]))},
        {
            "indices": constant(np.zeros((4, 2), np.uint8)),
            "lut": constant(np.zeros((3, 1, 256, 1), np.float16)),
        },
        {
            "indices": constant(np.full((4, 2), 9, np.uint8)),
            "lut": constant(np.zeros((1, 1, 8, 1), np.float16)),
        },
        {"indices": constant(np.zeros(4, np.uint8)), "lut": constant(np.zeros((1, 256, 4), np.float16))},
        {
            "indices": constant(np.zeros(4, np.uint8)),
            "lut": constant(np.zeros((1, 256, 4096), np.float16)),
            "vector_axis": constant(np.int32(0)),
        },
        {
            "indices": constant(np.zeros(4, np.uint8)),
            "lut": constant(np.zeros((1, 256, 4), np.float16)),
            "vector_axis": constant(np.int32(3)),
        },
    ],
)
def test_sizes_that_contradict_each_other_are_refused(parameters):
    given_lut = {"lut": constant(np.zeros(16, np.float16))}
    with pytest.raises(PackageError, match="constexpr_lut_to_dense"):
        decoded("constexpr_lut_to_dense", [("fp16", (4,))], **given_lut | parameters)


def test_computed_arguments_are_refused():
    operation = Operation(
        "constexpr_cast", "c", {"source_val": (Reference("x"),)}, (Variable("y", TensorType("fp32", (1,))),)
    )
    with pytest.raises(PackageError, match="constants only"):
        decode(operation, lambda _: None)


def test_a_codec_from_outside(monkeypatch):
    from sd_mil import Block, Function, Program
    from sd_mil.constexpr import CODECS, codec
    from sd_mil.engines import OpenVINO
    from sd_mil.engines import Reference as ReferenceEngine

    with pytest.raises(ValueError, match="expected a new name that begins with constexpr_"):
        codec("constexpr_lut_to_dense")
    monkeypatch.setitem(CODECS, "constexpr_negated", None)  # taken away afterwards
    del CODECS["constexpr_negated"]

    @codec("constexpr_negated")
    def constexpr_negated(data):
        return -data

    kind = TensorType("fp32", (3,))
    stored = Operation(
        "constexpr_negated",
        "w",
        {"data": (Constant(kind, np.float32([1, 2, 3])),)},
        (Variable("w", kind),),
    )
    total = Operation("add", "y", {"x": (Reference("x"),), "y": (Reference("w"),)}, (Variable("y", kind),))
    body = Block((Variable("x", kind),), (stored, total), ("y",))
    made = Program({"main": Function("main", "CoreML6", body)})
    for engine in (ReferenceEngine(), OpenVINO()):
        got = engine.compile(made).run({"x": np.full(3, 10, np.float32)})["y"]
        np.testing.assert_array_equal(got, [9, 8, 7])

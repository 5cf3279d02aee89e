"""A package compiled here: what Core ML's own compiler makes of it, and the same program when read back."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import mil_graphs as graphs
import numpy as np
import pytest
from compiled_models import check_same, compiled, metadata
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sd_mil import (
    Block,
    Constant,
    Description,
    EnumeratedShapes,
    Function,
    ListType,
    Operation,
    PackageError,
    Port,
    Program,
    Reference,
    SdMilError,
    ShapeRange,
    StateType,
    TensorType,
    UnsupportedModelError,
    Variable,
    compile_model,
    read_package,
    write_package,
)
from sd_mil.format.compiling.names import histogram_name
from sd_mil.ir.dtypes import SUB_BYTE_BITS, stored_dtype
from sd_mil.ir.narrow import widened

PAIRS = Path(__file__).resolve().parents[4] / "shared" / "coremlc" / "pairs"
#: What the compiler of the pairs at hand says of itself.
BUILD_INFO = {"coremlc-component-MIL": "3500.14.1", "coremlc-version": "3500.32.1"}
TEXT = TensorType("string", ())
#: The bits of -1.5.
ONE_AND_A_HALF = {"bf16": 0xBFC0, "fp8e4m3fn": 0xBC, "fp8e5m2": 0xBE}


@pytest.mark.parametrize("name", ["silero-vad-unified-v6.0.0", "unified_palette_4bit"])
def test_the_same_as_core_mls_own_compiler(name, tmp_path):
    if not PAIRS.is_dir():
        pytest.skip("compiled models of Core ML's compiler are not on this machine")
    theirs = PAIRS / f"{name}.mlmodelc"
    made = compile_model(PAIRS / f"{name}.mlpackage", tmp_path / theirs.name, build_info=BUILD_INFO).path
    files = sorted(path.relative_to(theirs) for path in theirs.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    for file in files:
        ours, expected = (made / file).read_bytes(), (theirs / file).read_bytes()
        if file.name == "metadata.json":
            assert json.loads(ours) == json.loads(expected)
        elif file == Path("coremldata.bin"):
            check_same_data(ours, expected)
            assert read_package(made).description == read_package(theirs).description
        else:
            assert ours == expected, file


def check_same_data(ours, theirs):
    """All but the description byte for byte; that has a map, whose entries have no order."""
    start = 0x53
    length = int.from_bytes(theirs[start - 8 : start], "little")
    assert (ours[:start], ours[start + length :]) == (theirs[:start], theirs[start + length :])
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize(
    "name",
    [
        "split_einsum/Stable_Diffusion_version_tiny-sd_text_encoder",
        "split_einsum/Stable_Diffusion_version_tiny-sd_vae_encoder",
        "split_einsum/Stable_Diffusion_version_tiny-sd_safety_checker",
        "split_einsum_v2/Stable_Diffusion_version_tiny-sd_unet",
        "original/Stable_Diffusion_version_tiny-sd_unet",
        "controlnet/ControlNet_tiny-controlnet",
    ],
)
def test_reference_packages_come_back(reference_packages, name, tmp_path):
    made = check_same(reference_packages / f"{name}.mlpackage", tmp_path)
    has_einsum = "Ios16.einsum" in metadata(made)["mlProgramOperationTypeHistogram"]
    assert has_einsum == (name.endswith(("unet", "controlnet")) and not name.startswith("original"))


def test_files_are_as_the_compiler_lays_them_out(tmp_path):
    package = graphs.write(tmp_path, graphs.affine(), graphs.description(graphs.affine()))
    made = compiled(package, tmp_path, build_info={"coremlc-version": "1"})
    (model,) = package.glob("Data/*/model.mlmodel")
    digest = base64.b64encode(hashlib.sha256(model.read_bytes()).digest())
    assert digest in (made / "analytics" / "coremldata.bin").read_bytes()
    (weights,) = package.glob("Data/*/weights/weight.bin")
    assert (made / "weights" / "weight.bin").read_bytes() == weights.read_bytes()
    lines = (made / "model.mil").read_text().split("\n")
    assert lines[:4] == [
        "program(1.0)",
        '[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{"coremlc-version", "1"}})]',
        "{",
        "    func main<ios16>(tensor<fp16, [2, 3]> x) {",
    ]
    assert all(line.startswith(" " * 12 + "tensor<") for line in lines[4:-2])
    assert lines[-2].startswith(" " * 8 + "} -> (")
    assert (made / "coremldata.bin").read_bytes()[:4] == (502).to_bytes(4, "little")


def stateless(kind, opset="CoreML6"):
    """y = relu(x) with a port of some kind."""
    made = graphs.program({"x": ("fp32", *kind)}, [graphs.call("relu", "y", ("fp32", *kind), x="x")], ("y",))
    return Program({"main": replace(made.main, opset=opset)})


def test_flexible_shapes_are_said_in_three_places(tmp_path):
    made = stateless((1, None))
    ports = (
        Port("x", (1, 4), "float32", flexibility=ShapeRange(((1, 1), (2, None)))),
        Port("y", (), "float32"),
    )
    package = write_package(
        tmp_path / "a.mlpackage", made, Description((ports[0],), (replace(ports[1], shape=(1, None)),))
    ).path
    out = check_same(package, tmp_path)
    said = metadata(out)["inputSchema"][0]
    assert said["shapeRange"] == "[[1, 1], [2, -1]]"
    assert said["shapeFlexibility"] == "1 × 2..."
    assert said["hasShapeFlexibility"] == "1"
    text = (out / "model.mil").read_text()
    assert "[FlexibleShapeInformation = tuple<tuple<tensor<string, []>, dict<tensor<string, []>," in text
    assert '"DefaultShapes", {{"x", [1, 4]}}' in text
    assert '"RangeDims", {{"x", [[1, 1], [2, -1]]}}' in text


def test_enumerated_shapes(tmp_path):
    shapes = EnumeratedShapes(((1, 4), (1, 8)))
    described = Description(
        (Port("x", (1, 4), "float32", flexibility=shapes),), (Port("y", (1, None), "float32"),)
    )
    package = write_package(tmp_path / "a.mlpackage", stateless((1, None)), described).path
    said = metadata(check_same(package, tmp_path))["inputSchema"][0]
    assert said["enumeratedShapes"] == "[[1, 4], [1, 8]]"
    assert said["shapeFlexibility"] == "1 × 4 | 1 × 8"


def test_an_image_and_an_optional_array(tmp_path):
    made = graphs.program(
        {"x": ("fp32", 1, 3, 4, 6), "b": ("fp32", 1)},
        [graphs.call("add", "y", ("fp32", 1, 3, 4, 6), x="x", y="b")],
        ("y",),
    )
    image = Port("x", (1, 3, 4, 6), "float32", kind="image", color="BGR")
    bias = Port("b", (1,), "float32", optional=True, default=0.5)
    described = Description((image, bias), (Port("y", (1, 3, 4, 6), "float32"),))
    package = write_package(tmp_path / "a.mlpackage", made, described).path
    schema = {one["name"]: one for one in metadata(check_same(package, tmp_path))["inputSchema"]}
    assert schema["x"]["width"] == "6"
    assert schema["x"]["height"] == "4"
    assert schema["x"]["type"] == "Image"
    assert schema["b"]["isOptional"] == "1"


def stateful():
    kind = TensorType("fp16", (2,))
    read = Operation(
        "read_state", "now", {"input": (Reference("kv"),)}, (Variable("now", kind),), graphs.named("now")
    )
    both = graphs.call("add", "y", ("fp16", 2), x="x", y="now")
    body = Block((Variable("x", kind), Variable("kv", StateType(kind))), (read, both), ("y",))
    return Program({"main": Function("main", "CoreML8", body)})


def test_a_state(tmp_path):
    described = Description(
        (Port("x", (2,), "float16"),),
        (Port("y", (2,), "float16"),),
        states=(Port("kv", (2,), "float16", kind="state"),),
    )
    package = write_package(tmp_path / "a.mlpackage", stateful(), described, version=9).path
    out = check_same(package, tmp_path)
    assert metadata(out)["stateSchema"][0]["name"] == "kv"
    assert "state<tensor<fp16, [2]>> kv" in (out / "model.mil").read_text()


def test_several_functions(tmp_path):
    one, two = stateless((1, 4), "CoreML8").main, stateless((1, 8), "CoreML8").main
    made = Program(
        {"small": replace(one, name="small"), "large": replace(two, name="large")}, default_function="large"
    )
    described = {
        name: Description((Port("x", (1, n), "float32"),), (Port("y", (1, n), "float32"),))
        for name, n in (("small", 4), ("large", 8))
    }
    package = write_package(tmp_path / "a.mlpackage", made, described, version=9).path
    out = check_same(package, tmp_path)
    said = metadata(out)
    assert [one["name"] for one in said["functions"]] == ["small", "large"]
    assert (out / "coremldata.bin").read_bytes().endswith(((502).to_bytes(4, "little") + bytes(12)) * 2)


def test_nested_blocks(tmp_path):
    kind = TensorType("fp32", (2,))
    inner = Block((), (graphs.call("relu", "r", ("fp32", 2), x="x"),), ("r",))
    other = Block((), (graphs.call("abs", "a", ("fp32", 2), x="x"),), ("a",))
    cond = Operation(
        "cond",
        "y",
        {"pred": (Reference("p"),)},
        (Variable("y", kind),),
        graphs.named("y"),
        (inner, other),
    )
    made = graphs.program({"x": ("fp32", 2)}, [graphs.const("p", np.array(True)), cond], ("y",))
    package = write_package(tmp_path / "a.mlpackage", made, graphs.description(made)).path
    said = metadata(check_same(package, tmp_path))["mlProgramOperationTypeHistogram"]
    assert sum(said.values()) == 3  # cond and what is in it; constants are none


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("dtype", ["bf16", "fp8e4m3fn", "fp8e5m2"])
def test_floats_that_numpy_has_not(tmp_path, dtype, stored):
    """All but NaNs (of bf16 each 101st); what the text says of one that all know is what it is."""
    bits = np.arange(*((0, 1 << 16, 101) if dtype == "bf16" else (1 << 8,))).astype(stored_dtype(dtype))
    bits = bits[~np.isnan(widened(bits, dtype))]
    value = Constant(TensorType(dtype, bits.shape), bits, stored=bits.nbytes if stored else 0)
    one = Constant(TensorType(dtype, ()), np.array(ONE_AND_A_HALF[dtype], stored_dtype(dtype)))
    few = Operation("const", "few", {}, (Variable("few", value.type),), {**graphs.named("few"), "val": value})
    single = Operation("const", "one", {}, (Variable("one", one.type),), {**graphs.named("one"), "val": one})
    made = graphs.program(
        {"x": ("fp32", 2)}, [few, single, graphs.call("relu", "y", ("fp32", 2), x="x")], ("y",)
    )
    package = write_package(tmp_path / "a.mlpackage", made, graphs.description(made)).path
    text = (check_same(package, tmp_path) / "model.mil").read_text()
    assert f"val = tensor<{dtype}, []>(-0x1.8p+0)" in text
    assert ("BLOBFILE" in text) == stored
    for damaged in ("0x1.8001p+0", "0x1p+200"):
        (tmp_path / "made.mlmodelc" / "model.mil").write_text(text.replace("-0x1.8p+0", damaged))
        with pytest.raises(PackageError, match=f"which {dtype} has not"):
            read_package(tmp_path / "made.mlmodelc")


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("dtype", ["int4", "uint4", "uint1", "uint2", "uint3", "uint6"])
def test_numbers_of_less_than_a_byte(tmp_path, dtype, stored):
    bits = SUB_BYTE_BITS[dtype]
    packed = np.random.default_rng(bits).integers(0, 256, bits, np.uint8)  # eight numbers
    kind = TensorType(dtype, (2, 4))
    value = Constant(kind, packed, stored=packed.nbytes if stored else 0)
    few = Operation("const", "few", {}, (Variable("few", kind),), {**graphs.named("few"), "val": value})
    made = graphs.program({"x": ("fp32", 2)}, [few, graphs.call("relu", "y", ("fp32", 2), x="x")], ("y",))
    made = Program({"main": replace(made.main, opset="CoreML8")})
    package = write_package(tmp_path / "a.mlpackage", made, graphs.description(made), version=9).path
    check_same(package, tmp_path)


def floats(width):
    return st.floats(width=width, allow_nan=True, allow_infinity=True)


ARRAYS = st.one_of(
    st.tuples(st.just(np.float16), st.lists(floats(16), min_size=1, max_size=4)),
    st.tuples(st.just(np.float32), st.lists(floats(32), min_size=1, max_size=4)),
    st.tuples(st.just(np.float64), st.lists(floats(64), min_size=1, max_size=4)),
    st.tuples(st.just(np.int8), st.lists(st.integers(-128, 127), min_size=1, max_size=4)),
    st.tuples(st.just(np.int32), st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=1, max_size=4)),
    st.tuples(st.just(np.bool_), st.lists(st.booleans(), min_size=1, max_size=4)),
)
WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([(np.float16, [np.uint16(0x7C01).view(np.float16)])], "", [""], ("CoreML5", 6), False, {})
@given(
    arrays=st.lists(ARRAYS, max_size=4),
    word=WORDS,
    words=st.lists(WORDS, min_size=1, max_size=3),
    opset=st.sampled_from([("CoreML5", 6), ("CoreML6", 7), ("CoreML7", 8), ("CoreML8", 9)]),
    stored=st.booleans(),
    notes=st.dictionaries(WORDS.filter(bool), WORDS, max_size=3),
)
def test_what_is_compiled_comes_back(tmp_path, arrays, word, words, opset, stored, notes):
    constants = [
        graphs.const(f"c{i}", np.array(v, d), stored=stored and d is not np.bool_ and d is not np.float64)
        for i, (d, v) in enumerate(arrays)
    ]
    listed = Constant(ListType(TEXT, len(words)), tuple(words))
    constants += [
        graphs.const("word", word),
        Operation("const", "l", {}, (Variable("l", listed.type),), {**graphs.named("l"), "val": listed}),
    ]
    relu = graphs.call("relu", "y", ("fp32", 2), x="x")
    made = graphs.program({"x": ("fp32", 2)}, [*constants, relu], ("y",))
    made = Program({"main": replace(made.main, opset=opset[0])})
    described = replace(graphs.description(made), user_defined=notes, short_description=word)
    for old in tmp_path.iterdir():
        shutil.rmtree(old)
    package = write_package(tmp_path / "a.mlpackage", made, described, version=opset[1]).path
    out = check_same(package, tmp_path)
    assert metadata(out)["userDefinedMetadata"] == notes
    assert (out / "model.mil").read_text().startswith("program(1.3)" if opset[1] > 8 else "program(1.0)")


def test_nothing_is_left_of_what_could_not_be_compiled(tmp_path):
    package = graphs.write(tmp_path, graphs.affine(), graphs.description(graphs.affine()))
    (weights,) = package.glob("Data/*/weights/weight.bin")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(SdMilError, match=r"weight\.bin"):
        compiled(package, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [package.name]


def test_what_is_compiled_already_and_what_is_there_are_left_alone(tmp_path):
    package = graphs.write(tmp_path, graphs.affine(), graphs.description(graphs.affine()))
    made = compiled(package, tmp_path)
    with pytest.raises(UnsupportedModelError, match="compiled already"):
        compile_model(made, tmp_path / "again.mlmodelc")
    with pytest.raises(FileExistsError):
        compile_model(package, made)


def test_a_neural_network_is_called_by_its_name(tmp_path):
    file = tmp_path / "old.mlmodel"
    file.write_bytes(b"\x08\x01" + b"\xa2\x1f\x00")  # version 1, field 500: neuralNetwork
    with pytest.raises(UnsupportedModelError, match="a neural network"):
        compile_model(file, tmp_path / "out.mlmodelc")


@pytest.mark.parametrize(
    ("ios", "names"),
    [
        (
            16,
            "Ios16.softmax Ios16.matmul Ios16.conv Ios16.linear Ios16.reshape Transpose SliceByIndex Concat",
        ),
        (17, "Ios17.linear Ios17.add Ios17.transpose Ios17.reshape Ios17.layerNorm Ios17.sliceByIndex"),
        (17, "Ios17.expandDims Ios17.floorDiv Ios17.logicalNot Ios17.reduceArgmax Ios17.lstm Ios17.cast"),
        (17, "Ios16.silu Ios16.sigmoid Ios16.softmax Ios16.relu Ios16.gelu Select Pad Split Tile"),
        (18, "Ios18.concat Ios18.add Ios18.cast Ios18.scaledDotProductAttention Ios18.greaterEqual"),
        (18, "Ios18.layerNorm Ios18.gather Ios16.upsampleBilinear Select Tile"),
        (19, "Ios19.dequantize Ios18.matmul"),
    ],
)
def test_operations_are_named_as_in_public_models(ios, names):
    """Compute plans and metadata that were published of models of these systems; iOS 26 is 19 there."""
    for name in names.split():
        words = re.sub(r"(?<!^)(?=[A-Z])", "_", name.split(".")[-1]).lower()
        assert histogram_name(words, ios) == name

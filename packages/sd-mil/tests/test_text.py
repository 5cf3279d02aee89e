"""MIL's text: what compiled models hold, in both dialects, is the program that the protobuf holds."""

import shutil
from dataclasses import replace

import mil_graphs as graphs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_mil import (
    Constant,
    Description,
    ListType,
    MLModel,
    PackageError,
    Pipeline,
    Port,
    Program,
    Reference,
    SdMilError,
    StateType,
    TensorType,
    UnrankedType,
    UnsupportedModelError,
    Variable,
    print_program,
    read_model,
    read_package,
)
from sd_mil.format.blobs import WeightFiles
from sd_mil.format.description_writer import encode_description
from sd_mil.format.files import weight_locator
from sd_mil.format.text import parse_program

DIALECTS = ["1.0", "1.3"]
#: In the spacing that hand-written programs have: none, much, and across lines.
TERSE = """
program(1.3)[buildInfo=dict<string,string>({{"coremlc-version","3505.4.1"},{"x","a\\"]b"}})]{
func main<ios16>(
  tensor<fp16,[1,4]> x,state<tensor<fp16, [2]>> kv)[FlexibleShapeInformation =
    tuple<tuple<string, dict<string, tensor<int32, [?]>>>>((("DefaultShapes", {{"x", [1, 4]}})))] {
 string s=const()[name=string("s"),val=string("a\\"b\\\\n\\n")];
 fp16 h = const()[name = string("h"), val = fp16(-0x1.8p-1)]  ;
 tensor<fp16, [2,2]> m=const()[name=string("m"), val=tensor<fp16,[2,2]>([[0x1p+0, -inf],[nan, 1e-3]])];
 tensor<fp16, [2]> typed=const()[name=string("t"), val=tensor<fp16, [2]>([fp16(1.5), fp16(0x1p-1)])];
 tensor<bool, [3]> b=const()[name=string("b"), val=tensor<bool,[3]>([true,false,true])];
 tensor<uint4, [3]> q=const()[name=string("q"), val=tensor<uint4,[3]>([15, 0, 0x3])];
 tensor<int4, [3]> i=const()[name=string("i"), val=tensor<int4,[3]>([-8, 7, -1])];
 tensor<int32, [0]> none=const()[name=string("none"), val=tensor<int32,[0]>([])];
 list<tensor<string, []>, 2> l=const()[name=string("l"), val=list<tensor<string, []>, 2>(["cat", "dog"])];
 tensor<fp16,[2,4]> c = concat(axis=int32(0),interleave=bool(false),values=(x,x))[name=string("c")];
 tensor<fp16, [1, 2]> top, tensor<int32, [1, 2]> at = topk(x = x, k = int32(2))[name = string("top")];
 write_state(data = typed, input = kv)[name = string("w")];
 } -> (c, top);
}
"""


def parsed(text, folder=None):
    return parse_program(text, WeightFiles(weight_locator(folder)))


def by_name(program):
    return {operation.name: operation for operation in program.operations()}


def value(program, name):
    return by_name(program)[name].attributes["val"].value


def test_peculiar_spacing_and_every_literal():
    program = parsed(TERSE)
    assert program.main.opset == "CoreML6"
    assert [str(one.type) for one in program.main.inputs] == ["fp16[1, 4]", "state<fp16[2]>"]
    assert isinstance(program.main.inputs[1].type, StateType)
    assert program.main.outputs == ("c", "top")
    assert value(program, "s") == 'a"b\\n\n'
    assert value(program, "h") == np.float16(-0.75)
    np.testing.assert_array_equal(value(program, "m"), np.float16([[1, -np.inf], [np.nan, 1e-3]]))
    assert value(program, "t").tolist() == [1.5, 0.5]
    assert value(program, "b").tolist() == [True, False, True]
    assert value(program, "q").tolist() == [0x0F, 0x03]
    assert value(program, "i").tolist() == [0x78, 0x0F]
    assert value(program, "none").shape == (0,)
    assert value(program, "l") == ("cat", "dog")
    concat = by_name(program)["c"]
    assert concat.inputs["values"] == (Reference("x"), Reference("x"))
    assert concat.inputs["axis"][0].value == 0
    assert [one.name for one in by_name(program)["top"].outputs] == ["top", "at"]
    assert by_name(program)["w"].outputs == ()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_printing_and_parsing_are_inverse(dialect):
    program = parsed(TERSE)
    assert_same(parsed(print_program(program, dialect=dialect)), program)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_unknown_ranks_are_written_and_read(tmp_path, dialect):
    kind = UnrankedType("fp32")
    fill = graphs.call("fill", "y", ("fp32",), shape="x", value=graphs.tensor(np.float32(1)))
    fill = replace(fill, outputs=(Variable("y", kind),))
    made = graphs.program({"x": ("int32", None)}, [fill], ["y"])
    printed = print_program(made, dialect=dialect)
    assert parsed(printed).main.body.operations[0].outputs[0].type == kind
    described = Description((Port("x", (2,), "int32"),), (Port("y", (), "float32"),))
    package = read_package(graphs.write(tmp_path, made, described))
    assert package.program.main.body.operations[0].outputs[0].type == kind
    assert package.description.outputs[0].expected == "float32[...]"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_nested_blocks(dialect):
    flag = graphs.variable("flag", ("bool",))
    inner = graphs.call("add", "more", ("fp32", 2), x="i", y="x")
    body = graphs.Block((graphs.variable("i", ("fp32", 2)),), (inner,), ("more",))
    condition = graphs.Block((graphs.variable("j", ("fp32", 2)),), (), ("flag",))
    loop = graphs.Operation(
        "while_loop",
        "loop",
        {"loop_vars": (Reference("x"),)},
        (graphs.variable("y", ("fp32", 2)),),
        graphs.named("loop"),
        (condition, body),
    )
    made = graphs.program({"x": ("fp32", 2), "flag": ("bool",)}, [loop], ["y"])
    assert made.main.inputs[1] == flag
    assert_same(parsed(print_program(made, dialect=dialect)), made)


HOSTILE = st.text(
    st.sampled_from('a\n\r\x1b\x00\x85\u202e\u2028\U000e0001 \t"\\\\(){}[]<>,=;->é'), min_size=1
)


@given(name=HOSTILE, other=HOSTILE, text=HOSTILE)
@settings(max_examples=100, deadline=None)
def test_any_name_is_one_printable_word(name, other, text):
    """Nothing that a name holds starts a line, ends an operation or reaches a terminal."""
    x, y, k, out = f"x{name}", f"y{other}", f"k{other}", f"o{name}"
    made = graphs.program(
        {x: ("fp32", 2)},
        [
            graphs.const(k, text),
            graphs.call(f"t{name}", y, ("fp32", 2), **{f"p{other}": x}),
            graphs.call("concat", out, ("fp32", 4), values=(y, y)),
        ],
        [out],
    )
    printed = print_program(made)
    assert all(line.isprintable() for line in printed.split("\n"))
    assert len(printed.split("\n")) == len(print_program(WORDS).split("\n"))
    assert_same(parsed(printed), made)


WORDS = graphs.program(
    {"x": ("fp32", 2)},
    [graphs.const("k", "a"), *(graphs.call("t", name, ("fp32", 2), p="x") for name in "yo")],
    ["o"],
)


@pytest.mark.parametrize(
    ("dialect", "pattern"), [("1.0", "*.mlpackage"), ("1.3", "*sd_text_encoder.mlpackage")]
)
def test_both_forms_of_real_models_are_equal(reference_packages, dialect, pattern):
    for path in sorted(reference_packages.rglob(pattern)):
        program = read_package(path).program
        text = print_program(program, dialect=dialect)
        assert_same(parsed(text, graphs.model_file(path).parent), program)


def assert_same(got: Program, expected: Program):
    """Equal but for attributes that hold the name alone."""
    assert got.functions.keys() == expected.functions.keys()
    for name, function in expected.functions.items():
        assert got.functions[name].opset == function.opset
        assert_same_block(got.functions[name].body, function.body)


def assert_same_block(got, expected):
    assert (got.inputs, got.outputs) == (expected.inputs, expected.outputs)
    for one, other in zip(got.operations, expected.operations, strict=True):
        assert (one.type, one.name, one.outputs) == (other.type, other.name, other.outputs)
        assert list(one.inputs) == list(other.inputs)
        for left, right in zip(one.inputs.values(), other.inputs.values(), strict=True):
            for a, b in zip(left, right, strict=True):
                assert_same_constant(a, b) if isinstance(b, Constant) else assert_equal(a, b)
        assert one.attributes.keys() - {"name"} == other.attributes.keys() - {"name"}
        for key in other.attributes:
            assert_same_constant(one.attributes[key], other.attributes[key])
        for a, b in zip(one.blocks, other.blocks, strict=True):
            assert_same_block(a, b)


def assert_equal(a, b):
    assert a == b


def assert_same_constant(a, b):
    assert (a.type, a.stored, a.blob) == (b.type, b.stored, b.blob)
    if b.blob is not None:
        return
    if isinstance(b.value, np.ndarray):
        assert a.value.dtype == b.value.dtype
        np.testing.assert_array_equal(a.value, b.value)
    else:
        assert a.value == b.value


def compiled(folder, package, *, dialect="1.3", name="model.mlmodelc"):
    """As Core ML's compiler lays it out."""
    root = folder / name
    (root / "weights").mkdir(parents=True)
    (root / "weights" / "weight.bin").write_bytes(graphs.weight_file(package).read_bytes())
    read = read_package(package)
    (root / "model.mil").write_text(print_program(read.program, dialect=dialect))
    (root / "coremldata.bin").write_bytes(core_data(encode_description(read.description, {}, "")))
    return root


def core_data(description, version=7):
    def number(value):
        return value.to_bytes(8, "little")

    head = (502).to_bytes(4, "little") + (5).to_bytes(4, "little") + bytes(20)
    return (
        head
        + number(7)
        + b"generic"
        + number(version)
        + bytes(24)
        + number(len(description))
        + description
        + bytes(16)
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_compiled_models_predict_as_packages_do(tmp_path, dialect):
    package = graphs.write(tmp_path)
    root = compiled(tmp_path, package, dialect=dialect)
    ours, theirs = read_package(root), read_package(package)
    assert ours.description == theirs.description
    assert (ours.specification_version, ours.weight_bytes) == (7, theirs.weight_bytes)
    assert_same(ours.program, theirs.program)
    x = np.arange(6, dtype=np.float16).reshape(2, 3)
    results = [MLModel(path, engine="reference").predict({"x": x})["y"] for path in (root, package)]
    np.testing.assert_array_equal(*results)


def test_compiled_pipelines(tmp_path):
    root = tmp_path / "whole.mlmodelc"
    package = graphs.write(tmp_path)
    compiled(root, package, name="model0")
    compiled(root, package, name="model1")
    (root / "coremldata.bin").write_bytes((root / "model0" / "coremldata.bin").read_bytes())
    read = read_model(root)
    assert isinstance(read, Pipeline)
    assert list(read.models) == ["model0", "model1"]
    (root / "model0" / "weights").rename(root / "weights")
    shutil.rmtree(root / "model1" / "weights")
    assert [one.weight_bytes for one in read_model(root).models.values()] == [read.weight_bytes // 2] * 2
    (root / "model1" / "model.mil").unlink()
    with pytest.raises(
        UnsupportedModelError, match=r"model1 of the pipeline: expected a compiled ML Program"
    ):
        read_model(root)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda root: (root / "model.mil").write_bytes(b"\x00\x8f" * 99), UnsupportedModelError, "encrypted"),
        (lambda root: (root / "model.mil").write_bytes(b"program(1.0)\xff"), PackageError, "UTF-8"),
        (lambda root: (root / "coremldata.bin").unlink(), PackageError, "no such file"),
        (
            lambda root: (root / "coremldata.bin").write_bytes(b"\xff" * 99),
            PackageError,
            "got a file of 99 bytes",
        ),
        (lambda root: (root / "coremldata.bin").write_bytes(core_data(b"")), PackageError, "expected inputs"),
        (lambda root: (root / "weights" / "weight.bin").unlink(), PackageError, "weight"),
        (
            lambda root: ((root / "model.mil").unlink(), (root / "model.espresso.net").touch()),
            UnsupportedModelError,
            "a neural network",
        ),
    ],
)
def test_compiled_models_that_are_refused(tmp_path, change, error, message):
    root = compiled(tmp_path, graphs.write(tmp_path))
    change(root)
    with pytest.raises(error, match=message):
        read_package(root)


def test_a_bare_model_file(tmp_path):
    path = graphs.model_file(graphs.write(tmp_path))
    assert read_package(path).weight_bytes > 0
    path.write_bytes(b"")
    with pytest.raises(SdMilError, match="got no model"):
        read_package(path)


def broken(**edits):
    text = print_program(graphs.program({"x": ("fp32", 2)}, [graphs.const("c", np.float32([1, 2]))], ["x"]))
    for before, after in edits.values():
        assert before in text
        text = text.replace(before, after)
    return text


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("program(1.3)", "program(2.0)", "expected a program of version 1"),
        ("ios16", "ios99", "expected one of ios15"),
        ("[0x1p+0, 0x1p+1]", "[0x1p+0]", "expected 2 elements"),
        ("[0x1p+0, 0x1p+1]", "[[0x1p+0, 0x1p+1]]", "."),
        ("0x1p+1]", '"two"]', "expected values of dtype fp32"),
        ("tensor<fp32, [2]>([", "tensor<fp32, [99999999999]>([", "elements"),
        ("tensor<fp32, [2]>([", "tensor<quux, [2]>([", "a MIL dtype"),
        ('string("c")', 'string("c', "expected strings"),
        ("} -> (x);", "", "expected"),
        ("val = ", "name = ", "once"),
        ("const()", "const(", "expected"),
        ("(tensor<fp32, [2]> x)", "(tuple<fp32> x)", "got a tuple"),
        (
            "const()[",
            'const()[w = tensor<fp32, [2]>(BLOBFILE(path = string("/etc/passwd"), offset = uint64(64))), ',
            "under",
        ),
        (
            "const()[",
            "const()[w = tensor<fp32, [2]>(BLOBFILE(offset = uint64(64))), ",
            "a path and an offset",
        ),
    ],
)
def test_malformed_texts(tmp_path, before, after, message):
    with pytest.raises(SdMilError, match=message):
        parsed(broken(edit=(before, after)), tmp_path)


def test_errors_say_the_line():
    with pytest.raises(PackageError, match=r"expected ';', got '\}' in line 6"):
        parsed(broken(edit=(")];", ")]")))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "program(1.0){" + "func f<ios15>() {" * 50_000,
        "program(1.0){func main<ios15>() {" + "cond(){" * 50_000,
        "program(1.0){func main<ios15>() {" + "cond()[]{" * 50_000,
        "program(1.0){func main<ios15>(" + "list<" * 50_000,
        "program(1.0){func main<ios15>(tensor<fp16, [" + "1," * 100_000,
        "program(1.0){func main<ios15>(){tensor<fp16,[1]> x=const()[val=tensor<fp16,[1]>(" + "[" * 100_000,
        'program(1.0)["' + '\\"' * 100_000,
        "program(1.0)" + '"' * 100_000,
    ],
    ids=range(9),
)
def test_depth_and_work_are_bounded(text, at_most):
    with at_most(50 * len(text)), pytest.raises(SdMilError):
        parsed(text)


def test_lists_of_numbers_survive():
    kind = ListType(TensorType("int64", ()), 3)
    constant = Constant(kind, np.int64([1, -2, 3]))
    operation = graphs.Operation("const", "l", {}, (graphs.Variable("l", kind),), {"val": constant})
    made = graphs.program({"x": ("fp32", 2)}, [operation], ["x"])
    assert value(parsed(print_program(made)), "l").tolist() == [1, -2, 3]

"""``sdc run``: any model, its inputs, what it prints, what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image
from sd_mil import (
    Block,
    Constant,
    Description,
    Function,
    Operation,
    Port,
    Program,
    Reference,
    TensorType,
    Variable,
    write_package,
)

TABLE, WIDTH = 7, 4


def constant(array):
    array = np.asarray(array)
    names = {"float32": "fp32", "float16": "fp16", "int32": "int32"}
    return Constant(TensorType(names[array.dtype.name], array.shape), array)


def operation(kind, name, out, **inputs):
    arguments = {
        key: (Reference(value) if isinstance(value, str) else value,) for key, value in inputs.items()
    }
    return Operation(kind, name, arguments, (Variable(name, out),))


def package(folder, inputs, operations, outputs, name="model"):
    types = {variable.name: variable.type for one in operations for variable in one.outputs}
    variables = tuple(Variable(port.name, TensorType(_mil(port.dtype), port.shape)) for port in inputs)
    body = Block(variables, tuple(operations), tuple(outputs))
    ports = tuple(Port(one, types[one].shape, types[one].dtype.replace("fp", "float")) for one in outputs)
    made = Program({"main": Function("main", "CoreML7", body)})
    return write_package(folder / f"{name}.mlpackage", made, Description(inputs, ports)).path


def _mil(dtype):
    return dtype.replace("float", "fp")


@pytest.fixture
def doubling(tmp_path):
    half = TensorType("fp16", (2, 3))
    ports = (Port("x", (2, 3), "float16"),)
    return package(tmp_path, ports, [operation("add", "y", half, x="x", y="x")], ["y"])


@pytest.fixture
def embedding(tmp_path):
    kind, weight = TensorType("fp32", (TABLE, WIDTH)), np.arange(TABLE * WIDTH, dtype=np.float32)
    table = Operation(
        "const", "t", {}, (Variable("t", kind),), {"val": constant(weight.reshape(TABLE, WIDTH))}
    )
    rows = TensorType("fp32", (1, 50, WIDTH))
    ports = (Port("ids", (1, 50), "int32"),)
    axis = constant(np.int32(0))
    gathered = operation("gather", "rows", rows, x="t", indices="ids", axis=axis)
    return package(tmp_path, ports, [table, gathered], ["rows"])


@pytest.fixture
def picture(tmp_path):
    pixels = TensorType("fp32", (1, 3, 4, 6))
    ports = (Port("image", (1, 3, 4, 6), "float32", kind="image", color="RGB"),)
    half = constant(np.float32(0.5))
    return package(tmp_path, ports, [operation("mul", "dimmed", pixels, x="image", y=half)], ["dimmed"])


def test_an_array_from_a_file(sdc, doubling, tmp_path):
    x = np.arange(6, dtype=np.float64).reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    done = sdc("run", doubling, "--input", f"x={tmp_path / 'x.npy'}", "-o", tmp_path / "out")
    assert done.status == 0, done.err
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "y.npy"), (2 * x).astype(np.float16))
    assert "float16" in done.out
    assert "2 × 3" in done.out
    assert "OpenVINO" in done.out
    assert "peak memory" in done.out


def test_an_array_of_an_archive(sdc, doubling, tmp_path):
    np.savez(tmp_path / "all.npz", x=np.ones((2, 3), np.float16), other=np.zeros(2))
    done = sdc("run", doubling, "--input", f"x={tmp_path / 'all.npz'}", "--engine", "reference", "--json")
    assert done.status == 0, done.err
    facts = json.loads(done.out)
    assert facts["outputs"] == [
        {"name": "y", "dtype": "float16", "shape": [2, 3], "min": 2.0, "max": 2.0, "mean": 2.0}
    ]
    assert "reference engine" in facts["arithmetic"]


def test_random_inputs_repeat_with_the_seed(sdc, doubling, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert sdc("run", doubling, "--random", "--seed", seed, "-o", tmp_path / name).status == 0
    a, b, c = (np.load(tmp_path / name / "y.npy") for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_random_integers_stay_within_the_table(sdc, embedding, tmp_path):
    done = sdc("run", embedding, "--input", "ids=random", "-o", tmp_path / "out")
    assert done.status == 0, done.err
    first = np.load(tmp_path / "out" / "rows.npy")[0, :, 0] / WIDTH
    assert set(first) == set(range(TABLE))


def test_pictures_have_the_size_or_are_resized_when_asked(sdc, picture, tmp_path):
    Image.new("RGBA", (6, 4), (10, 20, 30, 255)).save(tmp_path / "right.png")
    Image.new("RGB", (60, 40), (10, 20, 30)).save(tmp_path / "large.png")
    done = sdc("run", picture, "--input", f"image={tmp_path / 'right.png'}", "-o", tmp_path / "out")
    assert done.status == 0, done.err
    assert np.load(tmp_path / "out" / "dimmed.npy")[0, :, 0, 0].tolist() == [5, 10, 15]
    done = sdc("run", picture, "--input", f"image={tmp_path / 'large.png'}")
    assert done.status == 1
    assert "6x4 pixels" in done.err
    assert "--resize" in done.err
    assert sdc("run", picture, "--input", f"image={tmp_path / 'large.png'}", "--resize").status == 0


def test_compare_with_another_model(sdc, doubling, tmp_path):
    half = TensorType("fp16", (2, 3))
    ports = (Port("x", (2, 3), "float16"),)
    factor = constant(np.float16(2.25))
    other = package(tmp_path, ports, [operation("mul", "y", half, x="x", y=factor)], ["y"], "other")
    done = sdc("run", doubling, "--random", "--compare", doubling)
    assert done.status == 0, done.err
    assert "passed" in done.out
    assert "equal" in done.out
    done = sdc("run", doubling, "--random", "--compare", other, "--first-divergence")
    assert done.status == 1
    assert "FAILED" in done.out
    assert "first divergence below 40 dB" in " ".join(done.out.split())
    assert sdc("run", doubling, "--random", "--compare", other, "--min-psnr", 10).status == 0


def test_overflow_and_divergence_of_one_model(sdc, tmp_path):
    half = TensorType("fp16", (2,))
    ports = (Port("x", (2,), "float16"),)
    large = package(tmp_path, ports, [operation("square", "big", half, x="x")], ["big"])
    np.save(tmp_path / "x.npy", np.float16([300, 1]))
    arguments = ("--input", f"x={tmp_path / 'x.npy'}", "--overflow", "--first-divergence")
    done = sdc("run", large, *arguments, "--engine", "reference", "--rounding", "fp16")
    assert done.status == 0, done.err
    assert "starts with square 'big' reaches 90000" in " ".join(done.out.split())
    assert "first divergence below 40 dB: square 'big'" in " ".join(done.out.split())
    done = sdc("run", large, *arguments, "--engine", "reference")
    assert done.status == 1
    assert "--rounding fp16" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected a value for input x: float16[2, 3]"),
        (("--input", "y=random"), "expected inputs among x"),
        (("--input", "x"), "NAME=VALUE"),
        (("--input", "x=nowhere.npy"), "expected a file (.npy, .npz), a number"),
        (("--input", "x=random:2x4"), "got [2, 4]"),
        (("--input", "x={bad}"), "expected an array in 'bad.npy'"),
        (("--input", "x={pickled}"), "expected an array in 'pickled.npy'"),
        (("--input", "x={huge}"), "got uint8[99999999999]"),
        (("--input", "x={integers}"), "got int64"),
        (("--input", "x={wrong}"), "float16[2, 3]"),
        (("--random", "--function", "other"), "other"),
        (("--random", "--rounding", "fp16"), "reference"),
    ],
)
def test_bad_inputs_are_one_line(sdc, doubling, tmp_path, arguments, said):
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "integers.npy", np.arange(6).reshape(2, 3))
    np.save(tmp_path / "wrong.npy", np.zeros((3, 2), np.float16))
    np.save(tmp_path / "huge.npy", np.zeros(1, np.uint8))
    header = (tmp_path / "huge.npy").read_bytes()
    (tmp_path / "huge.npy").write_bytes(header.replace(b"(1,), }          ", b"(99999999999,), }"))
    files = {path.stem: str(path) for path in tmp_path.glob("*.npy")}
    done = sdc("run", doubling, *(one.format(**files) for one in arguments))
    assert done.status == 1
    assert said in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert "a bug" not in done.err

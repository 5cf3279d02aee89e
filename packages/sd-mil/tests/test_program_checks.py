"""Programs that contradict themselves are refused when they are read."""

from dataclasses import replace

import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import Constant, PackageError, Port, TensorType, read_package

W = graphs.const("w", np.ones(3, np.float32), stored=True)
ADD = graphs.call("add", "y", ("fp32", 3), x="x", y="w")
INPUTS = {"x": ("fp32", 3)}


def made(*operations, outputs=("y",)):
    return graphs.program(INPUTS, operations, outputs)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (made(W, W, ADD), "expected a new name for each value, got 'w' again"),
        (made(W, replace(W, outputs=(graphs.variable("x", ("fp32", 3)),)), ADD), "got 'x' again"),
        (made(ADD, W), "expected values defined before add 'y', got 'w' for 'y'"),
        (made(W, graphs.call("add", "y", ("fp32", 3), x="x", y="y")), "got 'y' for 'y'"),
        (made(replace(W, attributes={}), ADD), r"expected const 'w' to hold one value .*got none"),
        (made(graphs.const("w", np.ones(2, np.float32)), W), "'w' again"),
        (
            made(replace(W, outputs=(graphs.variable("w", ("fp32", 1, 3)),)), ADD),
            r"its type \(fp32\[1, 3\]\), got fp32\[3\]",
        ),
    ],
)
def test_names_and_constants(tmp_path, program, message):
    described = graphs.description(made(W, ADD))
    with pytest.raises(PackageError, match=message):
        read_package(graphs.write(tmp_path, program, described))


def test_outputs_are_defined(tmp_path):
    described = graphs.description(made(W, ADD))
    with pytest.raises(
        PackageError, match="expected function 'main' to return a value that it defines, got 'z'"
    ):
        read_package(graphs.write(tmp_path, made(W, ADD, outputs=("z",)), described))


@pytest.mark.parametrize(
    ("port", "message"),
    [
        (
            Port("x", (3,), "float16"),
            r"expected input 'x' to be fp32\[3\] as in the program, got float16\[3\]",
        ),
        (Port("x", (4,), "float32"), r"got float32\[4\]"),
        (Port("x", (3, 1), "float32"), r"got float32\[3, 1\]"),
        (Port("z", (3,), "float32"), r"expected inputs \['x'\] as in the program, got \['z'\]"),
    ],
)
def test_ports_are_the_programs(tmp_path, port, message):
    described = replace(graphs.description(made(W, ADD)), inputs=(port,))
    with pytest.raises(PackageError, match=message):
        read_package(graphs.write(tmp_path, made(W, ADD), described))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            Constant(TensorType("fp16", (1 << 40, 1 << 20)), np.ones(1, np.float16)),
            "expected 2305843009213693952 bytes",
        ),
        (
            Constant(TensorType("fp16", (4,)), np.ones(3, np.float16), stored=6),
            r"expected 8 bytes for fp16\[4\], got 6",
        ),
        (Constant(TensorType("int32", (4,)), np.ones(3, np.int32)), "expected 4 values"),
        (Constant(TensorType("int32", ()), np.array(1 << 40)), "expected values that fit int32"),
        (Constant(TensorType("string", (2,)), ("one",)), "expected 2 strings"),
        (Constant(TensorType("fp16", (None,)), np.ones(3, np.float16)), "expected a fixed shape"),
    ],
)
def test_constants_have_the_size_that_they_declare(tmp_path, value, message):
    lie = replace(W, attributes={"val": value}, outputs=(replace(W.outputs[0], type=value.type),))
    described = graphs.description(made(W, ADD))
    with pytest.raises(PackageError, match=message):
        read_package(graphs.write(tmp_path, made(lie, ADD), described))


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (4, b"\x01", "expected weight storage of version 2, got 1"),
        (64, b"\x00", "expected the mark 0xdeadbeef"),
        (68, b"\x01", "expected fp32 as the program declares, got fp16"),
        (72, b"\xff" * 8, "got the end of the file"),
        (80, b"\x40", "expected aligned data after the record"),
        (80, b"\x81", "expected aligned data after the record"),
    ],
)
def test_weight_records_are_checked(tmp_path, offset, data, message):
    path = graphs.write(tmp_path, made(W, ADD))
    content = bytearray(graphs.weight_file(path).read_bytes())
    content[offset : offset + len(data)] = data
    graphs.weight_file(path).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_package(path)

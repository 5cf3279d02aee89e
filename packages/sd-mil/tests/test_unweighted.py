"""A program that is kept without its weights, and opened with them again."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from sd_mil import (
    Block,
    Constant,
    Description,
    Function,
    Operation,
    PackageError,
    Port,
    Program,
    Reference,
    SdMilError,
    TensorType,
    Variable,
    write_package,
)
from sd_mil.format import Unweighted, encode_unweighted
from sd_mil.ir.tensors import Tensor

VECTOR = TensorType("fp32", (12,))


@dataclass
class Counted:
    """A tensor of one number that counts how often it is read."""

    source: str
    number: float
    dtype: str = "fp32"
    shape: tuple[int, ...] = (12,)
    reads: list[str] = field(default_factory=list)

    def read(self):
        self.reads.append(self.source)
        return np.full(self.shape, self.number, np.float32)

    def pieces(self):
        yield self.read().reshape(-1)


def constant(name, content):
    value = Constant(VECTOR, content, stored=48)
    return Operation("const", name, {}, (Variable(name, VECTOR),), {"val": value})


def add(name, x, y):
    inputs = {"x": (Reference(x),), "y": (Reference(y),)}
    return Operation("add", name, inputs, (Variable(name, VECTOR),))


def program(tensor):
    """``x`` plus a tensor, twice under two names, plus numbers that have no source."""
    operations = (
        constant("one", tensor),
        constant("folded", np.arange(12, dtype=np.float32)),
        constant("again", tensor),
        add("a", "x", "one"),
        add("b", "a", "again"),
        add("y", "b", "folded"),
    )
    body = Block((Variable("x", VECTOR),), operations, ("y",))
    return Program({"main": Function("main", "CoreML6", body)})


PORTS = Description((Port("x", (12,), "float32"),), (Port("y", (12,), "float32"),), "what it is")


def test_it_comes_back_and_nothing_is_read(tmp_path):
    tensor = Counted("unet.weight", 3)
    content = encode_unweighted(program(tensor), version=7, source_of=lambda one: one.source)
    assert not tensor.reads
    opened = []

    def opening(source: str, dtype: str, shape: tuple[int, ...]) -> Tensor:
        opened.append(Counted(source, 3, dtype, shape))
        return opened[-1]

    unweighted = Unweighted(content, "unet", opening)
    package = unweighted.package(PORTS)
    assert [one.source for one in opened] == ["unet.weight"]  # once, as it is in the file once
    assert not opened[0].reads
    assert package.description == PORTS
    first = write_package(tmp_path / "first.mlpackage", program(tensor), PORTS)
    second = write_package(tmp_path / "second.mlpackage", package.program, package.description)
    assert first.sha256 == second.sha256
    assert opened[0].reads == tensor.reads == ["unet.weight"]


def test_it_is_written_without_being_decoded(tmp_path, monkeypatch):
    content = encode_unweighted(program(Counted("w", 3)), version=7, source_of=lambda one: one.source)
    unweighted = Unweighted(content, "net", lambda source, *_: Counted(source, 5))
    monkeypatch.setattr("sd_mil.format.unweighted.read_specification", None)
    written = unweighted.write(tmp_path / "other.mlpackage", PORTS, identity="net")
    expected = write_package(tmp_path / "expected.mlpackage", program(Counted("w", 5)), PORTS, identity="net")
    assert (written.sha256, written.bytes) == (expected.sha256, expected.bytes)
    weights = tmp_path / "other.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    assert unweighted.weight_bytes == weights.stat().st_size


def test_other_weights_of_the_same_shape(tmp_path):
    content = encode_unweighted(program(Counted("w", 3)), version=7, source_of=lambda one: one.source)
    package = Unweighted(content, "net", lambda source, *_: Counted(source, 5)).package(PORTS)
    written = write_package(tmp_path / "other.mlpackage", package.program, package.description)
    expected = write_package(tmp_path / "expected.mlpackage", program(Counted("w", 5)), PORTS)
    assert written.sha256 == expected.sha256


@pytest.mark.parametrize("content", [b"", b"no", b"\x0a\x00", b"\x12\x00"])
def test_something_else(content):
    with pytest.raises(SdMilError, match="expected"):
        Unweighted(content, "net", lambda *_: Counted("w", 1)).package(PORTS)


def test_a_damaged_one():
    content = encode_unweighted(program(Counted("w", 3)), version=7, source_of=lambda one: one.source)
    with pytest.raises(PackageError, match="expected"):
        Unweighted(content[:-20], "net", lambda source, *_: Counted(source, 3)).package(PORTS)


def small(number, dtype="fp32", name="bias"):
    """A tensor of four numbers, which is kept in the program itself."""
    return Counted(name, number, dtype, (4,))


def with_small(*tensors):
    """``x`` beside small tensors under one name each, the last one twice."""
    operations = []
    for index, tensor in enumerate((*tensors, tensors[-1])):
        kind = TensorType(tensor.dtype, tensor.shape)
        value = Constant(kind, tensor)
        operations.append(Operation("const", f"c{index}", {}, (Variable(f"c{index}", kind),), {"val": value}))
    given = {"values": tuple(Reference(f"c{index}") for index in range(len(operations)))}
    joined = Variable("y", TensorType("fp32", (4 * len(operations),)))
    body = Block(
        (Variable("x", VECTOR),),
        (*operations, constant("one", Counted("w", 2)), Operation("concat", "y", given, (joined,))),
        ("y",),
    )
    return Program({"main": Function("main", "CoreML6", body)})


@pytest.mark.parametrize("number", [0.0, -1.5, float("nan")])
def test_tensors_inside_of_the_program_are_those_of_the_new_weights(number, tmp_path):
    """Two equal ones at first, so that nothing but their place tells them apart."""
    content = encode_unweighted(
        with_small(small(3), small(3, name="other")), version=7, source_of=lambda one: one.source
    )
    numbers = {"bias": number, "other": 7.25, "w": 2}

    def opening(source, dtype, shape):
        return Counted(source, numbers[source], dtype, shape)

    unweighted = Unweighted(content, "net", opening)
    assert [one.source for one in unweighted.tensors] == ["w", "bias", "other", "other"]
    written = unweighted.write(tmp_path / "other.mlpackage", PORTS)
    expected = with_small(small(number), small(7.25, name="other"))
    assert written.sha256 == write_package(tmp_path / "expected.mlpackage", expected, PORTS).sha256
    again = write_package(tmp_path / "again.mlpackage", unweighted.package(PORTS).program, PORTS)
    assert again.sha256 == written.sha256


@pytest.mark.parametrize("size", [3, 5])
def test_a_small_tensor_of_another_size(size):
    content = encode_unweighted(with_small(small(3)), version=7, source_of=lambda one: one.source)
    unweighted = Unweighted(content, "net", lambda source, dtype, _: Counted(source, 1, dtype, (size,)))
    with pytest.raises(PackageError, match=rf"expected 16 bytes, got {4 * size}"):
        unweighted.package(PORTS)

"""``sdc inspect`` of models that no bundle holds: images, ranges, states, functions, pipelines."""

import json

import pytest
from sd_mil import (
    Block,
    Description,
    Function,
    Operation,
    Port,
    Program,
    Reference,
    ShapeRange,
    StateType,
    TensorType,
    Variable,
    write_package,
)
from sd_mil.format.description_writer import encode_description
from sd_mil.format.encoding import field, integer, text
from sd_mil.format.writer import encode_model, layout_of


def relu(kind, name="y", op="relu", *, state=()):
    operation = Operation(op, name, {"x": (Reference("x"),)}, (Variable(name, kind),))
    return Block((Variable("x", kind), *state), (operation,), (name,))


@pytest.fixture
def model(tmp_path):
    image, row = TensorType("fp32", (1, 3, None, None)), TensorType("fp16", (2,))
    functions = {
        "paint": Function("paint", "CoreML8", relu(image)),
        "count": Function("count", "CoreML8", relu(row, op="quux", state=(Variable("s", StateType(row)),))),
    }
    sizes = ShapeRange(((1, 1), (3, 3), (4, 16), (4, None)))
    descriptions = {
        "paint": Description(
            (Port("x", (1, 3, 8, 8), "float32", kind="image", color="BGR", flexibility=sizes),),
            (Port("y", (1, 3, None, None), "float32"),),
            author="me",
        ),
        "count": Description(
            (Port("x", (2,), "float16"),),
            (Port("y", (2,), "float16"),),
            states=(Port("s", (2,), "float16", kind="state"),),
        ),
    }
    return write_package(tmp_path / "m.mlpackage", Program(functions, "paint"), descriptions, version=9).path


def test_functions_images_ranges_and_states(sdc, model):
    facts = json.loads(sdc("inspect", model, "--json").out)
    (port,) = facts["inputs"]
    assert (port["kind"], port["color"], port["flexibility"]) == ("image", "BGR", "[1, 3, 4..16, 4..]")
    assert (facts["default_function"], list(facts["functions"])) == ("paint", ["paint", "count"])
    assert facts["functions"]["count"]["operations"] == {"Ios18.quux": 1}
    assert facts["functions"]["count"]["states"][0]["name"] == "s"
    assert facts["unsupported"] == {}
    out = sdc("inspect", model).out
    assert all(word in out for word in ("paint (default), CoreML8", "BGR", "4..16", "↔ s", "author: me"))


def test_pipelines(sdc, tmp_path):
    kind = TensorType("fp32", (2,))
    ports = (Port("x", (2,), "float32"),), (Port("y", (2,), "float32"),)
    program = Program({"main": Function("main", "CoreML6", relu(kind, op="quux"))})
    part = encode_model(program, Description(*ports), layout_of(program))
    described = field(2, encode_description(Description(*ports), {}, ""))
    path = tmp_path / "pipeline.mlmodel"
    path.write_bytes(integer(1, 7) + described + field(202, field(1, part) + text(2, "only")))
    facts = json.loads(sdc("inspect", path, "--json").out)
    assert (facts["kind"], facts["models"][0]["package"]) == ("pipeline", "only")
    assert facts["models"][0]["unsupported"] == {"quux": 1}
    out = sdc("inspect", path).out
    assert "only (ML Program" in out
    assert "neither engine runs: quux" in out

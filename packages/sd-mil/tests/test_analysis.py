"""Faults are planted, and the analysis has to name them."""

import dataclasses
import tracemalloc

import mil_graphs as graphs
import numpy as np
import pytest
from mil_graphs import call, const
from sd_mil import (
    ArgumentFidelity,
    Block,
    ComparisonError,
    Divergence,
    MLModel,
    Operation,
    OutputFidelity,
    Overflow,
    Port,
    Reference,
    compare,
    compare_outputs,
    first_divergence,
    overflow,
    read_package,
)

DEPTH, WIDTH = 6, 8
X = {"x": np.random.default_rng(0).standard_normal((2, WIDTH)).astype(np.float32)}


def chain(weights, *, prefix="", dtype="fp32"):
    """x through layers of weights, each followed by tanh."""
    kind, value, operations = (dtype, 2, WIDTH), "x", []
    for layer, weight in enumerate(weights):
        names = [f"{prefix}{part}_{layer}" for part in ("w", "product", "layer")]
        operations += [
            const(names[0], weight, stored=True),
            call("matmul", names[1], kind, x=value, y=names[0]),
            call("tanh", names[2], kind, x=names[1]),
        ]
        value = names[2]
    return graphs.program({"x": kind}, operations, [value])


def weights(changed=None):
    drawn = np.random.default_rng(1).standard_normal((DEPTH, WIDTH, WIDTH)).astype(np.float32) / 2
    if changed is not None:
        drawn[changed, 3] += 3
    return list(drawn)


def package(folder, made, name):
    return graphs.write(folder, made, name=f"{name}.mlpackage")


@pytest.mark.parametrize("prefix", ["", "other_"], ids=["names", "structure"])
@pytest.mark.parametrize("layer", [0, 3, DEPTH - 1])
def test_a_changed_weight_is_named(tmp_path, prefix, layer):
    a = package(tmp_path, chain(weights()), "a")
    b = package(tmp_path, chain(weights(changed=layer), prefix=prefix), "b")
    report = first_divergence(a, b, X)
    assert report.first.output == f"product_{layer}"
    assert (report.first.operation, report.first.position) == ("matmul", 2 * layer)
    fidelity = {one.parameter: one.psnr for one in report.first.arguments}
    assert fidelity["y"] < 40
    assert fidelity["x"] is None or fidelity["x"] > 100
    assert f"product_{layer}" in str(report)
    assert f"w_{layer}" in str(report)


def test_another_operation_is_named(tmp_path):
    made = chain(weights())
    body = made.main.body
    operations = list(body.operations)
    place = next(index for index, one in enumerate(operations) if one.name == "layer_2")
    operations[place] = dataclasses.replace(operations[place], type="sigmoid")
    other = dataclasses.replace(
        made,
        functions={
            "main": dataclasses.replace(
                made.main, body=dataclasses.replace(body, operations=tuple(operations))
            )
        },
    )
    report = first_divergence(package(tmp_path, made, "a"), package(tmp_path, other, "b"), X)
    assert report.first.output == "layer_2"
    assert all(one.psnr > 100 for one in report.first.arguments)


def test_equal_programs_do_not_diverge(tmp_path):
    a = package(tmp_path, chain(weights()), "a")
    report = first_divergence(a, a, X)
    assert (report.first, report.compared, report.unmatched) == (None, 2 * DEPTH, 0)
    assert "no divergence: 12 operations agree" in str(report)


def test_engines_and_roundings_of_one_program(tmp_path):
    pytest.importorskip("openvino")
    a = package(tmp_path, chain(weights()), "a")
    exact, fast = MLModel(a, "reference"), MLModel(a, "portable")
    assert first_divergence(exact, fast, X, threshold_db=100).first is None
    assert first_divergence(fast, exact, X, threshold_db=100).compared == 2 * DEPTH
    b = package(tmp_path, chain(weights(changed=4)), "b")
    report = first_divergence(exact, MLModel(b, "portable"), X)
    assert report.first.output == "product_4"


def test_rounding_is_seen_where_it_overflows(tmp_path):
    large = package(tmp_path, overflowing(), "large")
    exact, rounded = MLModel(large, "reference"), MLModel(large, "reference", rounding="fp16")
    report = first_divergence(exact, rounded, halves())
    assert report.first.output == "square_1"
    assert report.first.max_error == np.inf
    assert "no likeness" in str(report)


def halves():
    return {"x": np.full((2, 3), 20, np.float16)}


def overflowing():
    """20, 400, 160000, 1e5, then small again."""
    kind = ("fp16", 2, 3)
    return graphs.program(
        {"x": kind},
        [
            call("square", "square_0", kind, x="x"),
            call("square", "square_1", kind, x="square_0"),
            call("mul", "scaled", kind, x="square_1", y=graphs.tensor(np.float16(0.625))),
            call("tanh", "small", kind, x="scaled"),
        ],
        ["small"],
    )


def test_overflow_is_named_in_order(tmp_path):
    report = overflow(package(tmp_path, overflowing(), "large"), halves())
    assert [(row.operation, row.output, row.magnitude) for row in report.rows] == [
        ("square", "square_1", 160000),
        ("mul", "scaled", 100000),
    ]
    assert report.first.elements == 6
    assert "starts with square 'square_1' reaches 160000" in str(report)


def test_overflow_at_the_edge_of_fp16(tmp_path):
    kind = ("fp32", 1)
    made = graphs.program({"x": kind}, [call("identity", "y", kind, x="x")], ["y"])
    path = package(tmp_path, made, "edge")
    for value in (65504, 65519.9):
        assert overflow(path, {"x": np.float32([value])}).first is None
    report = overflow(path, {"x": np.float32([-65520])})
    assert (report.first.magnitude, report.first.dtype) == (65520, "fp32")
    assert "holds as it stands" in str(report)


def test_masks_do_not_overflow(tmp_path):
    kind = ("fp16", 2, 3)
    mask = np.where(np.eye(2, 3), 0, -np.inf).astype(np.float16)
    made = graphs.program(
        {"x": kind},
        [call("add", "masked", kind, x="x", y=graphs.tensor(mask)), call("softmax", "y", kind, x="masked")],
        ["y"],
    )
    report = overflow(package(tmp_path, made, "mask"), halves())
    assert report.first is None
    assert report.operations == 2


def test_overflow_inside_a_loop(tmp_path):
    """x doubles 14 times: 20 · 2^12 is the first that fp16 cannot hold, 20 · 2^14 the largest."""
    i, x = graphs.variable("i", ("int32",)), graphs.variable("a", ("fp16", 2, 3))
    condition = Block(
        (i, x), (call("less", "more", ("bool",), x="i", y=graphs.tensor(np.int32(14))),), ("more",)
    )
    step = (
        call("add", "next", ("int32",), x="i", y=graphs.tensor(np.int32(1))),
        call("add", "doubled", ("fp16", 2, 3), x="a", y="a"),
    )
    loop = Operation(
        "while_loop",
        "loop",
        {"loop_vars": (Reference("zero"), Reference("x"))},
        (graphs.variable("count", ("int32",)), graphs.variable("y", ("fp16", 2, 3))),
        blocks=(condition, Block((i, x), step, ("next", "doubled"))),
    )
    made = graphs.program({"x": ("fp16", 2, 3)}, [const("zero", np.int32(0)), loop], ["y"])
    report = overflow(package(tmp_path, made, "loop"), halves())
    assert [(row.output, row.magnitude) for row in report.rows] == [
        ("doubled", 20 * 2**14),
        ("y", 20 * 2**14),
    ]


def test_walking_holds_few_values(tmp_path):
    """40 values of 2 MB each: a walk that held them all would need 80 MB a side."""
    kind, operations, value = ("fp32", 512, 1024), [], "x"
    for step in range(40):
        operations.append(call("tanh", f"y_{step}", kind, x=value))
        value = f"y_{step}"
    path = package(tmp_path, graphs.program({"x": kind}, operations, [value]), "long")
    inputs = {"x": np.zeros(kind[1:], np.float32)}
    opened = read_package(path)
    tracemalloc.start()
    assert first_divergence(opened, opened, inputs).compared == 40
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def test_compare_models_and_callables(tmp_path):
    a, b = (package(tmp_path, chain(weights(one)), str(one)) for one in (None, 5))
    model = MLModel(a, "reference")
    (row,) = compare(model, read_package(b), X).rows
    assert (row.output, row.shape) == (f"layer_{DEPTH - 1}", (2, WIDTH))
    assert row.psnr < 35
    assert 0.01 < row.max_error < 2

    def recomputed(inputs):
        value = inputs["x"]
        for weight in weights():
            value = np.tanh(value @ weight)
        return value

    comparison = compare(model, recomputed, X)
    assert comparison.passed(100)
    assert comparison.rows[0].other == "0"
    assert "[2, 8]" in str(comparison)
    assert compare(lambda x: {"y": x["x"]}, lambda x: (x["x"],), X).worst.psnr == np.inf


def test_compare_refuses_what_does_not_match():
    with pytest.raises(ComparisonError, match=r"none for 'a' .* of the first model, and for 'b' .*'c'"):
        compare_outputs({"a": X["x"]}, {"b": X["x"], "c": X["x"]})
    with pytest.raises(ComparisonError, match="got int"):
        compare(3, lambda x: x, X)


def test_infinities_at_the_same_place_are_equal():
    array = np.float32([1, -np.inf, np.nan, 2])
    assert compare_outputs({"y": array}, {"y": array}).worst.psnr == np.inf
    other = compare_outputs({"y": array}, {"y": array + np.float32(0.01)})
    assert 40 < other.worst.psnr < 60
    broken = compare_outputs({"y": array}, {"y": np.nan_to_num(array)}).worst
    assert (broken.psnr, broken.max_error) == (-np.inf, np.inf)


def test_compare_with_torch():
    torch = pytest.importorskip("torch")

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(WIDTH, 3)

        def forward(self, x, scale):
            return self.inner(x) * scale, scale

    layer = Layer()
    weight, bias = (one.detach().numpy() for one in layer.parameters())
    inputs = {"scale": np.float32([2]), "x": X["x"]}
    comparison = compare(layer, lambda x: ((x["x"] @ weight.T + bias) * x["scale"], x["scale"]), inputs)
    assert len(comparison.rows) == 2
    assert comparison.passed(100)


def test_compare_with_onnx(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    h = onnx.helper
    graph = h.make_graph(
        [h.make_node("Tanh", ["x"], ["y"])],
        "g",
        [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, WIDTH])],
        [h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, WIDTH])],
    )
    made = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "m.onnx")
    assert compare(tmp_path / "m.onnx", lambda x: np.tanh(x["x"]), X).passed(100)


def test_what_is_printed_of_names_is_one_line_and_commands_nothing():
    bad = "a\n\x1b[31m\u202e"
    rows = [
        str(Port(bad, (2,), "float32")),
        str(Overflow(bad, bad, bad, "fp16", 7e4, 1)),
        str(ArgumentFidelity(bad, bad, 1.0)),
        str(Divergence(bad, bad, bad, 1, 1.0, 1.0, ())),
        str(OutputFidelity(bad, bad, (2,), 1.0, 1.0, "shape and type")),
    ]
    assert all(row.isprintable() for row in rows)
    assert all("\\x1b" in row for row in rows)

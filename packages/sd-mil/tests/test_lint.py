"""Rules: each finds what it is for, and nothing in a model without it; SARIF; rules from outside."""
# ruff: noqa: E501 - one line of MIL for each operation

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from mil_graphs import call, const, description, program, tensor
from mil_text import parsed
from sd_mil import Constant, EnumeratedShapes, LintError, Package, Port, ShapeRange, TensorType, read_package
from sd_mil.analysis.lint import RULES, Hit, Source, lint, rule, sarif
from test_pass_attention_pieces import columns, einsums, fused, products
from test_pass_drop_cast_pairs import MOVED
from test_pass_lift_attention import FUSED, OLD_CLIP
from test_pass_lower_palettes import made, scaled_table, table

NOTHING = "(tensor<fp16, [1, 2, 3, 4]> x) { tensor<fp16, [1, 2, 3, 4]> y = relu(x = x); } -> (y);"


def package(source, *, opset="CoreML8", version=None, weights=0, ports=None, build=None):
    """A package of MIL text, or of a program."""
    one = parsed(source) if isinstance(source, str) else source
    one = replace(one, functions={"main": replace(one.main, opset=opset)})
    if build is not None:
        info = Constant(TensorType("string", ()), {"coremltools-version": build})
        one = replace(one, attributes={"buildInfo": info})
    version = int(opset.removeprefix("CoreML")) + 1 if version is None else version
    return Package("made.mlpackage", version, ports or description(one), one, weights)


def unary(kind, shape, dtype="fp16"):
    declared = f"tensor<{dtype}, {list(shape)}>"
    return f"({declared} x) {{ {declared} y = {kind}(x = x); }} -> (y);"


def described(port, *, states=()):
    return replace(description(parsed(NOTHING)), inputs=(port,), states=states)


PALETTE = made([table(4)], (8, 16))
CAST = '(tensor<fp16, [2]> x) { tensor<fp32, [2]> a = cast(x = x, dtype = string("fp32")); tensor<fp32, [2]> b = exp(x = a); tensor<fp32, [2]> c = log(x = b); tensor<fp16, [2]> d = cast(x = c, dtype = string("fp16")); tensor<fp16, [2]> y = relu(x = d); } -> (y);'
SCATTER = "(tensor<fp16, [4]> x, tensor<int32, [1]> i, tensor<fp16, [1]> u) { tensor<fp16, [4]> y = scatter(data = x, indices = i, updates = u); } -> (y);"

#: By rule: a package beyond its limit, what is said, the operation's kind; and one that is just within it.
CASES = {
    "specification-version": (package(NOTHING, version=11), "version 11, where", None, package(NOTHING, version=10)),
    "opset-version": (package(NOTHING, opset="CoreML10"), "'CoreML10', which is not known", None, package(NOTHING, opset="CoreML9")),
    "operation-version": (package(fused(1), opset="CoreML6"), "came with iOS 18, not iOS 16", "scaled_dot_product_attention", package(fused(1))),
    "specification-opset": (package(NOTHING, opset="CoreML8", version=7), "operations of iOS18 (version 9) in a file of version 7", None, package(NOTHING, opset="CoreML8", version=9)),
    "int8-ports": (package(NOTHING, ports=described(Port("x", (2,), "int8"))), "port x: int8[2]", None, package(NOTHING, opset="CoreML9", ports=described(Port("x", (2,), "int8")))),
    "gpu-attention-rank-3": (package(OLD_CLIP), "attention of rank 3", "softmax", package(products(1))),
    "gpu-attention-batch": (package(products(10)), "attention over 10 samples", "softmax", package(products(9))),
    "ane-fused-attention": (
        package("(tensor<fp16, [1, 1, 2, 264]> q) { tensor<fp16, [1, 1, 2, 264]> a = scaled_dot_product_attention(query = q, key = q, value = q); tensor<fp16, [1, 1, 2, 264]> y = scaled_dot_product_attention(query = a, key = a, value = a); } -> (y);"),
        "a fused attention of wide heads",
        "scaled_dot_product_attention",
        package("(tensor<fp16, [1, 1, 2, 256]> q) { tensor<fp16, [1, 1, 2, 256]> a = scaled_dot_product_attention(query = q, key = q, value = q); tensor<fp16, [1, 1, 2, 256]> y = scaled_dot_product_attention(query = a, key = a, value = a); } -> (y);"),
    ),
    "ane-table-ios18": (package(PALETTE), "a 4-bit table in the form of iOS 18", "constexpr_lut_to_dense", package(made([table(6)], (8, 16)))),
    "ane-4-bit-coremltools-9": (package(PALETTE, build="9.0"), "a 4-bit table", "constexpr_lut_to_dense", package(PALETTE, build="8.3.0")),
    "weight-file-size": (package(NOTHING, weights=1_100_000_000), "weights of 1.10 GB", None, package(NOTHING, weights=1_000_000_000)),
    "memory": (package(unary("relu", (1, 1, 16384, 65536))), "about 4.3 GB (0.0 GB of weights), where an app may use 3 GB", None, package(unary("relu", (1, 1, 16384, 32768)))),
    "ane-rank": (package(unary("relu", (1,) * 6)), "6 dimensions", "relu", package(unary("relu", (1,) * 5))),
    "ane-dimension": (package(unary("relu", (1, 1, 1, 16385))), "a tensor fp16[1, 1, 1, 16385]", "relu", package(unary("relu", (1, 65536, 1, 16384)))),
    "ane-softmax-size": (package(einsums(2, 4100, 4096)), "scores of attention", "softmax", package(einsums(2, 4096, 4096))),
    "ane-state-width": (package(NOTHING, ports=described(Port("x", (2,), "float16"), states=(Port("s", (4, 270), "float16", kind="state"),))), "state s: float16[4, 270]", None, package(NOTHING, ports=described(Port("x", (2,), "float16"), states=(Port("s", (4, 256), "float16", kind="state"),)))),
    "flexible-range": (package(NOTHING, ports=described(Port("x", (2,), "float16", flexibility=ShapeRange(((1, 8),))))), "input x: float16[1..8]", None, package(NOTHING, ports=described(Port("x", (2,), "float16", flexibility=EnumeratedShapes(((1,), (2,))))))),
    "fp32-program": (package(unary("relu", (2,), "fp32")), "all 1 operations on floats are in fp32", None, package(NOTHING)),
    "fp32-island": (package(CAST), "1 exp, 1 log in fp32", "exp", package(NOTHING)),
    "needless-cast": (package(MOVED), "a cast back to fp16 of what was fp16", "cast", package(CAST)),
    "ane-operation": (package(SCATTER), "a scatter", "scatter", package(NOTHING)),
}  # fmt: skip


def found(made, device="iphone", os=27):
    return {finding.rule.id: finding for finding in lint(made, device, os).findings}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_finds_what_it_is_for(name):
    beyond, said, kind, within = CASES[name]
    device = "mac" if name == "gpu-attention-rank-3" else "iphone"
    finding = found(beyond, device)[name]
    assert said in finding.said
    assert {place.kind for place in finding.places} == ({kind} if kind else set())
    assert name not in found(within, device)


def test_every_rule_is_tried_and_has_a_source():
    assert set(CASES) == {rule.id for rule in RULES}
    for one in RULES:
        assert one.source.url.startswith("https://")
        assert re.fullmatch(r"(read )?20\d\d-\d\d(-\d\d)?", one.source.date), one.id
        assert one.says.endswith(".")
        assert not one.change.endswith(".")


def test_nothing_is_found_in_a_small_model():
    for device in ("iphone", "ipad", "mac"):
        assert lint(package(NOTHING), device, 18).findings == ()


@pytest.mark.parametrize(
    ("name", "made", "device", "os", "expected"),
    [
        ("gpu-attention-rank-3", package(FUSED), "mac", 26, False),
        ("gpu-attention-rank-3", package(FUSED), "iphone", 27, False),
        ("ane-table-ios18", package(PALETTE), "mac", 18, False),
        ("ane-table-ios18", package(PALETTE), "mac", 26, True),
        ("specification-version", package(NOTHING), "mac", 17, True),
        ("opset-version", package(NOTHING), "mac", 17, True),
        ("specification-version", package(NOTHING), "mac", 18, False),
        ("weight-file-size", package(NOTHING, weights=2_000_000_000), "mac", 26, False),
    ],
)
def test_limits_hold_on_their_devices_and_systems(name, made, device, os, expected):
    assert (name in found(made, device, os)) == expected


def test_tables_with_scales_are_found_at_any_width():
    finding = found(package(made(scaled_table(6), (8, 16))))["ane-table-ios18"]
    assert finding.said == "a table with scales, in the form of iOS 18"


def test_weights_count_as_decoded_before_ios_17():
    weights = np.zeros((8, 16), np.float16)
    whole = program(
        {"x": ("fp16", 8, 16)},
        [const("w", weights, stored=True), call("add", "y", ("fp16", 8, 16), x="x", y="w")],
        ["y"],
    )
    from sd_mil.analysis.lint.memory import activation_bytes, decoded_bytes

    assert decoded_bytes(whole.main.body) == 8 * 16 * 2
    assert activation_bytes(whole.main.body) == 2 * 8 * 16 * 2


def test_what_lives_at_once_is_counted():
    """x (8) and a (8); then a is gone: b (8) and c (8) beside x, which is read last."""
    from sd_mil.analysis.lint.memory import activation_bytes

    text = """(tensor<fp16, [4]> x) {
        tensor<fp16, [4]> a = relu(x = x);
        tensor<fp16, [4]> b = exp(x = a);
        tensor<fp16, [4]> c = log(x = b);
        tensor<fp16, [4]> y = add(x = c, y = x);
    } -> (y);"""
    assert activation_bytes(parsed(text).main.body) == 24


def test_alike_findings_are_told_together_with_their_modules():
    weight = tensor(np.zeros((2, 2), np.float16))
    operations = []
    for layer in (0, 1):
        name = f"text_model_encoder_layers_{layer}_mlp_fc1_weight_to_fp16"
        operations += [
            const(name, weight.value),
            call("linear", f"h{layer}", ("fp16", 1, 2), x="x" if layer == 0 else "y0", weight=name),
            call("reduce_prod", f"y{layer}", ("fp16", 1, 2), x=f"h{layer}"),
        ]
    whole = program({"x": ("fp16", 1, 2)}, operations, ["y1"])
    finding = found(package(whole, opset="CoreML6"))["ane-operation"]
    assert [(place.name, place.module) for place in finding.places] == [
        ("y0", "text_model_encoder_layers_0_mlp_fc1"),
        ("y1", "text_model_encoder_layers_1_mlp_fc1"),
    ]


def test_an_operation_of_several_outputs_is_told_once():
    text = """(tensor<fp16, [1, 1, 1, 1, 1, 4]> x) {
        tensor<fp16, [1, 1, 1, 1, 1, 2]> a, tensor<fp16, [1, 1, 1, 1, 1, 2]> b = split(x = x, num_splits = int32(2), axis = int32(5));
    } -> (a, b);"""
    assert [place.kind for place in found(package(text))["ane-rank"].places] == ["split"]


def test_functions_are_looked_at_one_by_one():
    one = package(products(10))
    main = one.program.main
    functions = {"main": parsed(NOTHING).main, "large": replace(main, name="large")}
    both = replace(one, program=replace(one.program, functions=functions))
    assert found(both)["gpu-attention-batch"].function == "large"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("tv", 26), "iphone, ipad, mac, got 'tv'"), (("mac", 19), "16, 17, 18, 26, 27, got 19")],
)
def test_unknown_devices_and_systems_are_refused(arguments, said):
    with pytest.raises(LintError, match=said):
        lint(package(NOTHING), *arguments)
    with pytest.raises(LintError, match="two of one id"):
        lint(package(NOTHING), "mac", rules=(*RULES, RULES[0]))


def test_a_rule_from_outside():
    @rule(
        "no-relu",
        "note",
        says="I like no relu.",
        change="take gelu",
        source=Source("me", "https://example.com", "2026-11-29"),
    )
    def no_relu(scope):
        return (Hit("a relu", one) for one in scope.operations if one.type == "relu")

    report = lint(package(NOTHING), "mac", rules=(*RULES, no_relu))
    assert [(one.rule.id, one.said, one.places[0].output) for one in report.findings] == [
        ("no-relu", "a relu", "y")
    ]
    assert report.worst == "note"
    assert sarif(report)["runs"][0]["results"][0]["level"] == "note"


def test_the_gravest_comes_first():
    report = lint(package(fused(10), opset="CoreML6", version=11), "iphone")
    severities = [one.rule.severity for one in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert report.worst == "error"
    assert report.count("error") == severities.count("error")


def test_sarif_has_what_its_schema_requires():
    """sarif-schema-2.1.0.json: `required` and the enumerations on the way to a result; rules by index."""
    made = replace(package(columns(12, 4, 4)), path="a folder/ü.mlpackage")
    log = json.loads(json.dumps(sarif(lint(made, "mac"))))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "sdc lint"
    ids = [one["id"] for one in driver["rules"]]
    assert len(set(ids)) == len(ids) == len(RULES)
    assert all(one["helpUri"].startswith("https://") for one in driver["rules"])
    assert all(
        one["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        for one in driver["rules"]
    )
    assert [one["ruleId"] for one in run["results"]] == ["gpu-attention-batch"]
    for result in run["results"]:
        assert result["message"]["text"]
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"] == "a%20folder/%C3%BC.mlpackage"
        (logical,) = location["logicalLocations"]
        assert (logical["name"], logical["fullyQualifiedName"]) == ("w", "main/w")


APPLE = {
    "split_einsum/Stable_Diffusion_version_tiny-sd_unet": set(),
    "original/Stable_Diffusion_version_tiny-sd_unet": set(),
    "split_einsum/Stable_Diffusion_version_tiny-sd_text_encoder": set(),
    "split_einsum/Stable_Diffusion_version_tiny-sd_safety_checker": {"ane-operation"},
    "sdxl_original/Stable_Diffusion_version_tiny-sdxl_vae_decoder": {"fp32-program"},
}


@pytest.mark.parametrize("name", APPLE)
def test_apples_packages(reference_packages, name):
    made = read_package(reference_packages / f"{name}.mlpackage")
    assert set(found(made, "mac", 27)) == APPLE[name]

"""``sdc compress``, and ``sdc convert --quantize-nbits``."""

import errno
import json

import numpy as np
import pytest
from sd_bundle import open_bundle
from sd_compress import Keep, Palettize, Recipe, format_recipe, parse_recipe, weights_of
from sd_mil import read_package

pytest.importorskip("openvino")


def encodings(bundle, component="unet"):
    opened = open_bundle(bundle)
    program = read_package(opened.package(opened.component(component))).program
    return [one.type for one in program.operations() if one.type.startswith("constexpr_")]


def test_a_bundle(sdc, converted, tmp_path):
    done = sdc("compress", converted, "-o", tmp_path / "small", "--nbits", 6, "--components", "unet")
    assert (done.status, done.err) == (0, "")
    row = next(line.split() for line in done.out.splitlines() if line.strip().startswith("unet"))
    assert row[1:4] == ["16.00", "to", row[3]]
    assert 6 < float(row[3]) < 6.3
    assert 20 < float(row[8]) < 80  # dB of the noise prediction
    assert "peak memory" in done.out
    assert set(encodings(tmp_path / "small")) == {"constexpr_lut_to_dense"}
    assert not encodings(tmp_path / "small", "text_encoder")


def test_a_recipe_and_other_schemes_for_some(sdc, converted, tmp_path):
    opened = open_bundle(converted)
    program = read_package(opened.package(opened.component("unet"))).program
    names = [one.name for one in weights_of(program) if one.kind == "conv" and one.elements > 2048][:3]
    recipe = tmp_path / "recipe.json"
    recipe.write_text(format_recipe(Recipe(dict.fromkeys(names, Palettize(4)))))
    done = sdc(
        "compress",
        converted,
        "-o",
        tmp_path / "small",
        "--recipe",
        recipe,
        "--components",
        "unet",
        "--no-measure",
        "--weight",
        f"{names[0]}=keep",
        "--weight",
        f"{names[1]}=8",
    )
    assert (done.status, done.err) == (0, "")
    applied = parse_recipe((tmp_path / "small/recipes/unet.json").read_text())
    assert list(applied.schemes.values()) == [Keep(), Palettize(8), Palettize(4)]
    assert len(encodings(tmp_path / "small")) == 2


def test_a_recipe_of_apple_is_for_the_unet(sdc, converted, tmp_path):
    recipe = tmp_path / "apple.json"
    recipe.write_text(
        json.dumps({"recipes": {"recipe_4.00": {"conv_in": 16, "mid_block.resnets.0.conv1": 4}}})
    )
    done = sdc("compress", converted, "-o", tmp_path / "small", "--recipe", recipe, "--no-measure")
    assert (done.status, done.err) == (0, "")
    assert encodings(tmp_path / "small") == ["constexpr_lut_to_dense"]


def test_a_package(sdc, converted, tmp_path):
    package = next(converted.glob("*unet.mlpackage"))
    arguments = ["--sparsity", 0.5, "--dtype", "int8", "--target", "iOS18", "--no-measure"]
    done = sdc("compress", package, "-o", tmp_path / "small.mlpackage", *arguments)
    assert (done.status, done.err) == (0, "")
    kinds = {one.type for one in read_package(tmp_path / "small.mlpackage").program.operations()}
    assert {"constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense"} <= kinds


WRONG = {
    "nothing": ([], "palettization takes --nbits"),
    "five bits": (["--nbits", 5], "Error: --nbits: expected one of"),
    "no bits": (["--nbits", 0], "--nbits: expected one of (1, 2, 3, 4, 6, 8), got 0"),
    "integers of six bits": (["--method", "linear", "--nbits", 6], "--nbits: expected 4 or 8 for integers"),
    "a weight of five bits": (["--nbits", 4, "--weight", "*fc1*=5"], "*fc1*.nbits: expected one of"),
    "zeros alone": (["--sparsity", 1], "--sparsity: expected 0 to less than 1, got 1.0"),
    "a share of nothing": (
        ["--method", "palettize", "--nbits", 4, "--sparsity", 0],
        "--sparsity: not an option",
    ),
    "more than there are": (["--n-m", "5:2"], "--n-m: expected [n, m] with 0 < n < m"),
    "a bound of none": (["--recipe", __file__, "--min-elements", 0], "--min-elements: not an option beside"),
    "dtype of a table": (["--nbits", 4, "--dtype", "int8"], "--dtype: not an option of palettize"),
    "two shares": (["--sparsity", 0.5, "--n-m", "2:4"], "pruning takes either --sparsity or --n-m"),
    "half a pair": (["--n-m", "2"], "--n-m: expected two numbers such as 2:4, got '2'"),
    "two widths": (["--method", "linear", "--nbits", 4, "--dtype", "int8"], "either --nbits or --dtype"),
    "no such weight": (["--nbits", 4, "--select", "foo*"], "names of weights match, got 'foo*'"),
    "no pattern": (["--nbits", 4, "--weight", "foo"], "--weight: expected PATTERN=SCHEME, got 'foo'"),
    "no scheme": (["--nbits", 4, "--weight", "*=foo"], "expected bits, keep or a scheme in JSON, got 'foo'"),
    "three bits": (["--nbits", 3], "ask for the target iOS18"),
    "no component": (["--nbits", 4, "--components", "foo"], "expected a component 'foo'"),
    "a name without a file": (["--nbits", 4, "--recipe-name", "foo"], "--recipe-name: it needs --recipe"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_and_nothing_is_written(sdc, converted, tmp_path, name):
    arguments, expected = WRONG[name]
    done = sdc("compress", converted, "-o", tmp_path / "small", *arguments)
    assert done.status != 0
    assert expected in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(errno.ENOSPC, "No space left"), "sdc: error: No space left: free some or write elsewhere; "),
        (OSError(errno.EIO, "Input/output error", "a", None, "b"), "sdc: error: a to b: Input/output error"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a\nb"), "sdc: error: a b: No such file"),
        (OSError("no number"), "sdc: error: no number"),
    ],
)
def test_what_the_system_refuses_is_said_in_words(sdc, converted, tmp_path, monkeypatch, raised, said):
    def refuse(*_, **__):
        raise raised

    monkeypatch.setattr("sd_compress.compress_bundle", refuse)
    done = sdc("compress", converted, "-o", tmp_path / "small", "--nbits", 4)
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert done.err.startswith(said)
    assert "Errno" not in done.err


def test_converted_and_compressed_at_once_is_the_same(sdc, checkpoint, converted, tmp_path):
    assert sdc("compress", converted, "-o", tmp_path / "after", "--nbits", 4, "--no-measure").status == 0
    done = sdc("convert", checkpoint, "-o", tmp_path / "during", "--quantize-nbits", 4)
    assert done.status == 0, done.err
    after, during = open_bundle(tmp_path / "after"), open_bundle(tmp_path / "during")
    during.check_integrity()
    for one, other in zip(after.manifest.components, during.manifest.components, strict=True):
        assert one == other
        left, right = (read_package(each.package(one)).program for each in (after, during))
        for operation, twin in zip(left.operations(), right.operations(), strict=True):
            assert (operation.type, operation.name) == (twin.type, twin.name)
            for key, value in operation.attributes.items():
                np.testing.assert_array_equal(np.asarray(value.value), np.asarray(twin.attributes[key].value))

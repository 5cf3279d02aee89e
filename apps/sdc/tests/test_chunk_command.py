"""``sdc chunk``: the pieces draw what the whole draws."""

import json

import numpy as np
import pytest
from PIL import Image
from sd_bundle import open_bundle
from sd_mil import read_model, read_package
from sd_mil.format import layout_of


@pytest.fixture(scope="module")
def unet(converted):
    return next(converted.glob("*_unet.mlpackage"))


def draw(sdc, bundle, path):
    done = sdc(
        "generate", "-i", bundle, "--prompt", "a red circle on a blue background", "-o", path,
        "--num-inference-steps", 2,
    )  # fmt: skip
    assert done.status == 0, done.err
    return np.asarray(Image.open(path), int)


def test_a_bundle_in_pieces_draws_the_same(sdc, converted, tmp_path):
    cut = tmp_path / "cut"
    done = sdc("chunk", converted, "-o", cut, "--chunks", 3)
    assert done.status == 0, done.err
    assert "3" in done.out
    bundle = open_bundle(cut)
    bundle.check_integrity()
    chunks = bundle.component("unet").variants[0].chunks
    assert [chunk.package.rpartition("_")[2] for chunk in chunks] == [
        f"chunk{n}.mlpackage" for n in (1, 2, 3)
    ]
    whole = open_bundle(converted).component("unet")
    assert {port.name for port in bundle.component("unet").inputs} == {port.name for port in whole.inputs}
    difference = np.abs(draw(sdc, cut, tmp_path / "a.png") - draw(sdc, converted, tmp_path / "b.png"))
    assert difference.max() <= 2  # what crosses is float16, as in Core ML; the portable engine has float32


def test_pieces_keep_to_the_size(sdc, unet, tmp_path):
    done = sdc("chunk", unet, "-o", tmp_path / "pieces", "--chunk-size", "3MB", "--json")
    assert done.status == 0, done.err
    (cut,) = json.loads(done.out)["cuts"]
    assert cut["psnr"] is None or cut["psnr"] > 60
    pieces = sorted((tmp_path / "pieces").glob("*.mlpackage"))
    weights = [layout_of(read_package(piece).program).size for piece in pieces]
    assert len(pieces) == 3
    assert max(weights) <= 3_000_000
    assert sum(weights) == pytest.approx(layout_of(read_package(unet).program).size, rel=0.001)


def test_how_the_demo_crosses(sdc, unet, tmp_path):
    """Its values fit into fp16, so nothing crosses in fp32 unless that is asked for: then none is rounded."""
    found = {}
    for boundaries in ("auto", "fp16", "fp32"):
        pieces = tmp_path / boundaries
        done = sdc("chunk", unet, "-o", pieces, "--chunks", 2, "--boundaries", boundaries, "--json")
        assert done.status == 0, done.err
        (found[boundaries],) = json.loads(done.out)["cuts"]
    assert found["auto"] == found["fp16"]
    assert found["auto"]["in_fp32"] == []
    assert found["fp32"]["in_fp32"]
    assert found["fp32"]["crossing"] > found["fp16"]["crossing"]
    assert found["fp32"]["max_error"] < found["fp16"]["max_error"]


def test_what_fp16_does_not_hold_crosses_in_fp32(sdc, unet, tmp_path):
    """A threshold that no rounding to fp16 reaches: all crosses in fp32, and the pieces reach it."""
    asked = ("--chunks", 2, "--min-psnr", 95, "--json")
    done = sdc("chunk", unet, "-o", tmp_path / "auto", *asked)
    assert done.status == 0, done.err
    (cut,) = json.loads(done.out)["cuts"]
    assert cut["in_fp32"]
    assert cut["psnr"] is None or cut["psnr"] > 95
    done = sdc("chunk", unet, "-o", tmp_path / "fp16", *asked, "--boundaries", "fp16")
    assert done.status == 1
    assert "within 95 dB" in done.err
    assert not (tmp_path / "fp16").exists()


def test_a_pipeline_is_a_component_too(sdc, converted, tmp_path):
    done = sdc("chunk", converted, "-o", tmp_path / "cut", "--chunks", 2, "--merge-chunks", "--json")
    assert done.status == 0, done.err
    (cut,) = json.loads(done.out)["cuts"]
    assert (cut["pieces"], len(cut["bytes"])) == (2, 1)
    assert cut["crossing"] > 0
    package = open_bundle(tmp_path / "cut").component("unet").package
    assert len(read_model(tmp_path / "cut" / package).models) == 2
    difference = np.abs(
        draw(sdc, tmp_path / "cut", tmp_path / "a.png") - draw(sdc, converted, tmp_path / "b.png")
    )
    assert difference.max() <= 2


def test_one_command_to_a_phone(sdc, checkpoint, tmp_path):
    """What an app looks for, in two pieces, beside the bundle that it was compiled from."""
    cut = tmp_path / "cut"
    options = ("--components", "text_encoder,unet,vae_decoder", "--attention-implementation", "SPLIT_EINSUM")
    done = sdc("convert", checkpoint, "-o", cut, "--for", "iphone", *options, "--json")
    assert done.status == 0, done.err
    bundle, facts = open_bundle(cut), json.loads(done.out)
    unet = bundle.component("unet")
    assert unet.compression.methods == ("palettization",)
    assert unet.compression.bits_per_weight == pytest.approx(6, abs=0.2)
    assert len(unet.variants[0].chunks) == 2
    assert unet.attention_implementation == "SPLIT_EINSUM"  # what is said comes first
    assert {"UnetChunk1.mlmodelc", "UnetChunk2.mlmodelc", "vocab.json"} <= {
        path.name for path in (tmp_path / "cut-Resources").iterdir()
    }
    assert sum(size for name, size in facts["models"].items() if "Unet" in name) < 4e6
    assert {finding["rule"] for finding in facts["findings"]} == {"fp32-island"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "cut-Resources"]
    again = sdc("convert", checkpoint, "-o", tmp_path / "cut", "--for", "mac")
    assert (again.status, "cut-Resources exists" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "SPLIT_EINSUM_V2, CPU_AND_NE, iOS17"), (("--min-deployment-target", "iOS16"), "CPU_AND_NE, iOS16")],
)
def test_what_a_device_is_given_can_be_said_otherwise(sdc, checkpoint, tmp_path, arguments, said):
    options = ("--components", "vae_decoder", "--dry-run", *arguments)
    done = sdc("convert", checkpoint, "-o", tmp_path / "a", "--for", "ipad", *options)
    assert done.status == 0, done.err
    assert said in " ".join(done.out.split())


def test_pieces_are_not_cut_again(sdc, converted, tmp_path):
    sdc("chunk", converted, "-o", tmp_path / "cut", "--chunks", 2)
    done = sdc("chunk", tmp_path / "cut", "-o", tmp_path / "again", "--chunks", 2)
    assert done.status == 1
    assert "in one piece, got 2" in done.err
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "one of --chunks and --chunk-size"),
        (("--chunks", 2, "--chunk-size", "3MB"), "one of --chunks and --chunk-size"),
        (("--chunk-size", "1kB"), "alone: allow more"),
        (("--chunk-size", "much"), "a size such as"),
        (("--chunks", 2, "--components", "unet"), "not options for a package"),
    ],
)
def test_what_is_refused(sdc, unet, tmp_path, arguments, said):
    done = sdc("chunk", unet, "-o", tmp_path / "out", *arguments)
    assert done.status != 0
    assert said in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--chunks", 2, "--chunk-unet"), "got several"),
        (("--merge-chunks",), "needs --chunks"),
    ],
)
def test_what_convert_refuses(sdc, checkpoint, tmp_path, arguments, said):
    done = sdc("convert", checkpoint, "-o", tmp_path / "out", *arguments)
    assert done.status != 0
    assert said in done.err

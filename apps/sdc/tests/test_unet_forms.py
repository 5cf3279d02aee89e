"""``sdc convert --unet-form``: a UNet in several forms, and what becomes of such a bundle."""

import shutil

import pytest
from sd_bundle import Form, open_bundle

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
CONTROL = ("controlnet",)
FORMS = (Form(2, 77), Form(1, 77), Form(2, 77, CONTROL), Form(1, 77, CONTROL))


@pytest.fixture(scope="module")
def formed(checkpoint, tmp_path_factory, lowered_once, remembered):
    """The demo checkpoint in four forms."""
    from sd_convert import ConversionOptions, convert, open_checkpoint

    path = tmp_path_factory.mktemp("formed") / "bundle"
    options = ConversionOptions(unet_forms=("controlnet", "batch-one"))
    convert(open_checkpoint(checkpoint), path, options, cache=lowered_once)
    remembered(path)
    return path


def files_of(bundle):
    return [bundle / package / WEIGHTS for package in open_bundle(bundle).component("unet").packages]


def disk_bytes(folder):
    files = (path.stat() for path in folder.rglob("*") if path.is_file())
    return sum({(one.st_dev, one.st_ino): one.st_size for one in files}.values())


def test_four_forms_take_the_room_of_one(formed, converted):
    assert open_bundle(formed).forms() == FORMS
    first, *others = files_of(formed)
    assert all(first.samefile(other) for other in others)
    (alone,) = files_of(converted)
    assert first.read_bytes() == alone.read_bytes()


def test_a_picture_is_that_of_the_plain_bundle(sdc, formed, converted, tmp_path):
    for bundle, name in ((formed, "forms"), (converted, "plain")):
        done = sdc(
            "generate", "-i", bundle, "--prompt", "a red circle", "-o", tmp_path / f"{name}.png",
            "--num-inference-steps", 2, "--guidance-scale", 3,
        )  # fmt: skip
        assert done.status == 0, done.err
    from PIL import Image

    with Image.open(tmp_path / "forms.png") as ours, Image.open(tmp_path / "plain.png") as theirs:
        assert ours.tobytes() == theirs.tobytes()


def test_compressing_keeps_the_sharing(sdc, formed, tmp_path):
    unet = ("--nbits", 6, "--components", "unet", "--no-measure")
    done = sdc("compress", formed, "-o", tmp_path / "out", *unet)
    assert done.status == 0, done.err
    assert open_bundle(tmp_path / "out").forms() == FORMS
    first, *others = files_of(tmp_path / "out")
    assert all(first.samefile(other) for other in others)
    assert first.stat().st_size < files_of(formed)[0].stat().st_size


def test_chunks_of_each_form(sdc, formed, tmp_path):
    done = sdc("chunk", formed, "-o", tmp_path / "out", "--chunks", 2)
    assert done.status == 0, done.err
    bundle = open_bundle(tmp_path / "out")
    assert bundle.forms() == FORMS
    places = [[chunk.package for chunk in each.chunks] for each in bundle.component("unet").variants]
    assert all(len(packages) == 2 for packages in places)
    for pieces in zip(*places, strict=True):
        first, *others = (tmp_path / "out" / package / WEIGHTS for package in pieces)
        assert all(first.samefile(other) for other in others)


def test_apps_get_the_unet_with_and_without(sdc, formed, tmp_path):
    done = sdc("bundle", formed, "--for", "swift", "-o", tmp_path / "out")
    assert done.status == 0, done.err
    plain, controlled = (
        tmp_path / "out" / f"{name}.mlmodelc/weights/weight.bin" for name in ("Unet", "ControlledUnet")
    )
    assert plain.samefile(controlled)
    assert "with ControlNets" in done.out
    assert "UNets of batch 1, 77 tokens; batch 1, 77 tokens, with controlnet" in done.out


def test_the_hub_gets_one_form(sdc, formed, tmp_path):
    done = sdc("bundle", formed, "--for", "hub", "-o", tmp_path / "out")
    assert done.status == 1
    assert "UNet of one form in a repository, got batch 2, 77 tokens; batch 1" in done.err


def test_apple_s_option_for_one_sample(sdc, formed, tmp_path):
    done = sdc("generate", "-i", formed, "--prompt", "a", "-o", tmp_path / "x.png", "--unet-batch-one")
    assert done.status == 2
    assert "got 2, 1" in done.err


def test_a_copy_without_links_is_a_bundle_too(sdc, formed, tmp_path):
    shutil.copytree(formed, tmp_path / "copy")
    done = sdc("inspect", tmp_path / "copy")
    assert done.status == 0, done.err
    assert "batch 1, 77 tokens, with controlnet" in done.out


def test_the_options_of_the_command(sdc, checkpoint, tmp_path):
    done = sdc(
        "convert", checkpoint, "-o", tmp_path / "out", "--dry-run",
        "--unet-form", "batch-one", "--unet-form", "tokens=154",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert "unet (batch 1, 154 tokens)" in done.out
    done = sdc("convert", checkpoint, "-o", tmp_path / "out", "--unet-form", "tokens=many")
    assert done.status != 0
    assert "expected controlnet, batch-one, tokens=N, got 'tokens=many'" in done.err

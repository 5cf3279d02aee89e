"""``sdc convert --size A --size B``: and what becomes of such a bundle."""

import shutil

import pytest
from sd_bundle import open_bundle
from sd_convert import ConversionCache

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


@pytest.fixture(scope="module")
def sized(checkpoint, tmp_path_factory):
    """The demo checkpoint for two sizes, in 6 bits."""
    import sys

    from sdc.cli import main

    path = tmp_path_factory.mktemp("sized") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        options = ["--size", "64x64", "--size", "64x96", "--quantize-nbits", "6"]
        patch.setattr(sys, "argv", ["sdc", "convert", str(checkpoint), "-o", str(path), *options])
        with pytest.raises(SystemExit) as done:
            main()
    assert not done.value.code
    return path


def files_of(bundle, name):
    return [bundle / package / WEIGHTS for package in open_bundle(bundle).component(name).packages]


def test_sizes_share_compressed_weights(sized):
    bundle = open_bundle(sized)
    bundle.check_integrity()
    assert [str(size.image) for size in bundle.manifest.model.sizes] == ["64x64", "64x96"]
    assert bundle.component("unet").compression.methods == ("palettization",)
    for name in ("unet", "vae_decoder", "vae_encoder"):
        first, second = files_of(sized, name)
        assert first.samefile(second)


def test_compressing_keeps_the_sharing(sdc, sized, tmp_path):
    out = tmp_path / "out"
    done = sdc("compress", sized, "-o", out, "--nbits", 4, "--components", "vae_decoder", "--no-measure")
    assert done.status == 0, done.err
    for name in ("unet", "vae_decoder"):  # one compressed, the other copied
        first, second = files_of(out, name)
        assert first.samefile(second)
    assert files_of(out, "vae_decoder")[0].stat().st_size < files_of(sized, "vae_decoder")[0].stat().st_size
    assert open_bundle(out).component("vae_decoder").compression.methods == ("palettization",)


def test_a_copy_without_links_is_compressed_alike(sdc, sized, tmp_path):
    """Archives and the Hub lose hard links: equal files are recognised by what they hold."""
    shutil.copytree(sized, tmp_path / "copy")
    done = sdc(
        "compress", tmp_path / "copy", "-o", tmp_path / "out", "--nbits", 4, "--components", "vae_decoder"
    )
    assert done.status == 0, done.err
    first, second = files_of(tmp_path / "out", "vae_decoder")
    assert first.samefile(second)


def test_each_size_draws(sdc, sized, tmp_path):
    for size in ("64x64", "64x96"):
        done = sdc(
            "generate", "-i", sized, "--prompt", "a red circle", "-o", tmp_path / f"{size}.png",
            "--size", size, "--num-inference-steps", 2,
        )  # fmt: skip
        assert done.status == 0, done.err
    done = sdc("generate", "-i", sized, "--prompt", "a", "-o", tmp_path / "x.png", "--size", "96x64")
    assert done.status == 1
    assert "64x64, 64x96" in done.err


def test_a_folder_of_resources_for_each_size(sdc, sized, tmp_path):
    done = sdc("bundle", sized, "--for", "swift", "-o", tmp_path / "all")
    assert done.status == 0, done.err
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["64x64", "64x96"]
    first, second = (
        (tmp_path / "all" / size / "Unet.mlmodelc/weights/weight.bin") for size in ("64x64", "64x96")
    )
    assert first.samefile(second)
    done = sdc("bundle", sized, "--for", "swift", "-o", tmp_path / "one", "--size", "64x96")
    assert done.status == 0, done.err
    assert "64x96" in done.out
    done = sdc("bundle", sized, "--for", "hub", "-o", tmp_path / "hub")
    assert done.status == 1
    assert "64x64, 64x96" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--size", "64"), "WIDTHxHEIGHT"),
        (("--size", "65x64"), "multiples of"),
        (("--size", "64x64", "--size", "64x64"), "each size once"),
        (("--size", "64x64", "--latent-h", "8"), "without a latent size"),
        (("--size", "64x64", "--like", "bundle"), "--size does not go with --like"),
    ],
)
def test_sizes_that_are_refused(sdc, checkpoint, tmp_path, arguments, said):
    done = sdc("convert", checkpoint, "-o", tmp_path / "out", *arguments)
    assert done.status != 0
    assert said in done.err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_is_shared(sdc, checkpoint, tmp_path, sized):
    done = sdc(
        "convert", checkpoint, "-o", tmp_path / "out", "--size", "64x64", "--size", "64x96", "--dry-run"
    )
    assert done.status == 0, done.err
    assert "unet (64x96)" in done.out
    assert "shared" in done.out
    assert ConversionCache().usage().entries

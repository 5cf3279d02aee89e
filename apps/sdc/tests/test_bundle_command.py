"""``sdc bundle``: what apps look for is there, and they take it for what it is."""

import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from sd_bundle import open_bundle
from sd_mil import compile_model
from sdc.commands.bundle import command
from sdc.resources import ResourcesError, as_apps_see
from sdc.resources.names import controlnet_name

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference" / "reference-packages"


@pytest.fixture(scope="module")
def swift(converted, tmp_path_factory):
    from sdc.resources import write_resources

    folder = tmp_path_factory.mktemp("swift") / "Resources"
    write_resources(open_bundle(converted), folder, compile_model)
    return folder


def test_the_files_have_the_names_that_apps_look_for(swift):
    names = {path.name for path in swift.iterdir()}
    assert {
        "TextEncoder.mlmodelc",
        "Unet.mlmodelc",
        "VAEDecoder.mlmodelc",
        "vocab.json",
        "merges.txt",
    } <= names
    assert all((path / "coremldata.bin").is_file() for path in swift.glob("*.mlmodelc"))


def test_compiled_weights_take_no_space_twice(converted, tmp_path):
    folder = tmp_path / "Resources"
    done = CliRunner().invoke(command, [str(converted), "--for", "swift", "-o", str(folder)])
    assert done.exit_code == 0, done.output
    (source,) = converted.rglob("*unet*.mlpackage/**/weight.bin")
    assert source.samefile(folder / "Unet.mlmodelc" / "weights" / "weight.bin")
    assert open_bundle(converted).check_integrity() is None


def test_the_vocabulary_is_the_checkpoints(swift, checkpoint):
    for name in ("vocab.json", "merges.txt"):
        assert (swift / name).read_bytes() == (checkpoint / "tokenizer" / name).read_bytes()


def test_apps_recognise_attention_and_size(swift, converted):
    """The rules of Mochi Diffusion, restated: they look at these keys and at nothing else."""
    (unet,) = json.loads((swift / "Unet.mlmodelc" / "metadata.json").read_text())
    (encoder,) = json.loads((swift / "VAEEncoder.mlmodelc" / "metadata.json").read_text())
    model = open_bundle(converted).manifest.model
    assert "Ios16.einsum" in unet["mlProgramOperationTypeHistogram"]
    assert encoder["inputSchema"][0]["shape"] == f"[1, 3, {model.image.height}, {model.image.width}]"
    assert not {"time_ids", "text_embeds"} & {port["name"] for port in unet["inputSchema"]}
    assert {"identifier", "attention_implementation", "compute_unit"} <= unet["userDefinedMetadata"].keys()


@pytest.mark.parametrize(
    ("package", "name", "attention", "family", "controlled"),
    [
        ("sdxl_original/Stable_Diffusion_version_tiny-sdxl_unet", "Unet", "original", "sdxl", False),
        ("original/Stable_Diffusion_version_tiny-sd_unet", "UnetChunk1", "original", "sd", False),
        ("split_einsum_v2/Stable_Diffusion_version_tiny-sd_unet", "Unet", "split_einsum", "sd", False),
        (
            "controlnet/Stable_Diffusion_version_tiny-sd_control-unet",
            "ControlledUnet",
            "split_einsum",
            "sd",
            True,
        ),
    ],
)
def test_apps_tell_families_and_attention_apart(package, name, attention, family, controlled, tmp_path):
    folder = REFERENCE / f"{package}.mlpackage"
    if not folder.is_dir():
        pytest.skip("the reference packages are not on this machine")
    compile_model(folder, tmp_path / f"{name}.mlmodelc")
    seen = as_apps_see(tmp_path)
    assert (seen.attention, seen.family, seen.takes_controlnets) == (attention, family, controlled)


def test_a_repository_for_the_hub(sdc, converted, tmp_path):
    out = tmp_path / "repository"
    done = sdc("bundle", converted, "--for", "hub", "-o", out, "--name", "coreml-tiny", "--license", "mit")
    assert done.status == 0, done.err
    archive = "coreml-tiny_split_einsum_compiled"
    with zipfile.ZipFile(out / f"{archive}.zip") as made:
        assert made.testzip() is None
        assert {name.partition("/")[0] for name in made.namelist()} == {archive}
        assert f"{archive}/Unet.mlmodelc/model.mil" in made.namelist()
        assert f"{archive}/merges.txt" in made.namelist()
    packages = {path.name for path in (out / "split_einsum" / "packages").iterdir()}
    assert packages == {path.name for path in converted.glob("*.mlpackage")}
    assert (out / "README.md").read_text().startswith('---\nlicense: "mit"\n')


@pytest.mark.parametrize("target", ["swift", "hub"])
def test_a_unet_with_ip_adapters_is_refused_by_name(sdc, bundle, tmp_path, target):
    """No app gives it its images: it would draw without them, or not at all."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    (unet,) = (one for one in manifest["components"] if one["role"] == "denoiser")
    port = {"name": "ip_hidden_states_0", "shape": [2, 64, 1, 4], "dtype": "float16"}
    unet["variants"][0]["chunks"][0]["inputs"].append(port)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    done = sdc("bundle", bundle, "--for", target, "-o", tmp_path / "out")
    assert done.status == 1
    assert "one with IP-Adapters (ip_hidden_states_0, …)" in done.err
    assert "convert it without --ip-adapter" in done.err
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_of_what_fails(sdc, bundle, tmp_path):
    next(bundle.glob("*vae_decoder.mlpackage/Data/*/weights/weight.bin")).write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    done = sdc("bundle", bundle, "--for", "swift", "-o", tmp_path / "out")
    assert done.status == 1
    assert "weight.bin" in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_there_stays(sdc, converted, tmp_path):
    done = sdc("bundle", converted, "--for", "swift", "-o", tmp_path)
    assert done.status == 1
    assert "exists" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--for", "swift", "--name", "a"), "--name"),
        (("--for", "hub", "--size", "64x64"), "--size"),
        (("--for", "swift", "--size", "64"), "WIDTHxHEIGHT"),
        (("--for", "swift", "--size", "8x8"), "8x8"),
        (("--for", "hub", "--name", "../up"), "'../up'"),
    ],
)
def test_options_that_would_be_ignored_are_refused(sdc, converted, tmp_path, arguments, said):
    done = sdc("bundle", converted, *arguments, "-o", tmp_path / "out")
    assert done.status != 0
    assert said in done.err
    assert not (tmp_path / "out").exists()


def test_a_refiner_and_a_controlnet_need_their_base(sdc, converted, tmp_path):
    done = sdc("bundle", converted, "--for", "swift", "-o", tmp_path / "a", "--refiner", converted)
    assert "expected SDXL beside its refiner" in done.err
    done = sdc("bundle", converted, "--for", "swift", "-o", tmp_path / "b", "--controlled", converted)
    assert "--unet-support-controlnet" in done.err
    control = next(converted.glob("*unet.mlpackage"))
    done = sdc("bundle", converted, "--for", "swift", "-o", tmp_path / "c", "--controlnet", control)
    assert "expected a UNet that takes ControlNets" in done.err
    assert list(tmp_path.iterdir()) == []


def test_controlnets_are_called_as_apples_converter_calls_them(tmp_path):
    package = tmp_path / "ControlNet_lllyasviel_sd-controlnet-canny.mlpackage"
    assert controlnet_name(package) == "LllyasvielSdControlnetCanny"
    with pytest.raises(ResourcesError):
        controlnet_name(tmp_path / "ControlNet_.mlpackage")

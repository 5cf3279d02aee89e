"""Folders of Apple's converter, of its Swift package and of the Hub, opened as they are."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sd_bundle import BundleError, open_bundle
from sd_mil import Description, Port, compile_model
from sd_runtime import Pipeline, Unstated, adopt, open_any
from sd_runtime.foreign import find_networks
from sd_runtime.foreign.facts import model_facts

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference"
PACKAGES = REFERENCE / "reference-packages"
TOKENIZER = REFERENCE / "tiny-sd" / "tokenizer"
NAMES = {"text_encoder": "TextEncoder", "unet": "Unet", "vae_decoder": "VAEDecoder"}
OPTIONS: Any = {"num_inference_steps": 2, "guidance_scale": 3.0, "seed": 7}

SD1 = Unstated(family="sd1")  # the reference's text is narrower than that of any published model

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the reference packages")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """What Apple's converter left, as torch2coreml names it."""
    folder = tmp_path / "converted"
    for name in NAMES:
        file = f"Stable_Diffusion_version_tiny-sd_{name}.mlpackage"
        shutil.copytree(PACKAGES / "split_einsum" / file, folder / file)
    return folder


@pytest.fixture
def resources(packages: Path, tmp_path: Path) -> Path:
    """... and what it bundles for Swift, in a tree of the Hub."""
    folder = tmp_path / "coreml-tiny" / "split_einsum" / "compiled"
    folder.mkdir(parents=True)
    for name, resource in NAMES.items():
        source = packages / f"Stable_Diffusion_version_tiny-sd_{name}.mlpackage"
        compile_model(source, folder / f"{resource}.mlmodelc")
    for file in ("vocab.json", "merges.txt"):
        shutil.copyfile(TOKENIZER / file, folder / file)
    return folder


def drawn(bundle: Any, **options: Any) -> np.ndarray:
    (picture,) = Pipeline.open(bundle, **options).generate("a cat", **OPTIONS)
    return np.asarray(picture.image)


@needs_reference
def test_packages_and_resources_draw_the_same_picture(
    packages: Path, resources: Path, tmp_path: Path
) -> None:
    told = Unstated(family="sd1", tokenizer=TOKENIZER)
    adopted = adopt(packages, tmp_path / "bundle", told)
    assert (adopted.facts.family, adopted.facts.task, adopted.left) == ("sd1", "text-to-image", ())
    assert open_bundle(adopted.bundle).component("unet").attention_implementation == "SPLIT_EINSUM"
    expected = drawn(adopted.bundle)
    assert np.std(expected) > 2
    np.testing.assert_array_equal(drawn(packages, unstated=told), expected)
    np.testing.assert_array_equal(drawn(resources.parents[1], unstated=SD1), expected)
    assert open_any(resources.parents[1], SD1).manifest.model.identifier == "coreml-tiny"


@needs_reference
def test_files_are_linked_and_a_changed_folder_is_adopted_anew(packages: Path) -> None:
    told = Unstated(family="sd1", tokenizer=TOKENIZER)
    first = open_any(packages, told)
    assert open_any(packages, told).path == first.path
    weights = "Stable_Diffusion_version_tiny-sd_unet.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    assert os.path.samefile(packages / weights, first.path / weights)
    shutil.copyfile(packages / weights, packages / "copy")
    (packages / "copy").rename(packages / weights)
    assert open_any(packages, told).path != first.path


@needs_reference
def test_links_out_of_a_package_are_refused(packages: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    inside = packages / "Stable_Diffusion_version_tiny-sd_unet.mlpackage/Data/com.apple.CoreML/notes.txt"
    inside.symlink_to(secret)
    with pytest.raises(BundleError, match="link out of it"):
        adopt(packages, tmp_path / "bundle", Unstated(family="sd1", tokenizer=TOKENIZER))
    assert not (tmp_path / "bundle").exists()


@needs_reference
def test_a_hub_cache_is_links(packages: Path, tmp_path: Path) -> None:
    """``models--x/snapshots/REVISION/…`` holds links to ``models--x/blobs``."""
    snapshot = tmp_path / "models--x" / "snapshots" / "abc"
    for number, file in enumerate(path for path in packages.rglob("*") if path.is_file()):
        blob = tmp_path / "models--x" / "blobs" / str(number)
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blob)
        link = snapshot / file.relative_to(packages)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    adopted = adopt(snapshot, tmp_path / "bundle", Unstated(family="sd1", tokenizer=TOKENIZER))
    assert not any(path.is_symlink() for path in adopted.bundle.rglob("*"))


@needs_reference
def test_what_packages_do_not_say_is_asked_for(packages: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="--tokenizer"):
        adopt(packages, tmp_path / "bundle", SD1)
    with pytest.raises(BundleError, match="sdc import"):
        Pipeline.open(packages)
    with pytest.raises(BundleError, match="scheduler_config"):
        adopt(
            packages,
            tmp_path / "bundle",
            Unstated(family="sd1", tokenizer=TOKENIZER, scheduler=tmp_path / "none"),
        )


def padding(config: Path) -> Any:
    return json.loads(config.read_text())["pad_token"]


def port(name: str, *shape: int) -> Port:
    return Port(name, shape, "float16")


def described(width: int, *, channels: int = 4, more: tuple[Port, ...] = ()) -> dict[str, Description]:
    sample = port("sample", 2, channels, 8, 12)
    unet = (sample, port("timestep", 2), port("encoder_hidden_states", 2, width, 1, 77), *more)
    return {
        "text_encoder": Description((port("input_ids", 1, 77),), ()),
        "unet": Description(unet, (port("noise_pred", 2, 4, 8, 12),)),
        "vae_decoder": Description((port("z", 1, 4, 8, 12),), (port("image", 1, 3, 64, 96),)),
        "vae_encoder": Description((port("x", 1, 3, 64, 96),), (port("latent", 1, 8, 8, 12),)),
    }


def test_facts_are_read_off_the_ports() -> None:
    xl = described(2048, more=(port("time_ids", 12), port("text_embeds", 2, 1280)))
    facts = model_facts("xl", {**xl, "text_encoder_2": xl["text_encoder"]}, Unstated())
    assert (facts.family, facts.conditioning.time_ids) == ("sdxl", "size")
    assert facts.conditioning.zero_empty_negative
    assert [one.tokenizer for one in facts.text_encoders] == ["tokenizer", "tokenizer_2"]
    assert (facts.vae.scaling_factor, facts.vae.encodes) == (0.13025, "moments")
    assert (facts.image.height, facts.image.width) == (64, 96)
    assert model_facts("m", described(768, channels=9), Unstated()).task == "inpainting"
    assert model_facts("m", described(768, channels=8), Unstated()).task == "instruct-pix2pix"
    with pytest.raises(BundleError, match="--prediction-type"):
        model_facts("m", described(1024), Unstated())
    assert model_facts("m", described(1024), Unstated(prediction_type="v_prediction")).family == "sd2"
    with pytest.raises(BundleError, match="--family"):
        model_facts("m", described(640), Unstated())


def test_what_metadata_state_is_not_asked_for() -> None:
    """sd-convert and Guernika's converter write it; a v model taken for one of epsilon draws noise."""
    networks = described(1024)
    stated = {"identifier": "mine/v", "prediction_type": "v_prediction"}
    networks["unet"] = dataclasses.replace(networks["unet"], user_defined=stated)
    facts = model_facts("m", networks, Unstated())
    assert (facts.identifier, facts.prediction_type) == ("mine/v", "v_prediction")
    assert model_facts("m", networks, Unstated(prediction_type="epsilon")).prediction_type == "epsilon"
    networks["unet"] = dataclasses.replace(networks["unet"], user_defined={"prediction_type": "flow"})
    with pytest.raises(BundleError, match="got 'flow'"):
        model_facts("m", networks, Unstated())


@needs_reference
def test_the_second_tokenizer_pads_with_an_exclamation_mark(resources: Path, tmp_path: Path) -> None:
    config = tmp_path / "bundle" / "tokenizer" / "tokenizer_config.json"
    adopt(resources, tmp_path / "bundle", Unstated(family="sd2", prediction_type="epsilon"))
    assert padding(config) == "!"
    adopt(resources, tmp_path / "bundle", SD1, overwrite=True)
    assert padding(config) == "<|endoftext|>"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "got none"),
        (["a/Unet.mlmodelc", "b/Unet.mlmodelc"], "those of a, b"),
        (["UnetChunk1.mlmodelc", "UnetChunk3.mlmodelc"], r"from 1 on, got \[1, 3\]"),
        (["UnetChunk1.mlmodelc"], r"got \[1\]"),
        (["Unet.mlmodelc", "Unet.mlpackage"], "unet again"),
        (
            ["Stable_Diffusion_version_a_unet.mlpackage", "Stable_Diffusion_version_b_unet_chunk1.mlpackage"],
            "got a, b",
        ),
    ],
)
def test_folders_that_are_not_one_model(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(BundleError, match=message):
        find_networks(tmp_path)


def test_names(tmp_path: Path) -> None:
    files = ["unet_chunk1", "unet_chunk2", "control-unet", "text_encoder_2", "vae_encoder"]
    for name in files:
        (tmp_path / f"Stable_Diffusion_version_stabilityai_sd-xl_{name}.mlpackage").mkdir()
    found = find_networks(tmp_path)
    assert found.model == "stabilityai_sd-xl"
    assert [path.name[-17:] for path in found.networks["unet"]] == ["_chunk1.mlpackage", "_chunk2.mlpackage"]
    assert set(found.networks) == {"unet", "control-unet", "text_encoder_2", "vae_encoder"}

"""Bad input: one line on standard error, a non-zero exit, and what was there before as it was."""

import hashlib
import json
import shutil
import sys

import pytest


def fingerprint(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


def refused(done, *words):
    assert done.status not in (0, None)
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert "Traceback" not in done.err
    assert "a bug" not in done.err
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture
def damaged(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "damaged")


def test_missing_checkpoint(sdc, tmp_path):
    refused(sdc("convert", tmp_path / "nowhere", "-o", tmp_path / "b"), "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_no_checkpoint(sdc, tmp_path):
    (tmp_path / "folder").mkdir()
    refused(sdc("convert", tmp_path / "folder", "-o", tmp_path / "b"), "model_index.json")


def test_half_downloaded_checkpoint(sdc, damaged, tmp_path):
    weights = damaged / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(sdc("convert", damaged, "-o", tmp_path / "b"), "diffusion_pytorch_model.safetensors")
    weights.unlink()
    refused(sdc("convert", damaged, "-o", tmp_path / "b"), "unet")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_unsupported_architecture(sdc, damaged, tmp_path):
    config = json.loads((damaged / "unet" / "config.json").read_text())
    (damaged / "unet" / "config.json").write_text(json.dumps({**config, "class_embed_type": "timestep"}))
    refused(sdc("convert", damaged, "-o", tmp_path / "b"), "class_embed_type")


@pytest.mark.parametrize("arguments", [("--components", "unet,nose"), ("--min-deployment-target", "macOS12")])
def test_unknown_choice_lists_the_choices(sdc, checkpoint, tmp_path, arguments):
    refused(sdc("convert", checkpoint, "-o", tmp_path / "b", *arguments), arguments[1].split(",")[-1])


def test_output_that_exists(sdc, checkpoint, bundle, tmp_path):
    before = fingerprint(bundle)
    refused(sdc("convert", checkpoint, "-o", bundle, "--components", "vae_decoder"), "overwrite")
    assert fingerprint(bundle) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    refused(sdc("convert", checkpoint, "-o", tmp_path / "mine", "--overwrite"), "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_interrupted_conversion_leaves_the_old_bundle(sdc, checkpoint, bundle, tmp_path, monkeypatch):
    import sd_convert  # noqa: F401 - its function hides its module of the same name

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    before = fingerprint(bundle)
    monkeypatch.setattr(sys.modules["sd_convert.conversion.convert"]._Work, "_write", interrupt)
    done = sdc("convert", checkpoint, "-o", bundle, "--overwrite")
    refused(done, "interrupted")
    assert done.status == 130
    assert fingerprint(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_truncated_weights(sdc, bundle, tmp_path):
    (weights,) = bundle.glob("*unet.mlpackage/**/weight.bin")
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(sdc("generate", "a", "-i", bundle, "-o", tmp_path / "x.png"), "weight.bin")
    refused(sdc("inspect", weights.parents[3]), "weight.bin")
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda manifest: manifest | {"surprise": 1}, "surprise"),
        (lambda manifest: manifest | {"files": {"../x": {"size": 0, "sha256": "0" * 64}}}, ".."),
        (lambda manifest: manifest | {"version": 99}, "99"),
    ],
)
def test_broken_manifest(sdc, bundle, tmp_path, change, word):
    path = bundle / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    refused(sdc("generate", "a", "-i", bundle, "-o", tmp_path / "x.png"), word)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--scheduler", "nosuch"),
        ("--seed", -1),
        ("--num-inference-steps", 0),
        ("--engine", "coreml"),
        ("--guidance-scale", "nan"),
        ("--engine", "reference", "--precision", "bf16"),
    ],
)
def test_settings_that_make_no_sense(sdc, converted, tmp_path, arguments):
    refused(sdc("generate", "a", "-i", converted, "-o", tmp_path / "x.png", *arguments), "expected")


def test_picture_with_nowhere_to_go(sdc, converted, tmp_path):
    done = sdc("generate", "a", "-i", converted, "-o", tmp_path / "no" / "x.png")
    assert done.status != 0
    assert "existing folder" in done.err
    done = sdc("generate", "a", "-i", converted, "-o", tmp_path / "x.bmp")
    assert done.status != 0
    assert ".png" in done.err


def test_verify_against_another_checkpoint(sdc, converted, damaged):
    config = json.loads((damaged / "model_index.json").read_text())
    (damaged / "model_index.json").write_text(
        json.dumps(config | {"_class_name": "StableDiffusion3Pipeline"})
    )
    refused(sdc("verify", converted, "--against", damaged), "StableDiffusion3Pipeline")


def test_inspecting_what_is_neither(sdc, tmp_path):
    refused(sdc("inspect", tmp_path), "expected")
    refused(sdc("inspect", tmp_path / "nothing.mlpackage"), "nothing.mlpackage")

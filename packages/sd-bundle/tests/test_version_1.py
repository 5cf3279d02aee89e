"""Manifests of version 1 open as if they had been written today."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sd_bundle import (
    BundleComponent,
    Chunk,
    DenoiserFacts,
    ImageSize,
    LatentSize,
    ManifestError,
    PictureSize,
    PortSpec,
    Variant,
    format_manifest,
    open_bundle,
    parse_manifest,
)

RECORD = {"size": 1, "sha256": "0" * 64}
#: A latent consistency model as the first edition of the converter wrote it.
DOCUMENT: dict[str, Any] = {
    "format": "sd-bundle",
    "version": 1,
    "model": {
        "identifier": "org/lcm",
        "family": "sd1",
        "task": "text-to-image",
        "prediction_type": "epsilon",
        "scheduler": "scheduler/scheduler_config.json",
        "latent": {"channels": 4, "height": 64, "width": 96},
        "image": {"height": 512, "width": 768},
        "vae": {"scaling_factor": 0.18215, "shift_factor": 0, "encodes": "moments"},
        "text_encoders": [
            {"component": "text_encoder", "tokenizer": "tokenizer", "hidden_states": "last_hidden_state"}
        ],
        "conditioning": {"time_ids": "none", "zero_empty_negative": False, "guidance_embedding": True},
    },
    "components": [
        {
            "name": "text_encoder",
            "role": "text_encoder",
            "package": "text_encoder.mlpackage",
            "inputs": [{"name": "input_ids", "shape": [1, 77], "dtype": "float32"}],
            "outputs": [{"name": "last_hidden_state", "shape": [1, 77, 768], "dtype": "float32"}],
            "attention_implementation": None,
            "compute_unit": "ALL",
            "deployment_target": "macOS13",
        },
        {
            "name": "unet",
            "role": "denoiser",
            "package": "unet.mlpackage",
            "inputs": [
                {"name": "sample", "shape": [2, 4, 64, 96], "dtype": "float16"},
                {"name": "timestep_cond", "shape": [2, 256], "dtype": "float16"},
            ],
            "outputs": [{"name": "noise_pred", "shape": [2, 4, 64, 96], "dtype": "float32"}],
            "attention_implementation": "SPLIT_EINSUM",
            "compute_unit": "CPU_AND_NE",
            "deployment_target": "iOS16",
        },
    ],
    "compression": "none",
    "provenance": {
        "source": "org/lcm",
        "revision": "abc",
        "tools": {"sd-convert": "0.1.0"},
        "created": "2026-01-31T12:00:00Z",
    },
    "files": {
        "scheduler/scheduler_config.json": RECORD,
        "text_encoder.mlpackage/Manifest.json": RECORD,
        "tokenizer/vocab.json": RECORD,
        "unet.mlpackage/Manifest.json": RECORD,
    },
}


def changed(edit: Callable[[Any], object]) -> str:
    document = json.loads(json.dumps(DOCUMENT))
    edit(document)
    return json.dumps(document)


def test_what_it_says() -> None:
    manifest = parse_manifest(json.dumps(DOCUMENT))
    text_encoder, unet = manifest.components
    size = ImageSize(512, 768)
    assert manifest.version == 3
    assert manifest.model.sizes == (PictureSize(size, LatentSize(4, 64, 96)),)
    assert (manifest.model.image, manifest.model.latent_shape) == (size, (1, 4, 64, 96))
    assert manifest.model.denoiser == DenoiserFacts("unet", "lcm")
    assert manifest.model.identifier == "org/lcm"
    assert text_encoder.variant.size is None
    assert unet == BundleComponent(
        name="unet",
        role="denoiser",
        variants=(
            Variant(
                size,
                (
                    Chunk(
                        "unet.mlpackage",
                        None,
                        (
                            PortSpec("sample", (2, 4, 64, 96), "float16"),
                            PortSpec("timestep_cond", (2, 256), "float16"),
                        ),
                        (PortSpec("noise_pred", (2, 4, 64, 96), "float32"),),
                    ),
                ),
            ),
        ),
        attention_implementation="SPLIT_EINSUM",
        compression=None,
        compute_unit="CPU_AND_NE",
        deployment_target="iOS16",
    )
    assert manifest.provenance.weights is None
    assert manifest.provenance.revision == "abc"
    assert list(manifest.files) == list(DOCUMENT["files"])


def test_written_again_it_is_of_version_3_and_says_the_same() -> None:
    manifest = parse_manifest(json.dumps(DOCUMENT))
    text = format_manifest(manifest)
    assert json.loads(text)["version"] == 3
    assert parse_manifest(text) == manifest


def test_a_model_that_takes_no_guidance_scale_is_not_distilled() -> None:
    def edit(document: Any) -> None:
        document["model"]["conditioning"]["guidance_embedding"] = False
        del document["components"][1]["inputs"][1]

    assert parse_manifest(changed(edit)).model.denoiser == DenoiserFacts("unet", None)


def test_a_bundle_of_version_1_opens(tmp_path: Path, write_bundle: Callable[..., None]) -> None:
    """The same files under a manifest of either version are the same bundle."""
    write_bundle(tmp_path / "bundle")
    new = json.loads((tmp_path / "bundle/manifest.json").read_text())
    (component,), (size,) = new["components"], new["model"].pop("sizes")
    ((variant,), _) = component.pop("variants"), component.pop("compression")
    (chunk,) = variant["chunks"]
    del chunk["function"], new["model"]["denoiser"], new["model"]["recipe"], new["provenance"]["weights"]
    component |= chunk
    new["model"] |= size
    old = new | {"version": 1, "compression": "none"}
    opened = open_bundle(tmp_path / "bundle")
    (tmp_path / "bundle/manifest.json").write_text(json.dumps(old))
    again = open_bundle(tmp_path / "bundle")
    again.check_integrity()
    assert again.manifest == opened.manifest


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (lambda d: d["model"].update(sizes=[]), r"\$\.model\.sizes: expected one of the fields"),
        (lambda d: d.pop("compression"), r"\$\.compression: expected this field"),
        (lambda d: d.update(compression="palettized"), r"\$\.compression: expected 'none'"),
        (lambda d: d["components"][1].update(role="upscaler"), r"\$\.components\[1\]\.role: expected"),
        (
            lambda d: d["components"][1].update(package="../x"),
            r"\$\.components\[1\]\.package: expected",
        ),
        (lambda d: d["components"][1].update(name=" "), r"\$\.components\[1\]\.name: expected text"),
        (lambda d: d["model"]["latent"].update(width=64), r"\$\.components\[1\]\.inputs: expected an input"),
        (lambda d: d["model"]["latent"].update(width=0), r"\$\.model\.latent\.width: expected a positive"),
        (
            lambda d: d["files"].pop("unet.mlpackage/Manifest.json"),
            r"\$\.components\[1\]\.package:",
        ),
    ],
)
def test_errors_speak_of_the_document_as_it_is(edit: Callable[[Any], object], where: str) -> None:
    with pytest.raises(ManifestError, match=where):
        parse_manifest(changed(edit))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Any:
    for key, member in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(member, dict | list):
            yield from leaves(member, (*path, key))


def test_every_field_with_every_type_is_read_or_a_manifest_error() -> None:
    for path in leaves(DOCUMENT):
        for other in (None, True, 0, -1.5, "", "x", [], {}, [[]], {"x": None}):
            document = place = json.loads(json.dumps(DOCUMENT))
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = other
            with suppress(ManifestError):  # and nothing else
                parse_manifest(json.dumps(document))


@pytest.mark.parametrize("version", [4, 2**40])
def test_a_later_version(version: int) -> None:
    with pytest.raises(ManifestError, match="written by a newer sdc: update to read it"):
        parse_manifest(json.dumps({"format": "sd-bundle", "version": version, "novelty": 1}))


@pytest.mark.parametrize("version", [None, True, 1.0, "1", 0, -1, [1]])
def test_what_is_no_version(version: object) -> None:
    with pytest.raises(ManifestError, match=r"at \$\.version: expected 1, 2 or 3, which this"):
        parse_manifest(json.dumps(DOCUMENT | {"version": version}))

"""A component of several packages: chunks that run one after the other, and networks for several sizes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from sd_bundle import (
    Bundle,
    BundleComponent,
    Chunk,
    Compression,
    ConditioningFacts,
    DenoiserFacts,
    Form,
    ImageSize,
    IntegrityError,
    LatentSize,
    ManifestError,
    MissingComponentError,
    ModelFacts,
    PictureSize,
    PortSpec,
    Provenance,
    UnsupportedBundleError,
    VaeFacts,
    Variant,
    new_bundle,
    open_bundle,
)

SMALL, WIDE, TALL = ImageSize(64, 64), ImageSize(64, 128), ImageSize(128, 64)
FACTS = ModelFacts(
    identifier="org/sizes",
    family="sd1",
    task="text-to-image",
    denoiser=DenoiserFacts("unet", None),
    prediction_type="epsilon",
    scheduler="scheduler.json",
    sizes=tuple(
        PictureSize(size, LatentSize(4, size.height // 8, size.width // 8)) for size in (WIDE, SMALL)
    ),
    vae=VaeFacts(1.0, 0.0, "moments"),
    text_encoders=(),
    conditioning=ConditioningFacts("none", zero_empty_negative=False, guidance_embedding=False),
)
PROVENANCE = Provenance("org/sizes", None, {}, "2026-01-31T12:00:00Z")


def port(name: str, *shape: int, dtype: str = "float16") -> PortSpec:
    return PortSpec(name, shape, dtype)  # type: ignore[arg-type]


def chunked(size: ImageSize, *packages: str) -> Variant:
    """A denoiser in two chunks, of which the second takes the text again and two values of the first."""
    latent = (size.height // 8, size.width // 8)
    sample, text = port("sample", 2, 4, *latent), port("encoder_hidden_states", 2, 6, 1, 77)
    hidden, skip = port("hidden", 2, 8, *latent), port("skip", 2, 4, *latent)
    first = Chunk(packages[0], None, (sample, port("timestep", 2), text), (hidden, skip))
    last = Chunk(packages[-1], None, (skip, text, hidden), (port("noise_pred", 2, 4, *latent),))
    return Variant(size, (first, last))


UNET = BundleComponent(
    name="unet",
    role="denoiser",
    variants=(
        chunked(WIDE, "wide_1.mlpackage", "wide_2.mlpackage"),
        chunked(SMALL, "small_1.mlpackage", "small_2.mlpackage"),
    ),
    attention_implementation=None,
    compression=Compression(("palettization",), 6.5, "recipes/unet.json"),
    compute_unit="CPU_AND_NE",
    deployment_target="iOS17",
)
#: One package with a function for each size.
DECODER = BundleComponent(
    name="vae_decoder",
    role="image_decoder",
    variants=tuple(
        Variant(size, (Chunk("decoder.mlpackage", str(size), (port("z", 1, 4, 8, 8),), (port("image", 1),)),))
        for size in (SMALL, WIDE)
    ),
    attention_implementation=None,
    compression=None,
    compute_unit="ALL",
    deployment_target="iOS18",
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    with new_bundle(tmp_path / "bundle", FACTS, provenance=PROVENANCE) as draft:
        for component in (UNET, DECODER):
            for place in draft.add_packages(component):
                place.mkdir()
                (place / "Manifest.json").write_text(place.name)
        draft.add_file("scheduler.json", b"{}")
        draft.add_file("recipes/unet.json", b"{}")
    return open_bundle(tmp_path / "bundle")


def test_it_is_written_and_read(bundle: Bundle) -> None:
    bundle.check_integrity()
    assert bundle.manifest.components == (UNET, DECODER)
    assert UNET.packages == (
        "wide_1.mlpackage",
        "wide_2.mlpackage",
        "small_1.mlpackage",
        "small_2.mlpackage",
    )
    assert DECODER.packages == ("decoder.mlpackage",)
    assert (
        bundle.checked_folder("small_2.mlpackage").joinpath("Manifest.json").read_text()
        == "small_2.mlpackage"
    )


def test_the_ports_of_the_whole() -> None:
    variant = UNET.variants[0]
    assert [port.name for port in variant.inputs] == ["sample", "timestep", "encoder_hidden_states"]
    assert [port.name for port in variant.outputs] == ["noise_pred"]


def test_an_output_of_an_early_chunk_that_no_chunk_takes_is_one_of_the_whole() -> None:
    first = Chunk("1.mlpackage", None, (port("a", 1),), (port("b", 1), port("pooled", 1)))
    last = Chunk("2.mlpackage", None, (port("b", 1),), (port("c", 1),))
    assert [port.name for port in Variant(None, (first, last)).outputs] == ["pooled", "c"]


def test_at_a_size_it_is_a_bundle_of_that_size_alone(bundle: Bundle) -> None:
    small = bundle.at_size(SMALL)
    assert [size.image for size in small.manifest.model.sizes] == [SMALL]
    assert small.manifest.model.latent_shape == (1, 4, 8, 8)
    assert small.only("denoiser").variants == (UNET.variants[1],)
    assert small.only("denoiser").packages == ("small_1.mlpackage", "small_2.mlpackage")
    assert small.only("image_decoder").chunk.function == "64x64"
    assert small.at_size(SMALL) is small


def test_without_a_size_it_is_the_first(bundle: Bundle) -> None:
    assert bundle.at_size() == bundle.at_size(WIDE)
    assert bundle.at_size().manifest.model.image == WIDE


def test_another_size_is_refused(bundle: Bundle) -> None:
    with pytest.raises(
        MissingComponentError, match=r"expected a picture size of .* \(128x64, 64x64\), got 64x128"
    ):
        bundle.at_size(TALL)


def test_a_component_without_that_size_is_missed(bundle: Bundle) -> None:
    only_wide = dataclasses.replace(DECODER, variants=DECODER.variants[1:])
    manifest = dataclasses.replace(bundle.manifest, components=(UNET, only_wide))
    small = dataclasses.replace(bundle, manifest=manifest).at_size(SMALL)
    with pytest.raises(MissingComponentError, match="role image_decoder"):
        small.only("image_decoder")


def test_who_deals_with_one_package_is_told_of_several(bundle: Bundle) -> None:
    with pytest.raises(UnsupportedBundleError, match=r"expected one variant, got several \(128x64; 64x64\)"):
        bundle.package(UNET)
    (unet, _) = bundle.at_size(SMALL).manifest.components
    with pytest.raises(
        UnsupportedBundleError, match=r"in one piece, got small_1\.mlpackage, small_2\.mlpackage"
    ):
        bundle.package(unet)


def test_a_changed_chunk_is_found(bundle: Bundle) -> None:
    (bundle.path / "small_2.mlpackage/Manifest.json").write_text("small_3.mlpackage")
    bundle.checked_folder("small_1.mlpackage")
    with pytest.raises(IntegrityError, match=r"small_2\.mlpackage/Manifest\.json"):
        bundle.checked_folder("small_2.mlpackage")


def test_the_manifest_has_them_in_their_order(bundle: Bundle) -> None:
    document = json.loads((bundle.path / "manifest.json").read_text())
    first = document["components"][0]["variants"][0]
    assert first["size"] == {"height": 64, "width": 128}
    assert [chunk["package"] for chunk in first["chunks"]] == ["wide_1.mlpackage", "wide_2.mlpackage"]
    assert document["components"][0]["compression"] == {
        "methods": ["palettization"],
        "bits_per_weight": 6.5,
        "recipe": "recipes/unet.json",
    }


def test_a_text_encoder_has_no_picture_size() -> None:
    with pytest.raises(ManifestError, match=r"variants\[0\]\.size: expected null for the role text_encoder"):
        dataclasses.replace(UNET, role="text_encoder")


def of_form(number: int, batch: int, tokens: int, *, controlled: bool) -> Variant:
    inputs = [port("sample", batch, 4, 8, 8), port("encoder_hidden_states", batch, 8, 1, tokens)]
    if controlled:
        inputs.append(port("additional_residual_0", batch, 8, 8, 8))
    outputs = (port("noise_pred", batch, 4, 8, 8),)
    return Variant(SMALL, (Chunk("small_1.mlpackage", str(number), tuple(inputs), outputs),))


FORMS = (
    Form(2, 77),
    Form(2, 77, ("controlnet",)),
    Form(1, 154),
    Form(1, 77),
)


@pytest.fixture
def in_forms(bundle: Bundle) -> Bundle:
    """The small size in several forms, beside the wide one as it was."""
    small = tuple(
        of_form(number, form.batch or 0, form.tokens or 0, controlled=bool(form.takes))
        for number, form in enumerate(FORMS)
    )
    unet = dataclasses.replace(UNET, variants=(UNET.variants[0], *small))
    manifest = dataclasses.replace(bundle.manifest, components=(unet, DECODER))
    return dataclasses.replace(bundle, manifest=manifest)


def test_what_forms_there_are(in_forms: Bundle) -> None:
    assert in_forms.forms(SMALL) == FORMS
    assert len(in_forms.forms()) == len(in_forms.forms(WIDE)) == 1
    assert in_forms.at_size(SMALL).forms() == FORMS[:1]
    assert str(FORMS[1]) == "batch 2, 77 tokens, with controlnet"
    labels = in_forms.component("unet").labels
    assert labels[2] == "64x64, batch 2, 77 tokens, with controlnet"
    assert UNET.labels == ("128x64", "64x64")
    assert dataclasses.replace(UNET, variants=UNET.variants[:1]).labels == ("",)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_found(in_forms: Bundle, form: Form) -> None:
    narrowed = in_forms.at_size(SMALL, form)
    assert narrowed.only("denoiser").variant.form == form
    assert narrowed.only("image_decoder").chunk.function == "64x64"  # which has but one


def test_of_another_form_it_is_the_most_like(in_forms: Bundle) -> None:
    other = Form(1, 154, ("controlnet",))  # a ControlNet, say, has no such inputs
    assert in_forms.at_size(SMALL, other).only("denoiser").variant.form == Form(1, 154)


def test_one_form_twice_is_refused() -> None:
    twice = (of_form(1, 2, 77, controlled=False), of_form(2, 2, 77, controlled=False))
    with pytest.raises(ManifestError, match="'64x64, batch 2, 77 tokens' twice"):
        dataclasses.replace(UNET, variants=twice)

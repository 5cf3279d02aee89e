"""One UNet in several forms: with and without residuals, for one sample or two, for longer prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sd_bundle import Form, ImageSize, open_bundle
from sd_convert import (
    Checkpoint,
    ConversionCache,
    ConversionOptions,
    ConversionReport,
    LikeError,
    Likeness,
    OptionsError,
    convert,
    open_checkpoint,
    plan,
    verify,
)
from sd_mil.format import WEIGHTS

pytestmark = pytest.mark.long

ASKED = ("controlnet", "tokens=154")
CONTROL = ("controlnet",)
FORMS = (Form(2, 77), Form(2, 77, CONTROL), Form(2, 154), Form(2, 154, CONTROL))


@pytest.fixture(scope="module")
def checkpoint(_tiny_fp16: Path) -> Checkpoint:
    return open_checkpoint(_tiny_fp16)


@pytest.fixture(scope="module")
def made(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ConversionReport]:
    """A bundle of the text encoder and the UNet, with these options."""
    cache = ConversionCache(tmp_path_factory.mktemp("cache"))
    folder, known = tmp_path_factory.mktemp("bundles"), {}

    def convert_once(**options: object) -> ConversionReport:
        key = str(sorted(options.items()))
        if key not in known:
            chosen = ConversionOptions(components=("text_encoder", "unet"), **options)
            known[key] = convert(checkpoint, folder / str(len(known)), chosen, cache=cache)
        return known[key]

    return convert_once


def weight_files(report: ConversionReport) -> list[Path]:
    packages = open_bundle(report.bundle).component("unet").packages
    return [report.bundle / package / WEIGHTS for package in packages]


def test_every_form_is_there_with_the_weights_of_one(made: Callable[..., ConversionReport]) -> None:
    report = made(unet_forms=ASKED)
    bundle = open_bundle(report.bundle)
    assert bundle.forms() == FORMS
    first, *others = weight_files(report)
    assert all(first.samefile(other) for other in others)
    (alone,) = weight_files(made())
    assert first.read_bytes() == alone.read_bytes()
    assert len(bundle.component("text_encoder").variants) == 1
    unet = report.components[1]
    assert unet.sizes == (str(bundle.manifest.model.image),)
    assert unet.variants[0] == "batch 2, 77 tokens"
    last = bundle.component("unet").packages[-1]
    assert last.endswith("control-unet_154tokens.mlpackage")


def test_functions_of_one_package(made: Callable[..., ConversionReport]) -> None:
    report = made(unet_forms=("controlnet", "batch-one"), target="iOS18")
    (shared,) = weight_files(report)
    (alone,) = weight_files(made())
    assert shared.read_bytes() == alone.read_bytes()
    variants = open_bundle(report.bundle).component("unet").variants
    names = [variant.chunks[0].function for variant in variants]
    assert names == ["16x16_batch2", "16x16_batch1", "16x16_batch2_control", "16x16_batch1_control"]


@pytest.mark.parametrize("target", ["macOS13", "iOS18"])
def test_every_form_computes_what_torch_does(
    made: Callable[..., ConversionReport], checkpoint: Checkpoint, target: str
) -> None:
    asked = ASKED if target == "macOS13" else ("controlnet", "batch-one")
    report = verify(made(unet_forms=asked, target=target).bundle, checkpoint, components=["unet"])
    assert report.passed
    forms = FORMS if target == "macOS13" else (*FORMS[:2], Form(1, 77), Form(1, 77, CONTROL))
    assert {row.form for row in report.rows} == set(map(str, forms))
    assert {row.size for row in report.rows} == {None}


def test_sizes_and_forms_multiply(checkpoint: Checkpoint, tmp_path: Path) -> None:
    options = ConversionOptions(
        components=("unet", "vae_decoder"),
        sizes=(ImageSize(16, 16), ImageSize(32, 16)),
        unet_forms=("batch-one",),
    )
    planned = plan(checkpoint, options).components
    told = [(one.name, one.size, one.form) for one in planned]
    assert told == [
        ("unet", "16x16", "batch 2, 77 tokens"),
        ("unet", "16x16", "batch 1, 77 tokens"),
        ("unet", "16x32", "batch 2, 77 tokens"),
        ("unet", "16x32", "batch 1, 77 tokens"),
        ("vae_decoder", "16x16", None),
        ("vae_decoder", "16x32", None),
    ]
    assert planned[3].package.endswith("_unet_16x32_batch1.mlpackage")
    assert [bool(one.package_bytes) for one in planned] == [True, False, False, False, True, False]


def test_like_a_bundle_of_several_forms(
    made: Callable[..., ConversionReport], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    report = made(unet_forms=ASKED)
    again = convert(checkpoint, tmp_path / "like", like=Likeness.of(report.bundle))
    assert all(one.is_reused for one in again.components)
    ours, theirs = open_bundle(again.bundle), open_bundle(report.bundle)
    assert ours.manifest.components == theirs.manifest.components
    first, *others = weight_files(again)
    assert first.read_bytes() == weight_files(report)[0].read_bytes()
    assert all(first.samefile(other) for other in others)


def test_like_a_bundle_that_lacks_a_form(
    made: Callable[..., ConversionReport], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from dataclasses import replace

    like = Likeness.of(made(unet_forms=ASKED).bundle)
    text, unet = like.bundle.manifest.components
    fewer = replace(like.bundle.manifest, components=(text, replace(unet, variants=unet.variants[:3])))
    with pytest.raises(LikeError, match="each size in each form, 4 networks, got 3"):
        convert(checkpoint, tmp_path / "x", like=replace(like, bundle=replace(like.bundle, manifest=fewer)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"unet_forms": ("upscaler",)}, "expected controlnet, batch-one, tokens=N, got 'upscaler'"),
        ({"unet_forms": ("tokens=0",)}, "got 'tokens=0'"),
        ({"unet_forms": ("batch-one", "batch-one")}, "expected each once"),
        ({"unet_forms": ("batch-one",), "unet_batch_one": True}, "got both"),
        ({"unet_forms": ("controlnet",), "unet_support_controlnet": True}, "got both"),
    ],
)
def test_variants_that_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        ConversionOptions(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"unet_forms": ("tokens=100",)}, "or a multiple of it, got 100"),
        ({"unet_forms": ("tokens=32",)}, "expected a multiple of 77 tokens each, got 32"),
        (
            {"unet_forms": ("tokens=154",), "text_token_sequence_length": 32},
            "expected a multiple of 77 tokens each, got 32",
        ),
    ],
)
def test_tokens_that_are_refused(checkpoint: Checkpoint, options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        plan(checkpoint, ConversionOptions(components=("unet",), **options))

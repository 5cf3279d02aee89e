"""Several picture sizes of one checkpoint: a network for each, and the weights of one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.frontend.milproto.load import load
from safetensors.numpy import load_file, save_file
from sd_bundle import ImageSize, open_bundle
from sd_convert import (
    Checkpoint,
    ConversionCache,
    ConversionOptions,
    ConversionReport,
    Likeness,
    OptionsError,
    convert,
    open_checkpoint,
    plan,
    verify,
)
from sd_mil.format import WEIGHTS

pytestmark = pytest.mark.long

SIZES = (ImageSize(16, 16), ImageSize(32, 16))
NAMES = ("16x16", "16x32")


@pytest.fixture(scope="module")
def checkpoint(_tiny_fp16: Path) -> Checkpoint:
    return open_checkpoint(_tiny_fp16)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ConversionCache:
    return ConversionCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def made(
    checkpoint: Checkpoint, cache: ConversionCache, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., ConversionReport]:
    """A bundle of the UNet and the decoder, with these options."""
    folder, known = tmp_path_factory.mktemp("bundles"), {}

    def convert_once(**options: object) -> ConversionReport:
        key = str(sorted(options.items()))
        if key not in known:
            chosen = ConversionOptions(components=("unet", "vae_decoder"), **options)
            known[key] = convert(checkpoint, folder / str(len(known)), chosen, cache=cache)
        return known[key]

    return convert_once


def weight_files(report: ConversionReport, name: str) -> list[Path]:
    return [
        report.bundle / package / WEIGHTS for package in open_bundle(report.bundle).component(name).packages
    ]


@pytest.mark.parametrize("name", ["unet", "vae_decoder"])
def test_all_sizes_have_the_weights_of_one(made: Callable[..., ConversionReport], name: str) -> None:
    first, second = weight_files(made(sizes=SIZES), name)
    (alone,) = weight_files(made(sizes=SIZES[:1]), name)
    assert first.samefile(second)
    assert first.read_bytes() == alone.read_bytes()


def test_functions_share_the_same_weights(made: Callable[..., ConversionReport]) -> None:
    report = made(sizes=SIZES, target="iOS18")
    (shared,) = weight_files(report, "unet")
    (alone,) = weight_files(made(sizes=SIZES[:1]), "unet")
    assert shared.read_bytes() == alone.read_bytes()
    variants = open_bundle(report.bundle).component("unet").variants
    assert [variant.chunks[0].function for variant in variants] == list(NAMES)


def test_coremltools_reads_the_functions(made: Callable[..., ConversionReport], tmp_path: Path) -> None:
    source = weight_files(made(sizes=SIZES, target="iOS18"), "unet")[0].parents[3]
    package = Path(shutil.copytree(source, tmp_path / source.name))  # coremltools rewrites manifests
    description = ct.utils.load_spec(str(package)).description
    assert description.defaultFunctionName == NAMES[0]
    shapes = {one.name: list(one.input[0].type.multiArrayType.shape)[2:] for one in description.functions}
    assert shapes == {"16x16": [8, 8], "16x32": [16, 8]}
    program = load(ct.utils.load_spec(str(package)), 9, str((package / WEIGHTS).parent))
    assert set(program.functions) == set(NAMES)


@pytest.mark.parametrize("target", ["macOS13", "iOS18"])
def test_every_size_computes_what_torch_does(
    made: Callable[..., ConversionReport], checkpoint: Checkpoint, target: str
) -> None:
    report = verify(made(sizes=SIZES, target=target).bundle, checkpoint)
    assert report.passed
    assert {(row.component, row.size) for row in report.rows} == {
        (name, size) for name in ("unet", "vae_decoder") for size in NAMES
    }


def test_the_report_and_the_plan_count_weights_once(
    made: Callable[..., ConversionReport], checkpoint: Checkpoint, cache: ConversionCache
) -> None:
    unet = made(sizes=SIZES).components[0]
    assert unet.sizes == NAMES
    assert unet.bytes < 2 * weight_files(made(sizes=SIZES), "unet")[0].stat().st_size
    options = ConversionOptions(components=("unet",), sizes=SIZES)
    first, second = plan(checkpoint, options, cache=cache).components
    assert [first.size, second.size] == list(NAMES)
    assert first.package_bytes > 0 == second.package_bytes
    assert second.package.endswith("_unet_16x32.mlpackage")
    assert first.is_reused
    assert second.is_reused


def test_like_a_bundle_of_several_sizes(
    made: Callable[..., ConversionReport], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Other weights into the programs of all sizes: the bundle that a conversion would have made."""
    tuned = tmp_path / "tiny"
    tuned.mkdir()
    for file in (path for path in checkpoint.folder.rglob("*") if path.is_file()):
        copy = tuned / file.relative_to(checkpoint.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".safetensors":
            save_file({key: one * np.float16(0.5) for key, one in load_file(file).items()}, copy)
        else:
            copy.write_bytes(file.read_bytes())
    like = Likeness.of(made(sizes=SIZES).bundle)
    report = convert(open_checkpoint(tuned), tmp_path / "like", like=like)
    assert all(component.is_reused for component in report.components)
    first, second = weight_files(report, "unet")
    assert first.samefile(second)
    assert first.read_bytes() != weight_files(made(sizes=SIZES), "unet")[0].read_bytes()
    assert verify(report.bundle, open_checkpoint(tuned), components=["unet"]).passed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sizes": (SIZES[0], SIZES[0])}, "each size once"),
        ({"sizes": SIZES, "latent_height": 8}, "without a latent size"),
    ],
)
def test_sizes_that_contradict(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        ConversionOptions(**options)


def test_a_picture_is_a_whole_number_of_latent_pixels(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="multiples of 2 pixels, got 17x16"):
        convert(checkpoint, tmp_path / "out", ConversionOptions(sizes=(ImageSize(16, 17),)))

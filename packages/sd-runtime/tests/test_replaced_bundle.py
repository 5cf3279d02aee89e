"""A bundle that is replaced or written to while it is open: an error, and never a picture of two models."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sd_bundle import reader
from sd_runtime import Bundle, BundleComponent, IntegrityError, Model, Pipeline, open_bundle

Write = Callable[..., Bundle]


def copied(bundle: Path, to: Path) -> Path:
    """The same bundle as another folder, made later."""
    shutil.copytree(bundle, to, copy_function=shutil.copyfile)
    return to


def swap(bundle: Path) -> None:
    """What ``sdc convert --overwrite`` does."""
    other = copied(bundle, bundle.with_name("other"))
    bundle.rename(bundle.with_name("aside"))
    other.rename(bundle)


@pytest.fixture
def pipeline(toy_bundle: Write, toy_networks: Any) -> Pipeline:
    """Its networks are functions that are opened as packages are: from a path that the bundle gives."""
    bundle = toy_bundle()

    def open_from_path(component: BundleComponent) -> Model:
        assert bundle.package(component).is_dir()
        return toy_networks.open(component)

    return Pipeline(bundle, open_from_path)


OPTIONS: dict[str, Any] = {"seed": 1, "num_inference_steps": 2}


def test_a_network_that_would_load_later(pipeline: Pipeline) -> None:
    (expected,) = pipeline.generate("a", **OPTIONS)
    pipeline.release()
    settings = pipeline.settings("a", **OPTIONS)
    *_, last = pipeline.steps("a", **OPTIONS)
    swap(pipeline.bundle.path)
    with pytest.raises(IntegrityError, match="the bundle was replaced; open it again"):
        pipeline.finish(last.latent, settings)
    shutil.rmtree(pipeline.bundle.path)
    pipeline.bundle.path.with_name("aside").rename(pipeline.bundle.path)  # the very files are back
    assert pipeline.finish(last.latent, settings) == expected


def test_the_next_picture(pipeline: Pipeline) -> None:
    pipeline.generate("a", **OPTIONS)
    swap(pipeline.bundle.path)
    with pytest.raises(IntegrityError, match="another one"):
        pipeline.generate("a", **OPTIONS)


def test_a_bundle_that_is_gone(pipeline: Pipeline) -> None:
    shutil.rmtree(pipeline.bundle.path)
    with pytest.raises(IntegrityError, match=r"manifest\.json: .* got none"):
        pipeline.generate("a", **OPTIONS)


def test_a_tokenizer_of_another_bundle(pipeline: Pipeline) -> None:
    path = pipeline.bundle.path / "tokenizer/vocab.json"
    path.write_bytes(path.read_bytes().replace(b'"a": 0, "b": 1', b'"b": 0, "a": 1'))
    os.utime(path, ns=(1, 1))
    with pytest.raises(IntegrityError, match=r"tokenizer/vocab\.json"):
        pipeline.generate("a", **OPTIONS)


def in_place(path: Path) -> None:
    """Another content of the same size in the same file; a clock tick may be coarse, so time is set."""
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(1, 1))


def truncated(path: Path) -> None:
    os.truncate(path, 1)


def replaced(path: Path) -> None:
    """Another file with the same content, size and time."""
    found = path.stat()
    other = path.with_name("other")
    shutil.copyfile(path, other)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [in_place, truncated, replaced, Path.unlink])
@pytest.mark.parametrize("file", ["Manifest.json", "../manifest.json"])
def test_any_change_of_a_package_or_of_the_manifest(
    toy_bundle: Write, change: Callable[[Path], None], file: str
) -> None:
    bundle = toy_bundle()
    decoder, denoiser = bundle.only("image_decoder"), bundle.only("denoiser")
    package = bundle.package(decoder)
    change(package / file)
    with pytest.raises(IntegrityError, match=file.removeprefix("../")):
        bundle.package(decoder)
    if file == "Manifest.json":
        bundle.package(denoiser)  # which nobody touched


def test_a_change_while_a_package_is_read(toy_bundle: Write) -> None:
    bundle = toy_bundle()
    component = bundle.only("denoiser")
    with pytest.raises(IntegrityError), bundle.unchanged(component.package):
        truncated(bundle.package(component) / "Manifest.json")


def test_a_swap_while_the_bundle_is_opened(toy_bundle: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path, parse = toy_bundle().path, reader.parse_manifest

    def parse_and_swap(text: str) -> Any:
        swap(path)
        return parse(text)

    monkeypatch.setattr(reader, "parse_manifest", parse_and_swap)
    with pytest.raises(IntegrityError, match="open it again"):
        open_bundle(path)


def test_links_stand_for_what_they_lead_to(toy_bundle: Write, tmp_path: Path) -> None:
    bundle = toy_bundle()
    file = bundle.package(bundle.only("denoiser")) / "Manifest.json"
    blob = file.replace(bundle.path / "blob")
    file.symlink_to(blob)
    linked = open_bundle(bundle.path)
    linked.package(linked.only("denoiser"))
    replaced(blob)
    with pytest.raises(IntegrityError, match=r"Manifest\.json"):
        linked.package(linked.only("denoiser"))


def test_two_openings_of_one_bundle_are_equal(toy_bundle: Write) -> None:
    bundle = toy_bundle()
    assert open_bundle(bundle.path) == bundle

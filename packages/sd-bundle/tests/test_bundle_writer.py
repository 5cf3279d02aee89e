"""A bundle appears whole or not at all, and what was there before survives every failure."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sd_bundle import (
    BundleError,
    Draft,
    IntegrityError,
    MissingComponentError,
    OutputExistsError,
    open_bundle,
)

Write = Callable[..., None]
WEIGHTS = "Stable_Diffusion_version_org_tiny_unet.mlpackage/Data/weight.bin"
SCHEDULER = "scheduler/scheduler_config.json"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
    }


def test_written_and_read(tmp_path: Path, write_bundle: Write) -> None:
    write_bundle(tmp_path / "new" / "bundle")
    bundle = open_bundle(tmp_path / "new" / "bundle")
    bundle.check_integrity()
    assert list(bundle.manifest.files) == [
        "Stable_Diffusion_version_org_tiny_unet.mlpackage/Data/weight.bin",
        "scheduler/scheduler_config.json",
    ]
    assert bundle.package(bundle.only("denoiser")).joinpath("Data/weight.bin").read_bytes() == b"weights"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", ["b" * 255, "\N{SNOWMAN}" * 85])
def test_a_name_of_255_bytes(name: str, tmp_path: Path, write_bundle: Write) -> None:
    write_bundle(tmp_path / name, weights=b"old")
    write_bundle(tmp_path / name, weights=b"new", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_same_content_same_bytes(tmp_path: Path, write_bundle: Write) -> None:
    write_bundle(tmp_path / "a")
    write_bundle(tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_permissions_are_those_of_any_new_folder(tmp_path: Path, write_bundle: Write) -> None:
    (tmp_path / "ordinary").mkdir()
    write_bundle(tmp_path / "bundle")
    assert (tmp_path / "bundle").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_existing_output_is_refused(tmp_path: Path, write_bundle: Write) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputExistsError, match="exists: choose another output, or ask to overwrite"):
        write_bundle(tmp_path / "taken")
    assert tree(tmp_path) == {"taken": b"folder"}


@pytest.mark.parametrize("manifest", [None, "{}", '{"format": "other"}', "not json", "[" * 20_000])
def test_only_a_bundle_is_overwritten(tmp_path: Path, write_bundle: Write, manifest: str | None) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.txt").write_text("years of work")
    if manifest is not None:
        (tmp_path / "precious/manifest.json").write_text(manifest)
    before = tree(tmp_path)
    with pytest.raises(OutputExistsError, match="is not a bundle"):
        write_bundle(tmp_path / "precious", overwrite=True)
    assert tree(tmp_path) == before


def test_a_file_is_not_overwritten(tmp_path: Path, write_bundle: Write) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExistsError):
        write_bundle(tmp_path / "file", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_later_version_is_overwritten(tmp_path: Path, write_bundle: Write) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").write_text('{"format": "sd-bundle", "version": 99}')
    write_bundle(tmp_path / "bundle", overwrite=True)
    open_bundle(tmp_path / "bundle").check_integrity()


def test_overwritten(tmp_path: Path, write_bundle: Write) -> None:
    write_bundle(tmp_path / "bundle", weights=b"old")
    (tmp_path / "bundle/stray.txt").write_text("goes with the old one")
    write_bundle(tmp_path / "bundle", weights=b"new", overwrite=True)
    write_bundle(tmp_path / "fresh", weights=b"new")
    assert tree(tmp_path / "bundle") == tree(tmp_path / "fresh")
    assert sorted(os.listdir(tmp_path)) == ["bundle", "fresh"]


def test_a_link_to_a_bundle_keeps_pointing(tmp_path: Path, write_bundle: Write) -> None:
    write_bundle(tmp_path / "bundle", weights=b"old")
    (tmp_path / "link").symlink_to("bundle")
    write_bundle(tmp_path / "link", weights=b"new", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert open_bundle(tmp_path / "bundle").manifest == open_bundle(tmp_path / "link").manifest


def raising(failure: type[BaseException]) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise failure("injected")

    return fail


@pytest.fixture(params=["fresh", "over another bundle"])
def place(request: pytest.FixtureRequest, tmp_path: Path, write_bundle: Write) -> Path:
    """Where a bundle is about to be written: nothing there, not even the parent, or an old bundle."""
    path = tmp_path / "parent" / "bundle"
    if request.param != "fresh":
        write_bundle(path, weights=b"old")
    return path


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_failure_in_the_block(
    tmp_path: Path, place: Path, write_bundle: Write, failure: type[BaseException]
) -> None:
    before = tree(tmp_path)
    with pytest.raises(failure):
        write_bundle(place, weights=b"new", overwrite=True, spoil=raising(failure))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("step", range(12))
@pytest.mark.parametrize("failure", [OSError, KeyboardInterrupt])
def test_failure_at_any_step_on_disk(
    tmp_path: Path,
    place: Path,
    write_bundle: Write,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    failure: type[BaseException],
) -> None:
    """The ``step``-th call of rename, fsync or a file's hash fails: all of the old, or all of the new."""
    before = tree(tmp_path)
    countdown = iter(range(step, -1, -1))

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if next(countdown, None) == 0:
                raise failure("injected")
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(hashlib, "file_digest", counted(hashlib.file_digest))
        failed = False
        try:
            write_bundle(place, weights=b"new", overwrite=True)
        except failure:
            failed = True
    assert {path.name for path in tmp_path.rglob("*bundle*")} <= {"bundle"}
    if not (failed and tree(tmp_path) == before):
        open_bundle(place).check_integrity()
        assert (place / WEIGHTS).read_bytes() == b"new"


def test_steps_above_cover_a_whole_run(place: Path, write_bundle: Write) -> None:
    """What the test above counts: two or three renames, a hash a file, an fsync a file and folder."""
    write_bundle(place, overwrite=True)
    entries = sum(1 for _ in place.rglob("*")) + 2  # the folder itself and its parent
    assert entries + 2 + 2 <= 12


def on_an_unknown_unit(draft: Draft) -> None:
    draft.components[0] = dataclasses.replace(draft.components[0], compute_unit="GPU")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda draft: draft.add_file("../escaped", b""), "expected a relative POSIX path"),
        (lambda draft: draft.add_file("/tmp/escaped", b""), "expected a relative POSIX path"),  # noqa: S108
        (lambda draft: draft.add_file(SCHEDULER, b""), "added once"),
        (lambda draft: draft.add_file("manifest.json", b"{}"), "manifest.json is written last"),
        (lambda draft: shutil.rmtree(draft.folder / "scheduler"), "at $.model.scheduler"),
        (lambda draft: (draft.folder / WEIGHTS).unlink(), "at $.components[0].variants[0].chunks[0].package"),
        (lambda draft: draft.components.append(draft.components[0]), "expected distinct names"),
        (on_an_unknown_unit, "at $.components[0].compute_unit: expected 'ALL' or"),
    ],
)
def test_a_draft_that_is_no_bundle(
    tmp_path: Path, write_bundle: Write, spoil: Callable[[Draft], object], reason: str
) -> None:
    with pytest.raises(BundleError) as caught:
        write_bundle(tmp_path / "bundle", spoil=spoil)
    assert reason in str(caught.value)
    assert tree(tmp_path) == {}


def test_a_folder_that_appears_meanwhile(tmp_path: Path, write_bundle: Write) -> None:
    def race(_: Draft) -> None:
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle/theirs").write_text("theirs")

    with pytest.raises(OutputExistsError):
        write_bundle(tmp_path / "bundle", spoil=race)
    assert tree(tmp_path) == {"bundle": b"folder", "bundle/theirs": b"theirs"}


def test_damage_is_found(tmp_path: Path, write_bundle: Write) -> None:
    write_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / WEIGHTS).write_bytes(b"w3ights")
    bundle = open_bundle(tmp_path / "bundle")
    with pytest.raises(IntegrityError, match=r"weight\.bin: expected sha256"):
        bundle.check_integrity()


def test_what_is_missing_is_named(tmp_path: Path, write_bundle: Write) -> None:
    write_bundle(tmp_path / "bundle")
    with pytest.raises(MissingComponentError, match=r"image_decoder .* it has: unet \(denoiser\)"):
        open_bundle(tmp_path / "bundle").only("image_decoder")
    with pytest.raises(MissingComponentError, match="'vae_decoder'"):
        open_bundle(tmp_path / "bundle").component("vae_decoder")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (b"[]", "expected a JSON object, got list"),
        (b'{"prediction_type": "v_prediction"}', "manifest's prediction_type 'epsilon', got 'v_prediction'"),
        (b'{"beta_end": NaN}', "expected finite numbers, got NaN"),
    ],
)
def test_a_scheduler_file_that_contradicts(
    tmp_path: Path, write_bundle: Write, config: bytes, reason: str
) -> None:
    def spoil(draft: Draft) -> None:
        (draft.folder / SCHEDULER).write_bytes(config)

    write_bundle(tmp_path / "bundle", spoil=spoil)
    with pytest.raises(BundleError) as caught:
        open_bundle(tmp_path / "bundle").noise_config()
    assert reason in str(caught.value)


def test_the_prediction_type_is_the_manifests(tmp_path: Path, write_bundle: Write) -> None:
    write_bundle(tmp_path / "bundle")
    config = open_bundle(tmp_path / "bundle").noise_config()
    assert config == {"num_train_timesteps": 1000, "prediction_type": "epsilon", "steps_offset": 1}


def test_an_old_scheduler_file_means_what_diffusers_makes_of_it(tmp_path: Path, write_bundle: Write) -> None:
    """``StableDiffusionPipeline.__init__`` corrects these two."""

    def spoil(draft: Draft) -> None:
        (draft.folder / SCHEDULER).write_bytes(b'{"clip_sample": true, "steps_offset": 0}')

    write_bundle(tmp_path / "bundle", spoil=spoil)
    config = open_bundle(tmp_path / "bundle").noise_config()
    assert config == {"prediction_type": "epsilon", "clip_sample": False, "steps_offset": 1}

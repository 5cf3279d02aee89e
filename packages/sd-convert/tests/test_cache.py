"""A second conversion is quick, and never a stale one."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sd_bundle import open_bundle
from sd_convert import (
    ConversionCache,
    ConversionOptions,
    ConversionReport,
    convert,
    open_checkpoint,
    plan,
    verify,
)
from sd_convert.components import Part
from sd_convert.lowered import LoweredComponent, pack, tensor_hash, unpack
from sd_mil import Block, Description, Function, Program

UNET = ConversionOptions(components=("unet",), overwrite=True)
DECODER = ConversionOptions(components=("vae_decoder",), overwrite=True)


@pytest.fixture(scope="module")
def warm(_tiny_fp16: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cache after one conversion, and its bundle."""
    folder = tmp_path_factory.mktemp("warm")
    convert(open_checkpoint(_tiny_fp16), folder / "tiny", cache=ConversionCache(folder / "cache"))
    return folder / "cache", folder / "tiny"


@pytest.fixture
def cache(warm: tuple[Path, Path], tmp_path: Path) -> ConversionCache:
    return ConversionCache(Path(shutil.copytree(warm[0], tmp_path / "cache")))


def reused(report: ConversionReport) -> dict[str, bool]:
    return {part.name: part.is_reused for part in report.components}


def contents(bundle: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(bundle)): file.read_bytes()
        for file in bundle.rglob("*")
        if file.is_file() and file.name != "manifest.json"  # has the time of the conversion
    }


def test_again_is_the_same_without_any_of_the_work(
    cache: ConversionCache,
    warm: tuple[Path, Path],
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Part, "build", None)
    monkeypatch.setattr(sys.modules["sd_convert.convert"], "load_libraries", None)
    checkpoint = open_checkpoint(tiny)
    assert all(component.is_reused for component in plan(checkpoint, cache=cache).components)
    report = convert(checkpoint, tmp_path / "again", cache=cache)
    assert set(reused(report).values()) == {True}
    assert contents(tmp_path / "again") == contents(warm[1])
    open_bundle(tmp_path / "again").check_integrity()


def test_other_weights_are_never_those_of_before(cache: ConversionCache, tiny: Path, tmp_path: Path) -> None:
    file = tiny / "unet/diffusion_pytorch_model.fp16.safetensors"
    tensors = load_file(file)
    for changed, is_reused in (("conv_in.weight", True), ("conv_out.bias", False)):
        tensors[changed] = -tensors[changed] - 1
        save_file(tensors, file)
        checkpoint = open_checkpoint(tiny)
        report = convert(checkpoint, tmp_path / "other", UNET, cache=cache)
        assert reused(report) == {"unet": is_reused}  # four numbers are in the program itself
        assert verify(report.bundle, checkpoint).rows[0].psnr > 50


@pytest.mark.parametrize(
    "change",
    [
        {"attention_implementation": "ORIGINAL"},
        {"compute_unit": "ALL"},
        {"latent_height": 16},
        {"target": "macOS14"},
        {"model_version": "another"},
        {"compute_precision": ("fp32",)},
        {"unet_batch_one": True},
        {"unet_support_controlnet": True},
    ],
)
def test_a_changed_option_draws_anew(change: dict[str, Any], cache: ConversionCache, tiny: Path) -> None:
    options = ConversionOptions(components=("unet",), **change)
    assert not plan(open_checkpoint(tiny), options, cache=cache).components[0].is_reused


@pytest.mark.parametrize("epoch", ["0", "86400000"])
def test_a_date_that_is_asked_for(
    epoch: str, cache: ConversionCache, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert not plan(open_checkpoint(tiny), UNET, cache=cache).components[0].is_reused


def test_a_changed_config_draws_anew(cache: ConversionCache, edit_config: Callable[..., Path]) -> None:
    changed = edit_config("scheduler", prediction_type="v_prediction")
    assert not plan(open_checkpoint(changed), UNET, cache=cache).components[0].is_reused


def test_what_a_network_does_not_follow_from_is_not_asked(
    cache: ConversionCache, edit_config: Callable[..., Path]
) -> None:
    """The noise schedule is the runtime's business, and options of other components theirs."""
    checkpoint = open_checkpoint(edit_config("scheduler", beta_end=0.02))
    options = ConversionOptions(components=("unet",), compute_precision=("vae_decoder=fp32",))
    assert plan(checkpoint, options, cache=cache).components[0].is_reused


def test_an_interrupted_conversion_goes_on_where_it_was(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, original = ConversionCache(tmp_path / "cache"), Part.build

    def build(part: Part, *rest: Any) -> Any:
        if part.name == "text_encoder":
            raise KeyboardInterrupt
        return original(part, *rest)

    monkeypatch.setattr(Part, "build", build)
    with pytest.raises(KeyboardInterrupt):
        convert(open_checkpoint(tiny), tmp_path / "bundle", cache=cache)
    assert not (tmp_path / "bundle").exists()
    monkeypatch.undo()
    report = convert(open_checkpoint(tiny), tmp_path / "bundle", cache=cache)
    assert reused(report)["unet"]
    assert not reused(report)["text_encoder"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "replace"])
def test_a_damaged_entry_is_none(damage: str, cache: ConversionCache, tiny: Path, tmp_path: Path) -> None:
    for path in cache.folder.glob("*.entry"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes({"flip": content, "cut": content[:-9], "empty": b"", "replace": b"\0" * 99}[damage])
    report = convert(open_checkpoint(tiny), tmp_path / "bundle", DECODER, cache=cache)
    assert reused(report) == {"vae_decoder": False}
    assert reused(convert(open_checkpoint(tiny), tmp_path / "bundle", DECODER, cache=cache)) == {
        "vae_decoder": True
    }


def test_a_cache_that_cannot_be_written_is_no_cache(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = ConversionCache(tmp_path / "file" / "cache")
    for _ in range(2):
        assert reused(convert(open_checkpoint(tiny), tmp_path / "b", DECODER, cache=cache)) == {
            "vae_decoder": False
        }
    assert (cache.usage().entries, cache.clear().bytes) == (0, 0)


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = ConversionCache(tmp_path, limit=3 * (32 + 100))
    for number, key in enumerate("abc"):
        cache.write(key, bytes(100))
        os.utime(tmp_path / f"{key}.entry", ns=(number, number))
    assert cache.read("a") == bytes(100)  # now used last
    cache.write("d", bytes(100))
    assert [key for key in "abcd" if cache.read(key)] == ["a", "c", "d"]
    assert cache.usage().entries == 3
    assert cache.clear().entries == 3
    assert list(tmp_path.iterdir()) == []


def empty(folded: dict[str, str]) -> LoweredComponent:
    program = Program({"main": Function("main", "CoreML6", Block((), (), ()))})
    return LoweredComponent("unet", program, Description((), ()), 7, folded)


def test_programs_come_back_as_they_were(warm: tuple[Path, Path], cache: ConversionCache, tiny: Path) -> None:
    checkpoint = open_checkpoint(tiny)
    entries = [cache.read(path.stem) for path in cache.folder.glob("*.entry")]
    names = set()
    for content in entries:
        assert content is not None
        if b"folded" not in content.partition(b"\n")[0]:
            continue  # a precision
        weights = checkpoint.weights(json.loads(content.partition(b"\n")[0])["name"])
        lowered = unpack(content, weights)
        assert lowered.fits(weights)
        assert pack(lowered.lowered()) == content
        names.add(lowered.name)
    assert names == {"text_encoder", "unet", "vae_decoder", "vae_encoder"}


@pytest.mark.parametrize("content", [b"", b"no", json.dumps({}).encode(), pack(empty({}))[:-5]])
def test_what_is_no_program(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected a packed component"):
        unpack(content, {})


def test_tensors_in_the_program_are_held_against_the_checkpoint() -> None:
    weights = {"w": np.ones(3, np.float32)}
    content = pack(empty({"w": tensor_hash(weights, "w")}))
    packed = unpack(content, weights)
    assert packed.fits(weights)
    assert not packed.fits({"w": np.array([1, 1, 2], np.float32)})
    assert not packed.fits({"w": np.ones(3, np.float16)})
    assert unpack(pack(packed.lowered(), {"w": "v"}), weights).fits({"v": weights["w"]})

"""A second conversion is quick, and never a stale one."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
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
    UnsupportedArchitectureError,
    convert,
    open_checkpoint,
    plan,
    verify,
)
from sd_convert.components import Part
from sd_convert.conversion.lowered import LoweredComponent, header_of, pack, tensor_hash, unpack
from sd_convert.conversion.write import PRECISIONS
from sd_mil import Block, Description, Function, Program, read_package

pytestmark = pytest.mark.long

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
    monkeypatch.setattr(sys.modules["sd_convert.conversion.convert"], "load_libraries", None)
    checkpoint = open_checkpoint(tiny)
    assert all(component.is_reused for component in plan(checkpoint, cache=cache).components)
    report = convert(checkpoint, tmp_path / "again", cache=cache)
    assert set(reused(report).values()) == {True}
    assert contents(tmp_path / "again") == contents(warm[1])
    open_bundle(tmp_path / "again").check_integrity()


def test_other_weights_are_never_those_of_before(cache: ConversionCache, tiny: Path, tmp_path: Path) -> None:
    file = tiny / "unet/diffusion_pytorch_model.fp16.safetensors"
    tensors = load_file(file)
    for changed in ("conv_in.weight", "conv_out.bias"):  # four numbers are in the program itself
        tensors[changed] = -tensors[changed] - 1
        save_file(tensors, file)
        checkpoint = open_checkpoint(tiny)
        report = convert(checkpoint, tmp_path / "other", UNET, cache=cache)
        assert reused(report) == {"unet": True}
        assert verify(report.bundle, checkpoint).rows[0].psnr > 50
    convert(checkpoint, tmp_path / "anew", UNET)
    assert contents(tmp_path / "other") == contents(tmp_path / "anew")


@pytest.mark.parametrize(
    "change",
    [
        {"attention_implementation": "ORIGINAL"},
        {"latent_height": 16},
        {"target": "macOS14"},
        {"compute_precision": ("fp32",)},
        {"unet_batch_one": True},
        {"unet_support_controlnet": True},
    ],
)
def test_a_changed_option_draws_anew(change: dict[str, Any], cache: ConversionCache, tiny: Path) -> None:
    options = ConversionOptions(components=("unet",), **change)
    assert not plan(open_checkpoint(tiny), options, cache=cache).components[0].is_reused


def described(bundle: Path) -> dict[str, str]:
    (package,) = bundle.glob("*.mlpackage")
    read = read_package(package).description
    return {"version": read.version, **read.user_defined}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"compute_unit": "ALL"}, {"compute_unit": "ALL"}),
        ({"model_version": "another"}, {"version": "another", "identifier": "another"}),
    ],
)
def test_what_only_the_description_says_is_said_of_a_program_that_was_kept(
    change: dict[str, Any], said: dict[str, str], cache: ConversionCache, tiny: Path, tmp_path: Path
) -> None:
    options = replace(UNET, **change)
    report = convert(open_checkpoint(tiny), tmp_path / "kept", options, cache=cache)
    assert reused(report) == {"unet": True}
    convert(open_checkpoint(tiny), tmp_path / "new", options)
    assert contents(tmp_path / "kept") == contents(tmp_path / "new")
    assert described(tmp_path / "kept").items() >= said.items()


def test_the_date_and_the_prediction_type_are_those_of_now(
    cache: ConversionCache, edit_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400000")
    changed = edit_config("scheduler", prediction_type="v_prediction")
    report = convert(open_checkpoint(changed), tmp_path / "bundle", UNET, cache=cache)
    assert reused(report) == {"unet": True}
    said = described(tmp_path / "bundle")
    assert said["com.github.apple.coremltools.conversion_date"] == "1972-09-27"
    assert said["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(
    ("key", "value", "is_reused"),
    [
        ("norm_eps", 1e-4, False),
        ("norm_eps", 1e-5, True),  # the default, said
        ("attention_head_dim", [4, 4], True),  # the same for each block
        ("attention_head_dim", 8, False),
        ("dropout", 0.5, True),
        ("upcast_attention", True, True),
        ("_diffusers_version", "0.99", True),
        ("unknown_option", False, True),
        ("unknown_option", 1, False),
    ],
)
def test_a_changed_config_draws_anew_where_it_matters(
    key: str, value: Any, is_reused: bool, cache: ConversionCache, edit_config: Callable[..., Path]
) -> None:
    checkpoint = open_checkpoint(edit_config("unet", **{key: value}))
    if key == "unknown_option" and value:
        with pytest.raises(UnsupportedArchitectureError, match="unknown_option"):
            plan(checkpoint, UNET, cache=cache)
        return
    assert plan(checkpoint, UNET, cache=cache).components[0].is_reused == is_reused


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
    two = ConversionOptions(components=("text_encoder", "vae_encoder"))  # the second is first: it is larger

    def build(part: Part, *rest: Any) -> Any:
        if part.name == "text_encoder":
            raise KeyboardInterrupt
        return original(part, *rest)

    monkeypatch.setattr(Part, "build", build)
    with pytest.raises(KeyboardInterrupt):
        convert(open_checkpoint(tiny), tmp_path / "bundle", two, cache=cache)
    assert not (tmp_path / "bundle").exists()
    monkeypatch.undo()
    report = convert(open_checkpoint(tiny), tmp_path / "bundle", two, cache=cache)
    assert reused(report) == {"text_encoder": False, "vae_encoder": True}


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


NOTHING = Description((), ())


def empty(folded: dict[str, str]) -> LoweredComponent:
    program = Program({"main": Function("main", "CoreML6", Block((), (), ()))})
    return LoweredComponent("unet", program, NOTHING, 7, folded)


def test_programs_hold_no_weights(warm: tuple[Path, Path], cache: ConversionCache, tiny: Path) -> None:
    names = set()
    for path in cache.folder.glob("*.entry"):
        content = cache.read(path.stem)
        assert content is not None
        if b"folded" in content.partition(b"\n")[0]:
            header = header_of(content)
            assert header["folded"] == {}
            names.add((header["name"], header["architecture"]["precision"]))
    halves = [(f"vae_{half}", precision) for half in ("decoder", "encoder") for precision in PRECISIONS]
    assert names == {("text_encoder", "float16"), ("unet", "float16"), *halves}


@pytest.mark.parametrize("content", [b"", b"no", json.dumps({}).encode(), pack(empty({}))[:-5]])
def test_what_is_no_program(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected a packed component"):
        unpack(content, {}, NOTHING)


def test_tensors_in_the_program_are_held_against_the_checkpoint() -> None:
    weights = {"w": np.ones(3, np.float32)}
    content = pack(empty({"w": tensor_hash(weights, "w")}))
    packed = unpack(content, weights, NOTHING)
    assert packed.fits(weights)
    assert not packed.fits({"w": np.array([1, 1, 2], np.float32)})
    assert not packed.fits({"w": np.ones(3, np.float16)})
    assert unpack(pack(packed.lowered(), lambda _: "v"), weights, NOTHING).fits({"v": weights["w"]})

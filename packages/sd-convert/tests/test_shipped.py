"""The programs that this package carries: the first conversion of a known architecture takes no torch."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from sd_convert import ConversionOptions, convert, open_checkpoint
from sd_convert.components.architecture import (
    TEXT_DEFAULTS,
    TINY_VAE_DEFAULTS,
    UNET_DEFAULTS,
    UNET_IGNORED,
    VAE_DEFAULTS,
    VAE_IGNORED,
    VISION_DEFAULTS,
    network_config,
)
from sd_convert.conversion.lowered import header_of
from sd_convert.conversion.stores import SHIPPED, ProgramFolder, compressed, file_name
from transformers import CLIPTextConfig, CLIPVisionConfig

pytestmark = pytest.mark.long

DECODER = ConversionOptions(components=("vae_decoder",))


def listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("kind", "defaults", "ignored"),
    [
        (UNet2DConditionModel, UNET_DEFAULTS, UNET_IGNORED),
        (AutoencoderKL, VAE_DEFAULTS, VAE_IGNORED),
        (AutoencoderTiny, TINY_VAE_DEFAULTS, VAE_IGNORED),
    ],
)
def test_defaults_are_those_of_diffusers(kind: type, defaults: Mapping[str, Any], ignored: Any) -> None:
    theirs = {name: listed(p.default) for name, p in inspect.signature(kind.__init__).parameters.items()}  # type: ignore[misc]
    assert {name: value for name, value in theirs.items() if name not in (*ignored, "self")} == defaults


@pytest.mark.parametrize(
    ("config", "defaults"), [(CLIPTextConfig(), TEXT_DEFAULTS), (CLIPVisionConfig(), VISION_DEFAULTS)]
)
def test_defaults_are_those_of_transformers(config: Any, defaults: Mapping[str, Any]) -> None:
    assert {name: getattr(config, name) for name in defaults} == defaults


def test_one_number_for_each_block_is_the_number() -> None:
    said = {
        "attention_head_dim": [8] * 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "_name": "x",
        "old": None,
    }
    assert network_config(said, UNET_DEFAULTS, UNET_IGNORED) == UNET_DEFAULTS
    other = network_config({"attention_head_dim": [5, 10, 20, 20], "new": 1}, UNET_DEFAULTS)
    assert (other["attention_head_dim"], other["new"]) == ([5, 10, 20, 20], 1)


def test_they_follow_from_no_weight_and_are_small() -> None:
    programs = list(SHIPPED.all())
    assert len(programs) == len(list(SHIPPED.folder.iterdir()))
    headers = [header_of(content) for content in programs]
    assert {tuple(header["folded"]) for header in headers} == {()}
    names = {"unet", "vae_decoder", "vae_encoder", "text_encoder", "text_encoder_2", "safety_checker"}
    assert {header["name"] for header in headers} == names
    unets = [header["architecture"] for header in headers if header["name"] == "unet"]
    for attention in ("SPLIT_EINSUM", "SPLIT_EINSUM_V2", "ORIGINAL"):
        samples = {tuple(one["inputs"]["sample"][2:]) for one in unets if one["attention"] == attention}
        assert samples >= {(4, 64, 64), (9, 64, 64), (4, 96, 96)}
    assert sum(file.stat().st_size for file in SHIPPED.folder.iterdir()) < 10_000_000


@pytest.fixture
def taesd(tiny: Path) -> Path:
    """The checkpoint with a TAESD of its published size."""
    for file in (tiny / "vae").iterdir():
        file.unlink()
    AutoencoderTiny().half().save_pretrained(tiny / "vae", variant="fp16")
    config = tiny / "unet/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": 64}))
    return tiny


def test_a_known_architecture_takes_no_torch(
    taesd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        for name in list(sys.modules):
            if name.partition(".")[0] in ("torch", "coremltools", "diffusers", "transformers"):
                patched.delitem(sys.modules, name)
        for name in ("torch", "coremltools", "diffusers", "transformers"):
            patched.setitem(sys.modules, name, None)
        (part,) = convert(open_checkpoint(taesd), tmp_path / "quick", DECODER).components
    assert part.program == "sd-convert"
    nothing = ProgramFolder(tmp_path / "nothing", "nothing")
    monkeypatch.setattr(sys.modules["sd_convert.conversion.programs"], "SHIPPED", nothing)
    (part,) = convert(open_checkpoint(taesd), tmp_path / "full", DECODER).components
    assert part.program is None
    quick, full = (
        {
            str(file.relative_to(tmp_path / name)): file.read_bytes()
            for file in (tmp_path / name).rglob("*")
            if file.is_file() and file.name != "manifest.json"
        }
        for name in ("quick", "full")
    )
    assert {name for name in quick if quick[name] != full.get(name)} <= {n for n in quick if "programs/" in n}


@pytest.mark.parametrize("content", [b"", b"no", compressed(b"x" * 99)[:-9]])
def test_a_damaged_program_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / file_name("key")).write_bytes(content)
    folder = ProgramFolder(tmp_path, "here")
    assert folder.find("key") is None
    assert folder.find("other") is None
    assert list(folder.all()) == []
    (tmp_path / file_name("key")).write_bytes(compressed(b"program"))
    assert folder.find("key") == b"program"

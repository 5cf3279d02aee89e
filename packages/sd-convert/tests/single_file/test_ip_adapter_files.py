"""IP-Adapters as people have them: what is read of a file, and pickles that become such files."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sd_convert import NotACheckpointError, UnsupportedArchitectureError, read_ip_adapter_file
from sd_convert.checkpoint.opening import TO_SAFETENSORS

ATTENTION = {"ip_adapter.1.to_k_ip.weight": torch.ones(2, 6)}
PLUS = {
    "latents": (1, 5, 8),
    "proj_in.weight": (8, 3),
    "proj_out.weight": (6, 8),
    "layers.0.0.to_q.weight": (128, 8),
    "layers.0.0.to_kv.weight": (256, 8),
    "layers.0.1.1.weight": (32, 8),
    "layers.1.0.to_q.weight": (128, 8),
}


def written(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file({f"image_proj.{name}": tensor for name, tensor in tensors.items()} | ATTENTION, path)
    return path


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (
            {"proj.weight": (24, 3), "proj.bias": (24,), "norm.weight": (6,)},
            {"_class_name": "ImageProjection", "width": 3, "text_width": 6, "tokens": 4},
        ),
        (
            {"proj.0.weight": (3, 3), "proj.2.weight": (6, 3), "proj.3.weight": (6,)},
            {"_class_name": "IPAdapterFullImageProjection", "width": 3, "text_width": 6},
        ),
        (
            PLUS,
            {"_class_name": "IPAdapterPlusImageProjection", "width": 3, "text_width": 6, "tokens": 5}
            | {"hidden_width": 8, "depth": 2, "heads": 2, "ff_width": 32},
        ),
    ],
)
def test_dimensions_follow_from_tensors(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], expected: dict[str, Any]
) -> None:
    config, _ = read_ip_adapter_file(written(tmp_path / "x.safetensors", shapes), {})
    assert config == expected


def test_keys_and_values_of_a_resampler_are_halves_of_one_tensor(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", PLUS)
    paired = load_file(path)["image_proj.layers.0.0.to_kv.weight"].numpy()
    tensors = read_ip_adapter_file(path, {})[1].open()
    assert (tensors["layers.0.attn.to_k.weight"] == paired[:128]).all()
    assert (tensors["layers.0.attn.to_v.weight"] == paired[128:]).all()
    assert "ff.1.net.0.proj.weight" in {name.removeprefix("layers.0.") for name in tensors}


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"norm.weight": (6,), "proj.0.weight": (3, 3)}, "FaceID, which looks at faces"),
        ({"perceiver_resampler.proj_in.weight": (6, 6)}, "FaceID Plus"),
        ({"strange": (1,)}, "one of another kind"),
        ({"proj.weight": (24, 3)}, "expected the tensors of an ImageProjection"),
        ({"latents": (1, 5, 8)}, "expected the tensors of an IPAdapterPlus"),
        ({"proj.weight": (3,), "norm.weight": (6,)}, "expected the tensors of an ImageProjection"),
    ],
)
def test_others_are_called_by_name(tmp_path: Path, shapes: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(UnsupportedArchitectureError, match=said):
        read_ip_adapter_file(written(tmp_path / "x.safetensors", shapes), {})


def test_a_file_of_something_else(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(NotACheckpointError, match=r"expected an IP-Adapter \(image_proj.* got x"):
        read_ip_adapter_file(tmp_path / "x.safetensors", {})


def test_the_command_for_pickles_keeps_nested_tensors(tmp_path: Path, monkeypatch: Any) -> None:
    """The ``.bin`` files have a dict for each part, and ``.ckpt`` files one in ``state_dict``."""
    nested = {
        "image_proj": {"proj.weight": torch.ones(2, 3)},
        "ip_adapter": {"1.to_k_ip.weight": torch.ones(1)},
    }
    torch.save(nested, tmp_path / "x.bin")
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": 3}, tmp_path / "x.ckpt")
    _, _, code = shlex.split(TO_SAFETENSORS)
    for source, names in (
        ("x.bin", {"image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"}),
        ("x.ckpt", {"a"}),
    ):
        monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path / source), str(tmp_path / "y.safetensors")])
        exec(code, {})  # noqa: S102
        assert load_file(tmp_path / "y.safetensors").keys() == names

"""Two passes by the command line and by the web UI's HTTP API, with a second bundle of the larger size."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sd_runtime import read_settings
from sdc.commands.serve import open_studio
from sdc.serve.app import App
from sdc.serve.gallery import Gallery
from sdc.serve.messages import Asked, Refused
from sdc.serve.webui_fields import wanted

PROMPT = "a red circle on a blue background"
HOST = {"host": "127.0.0.1:7860", "content-type": "application/json"}


@pytest.fixture(scope="module")
def larger(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, lowered_once: Any, remembered: Any
) -> Path:
    """The demo checkpoint for pictures of 160 by 160."""
    from sd_convert import ConversionOptions, convert, open_checkpoint

    bundle = tmp_path_factory.mktemp("larger") / "bundle"
    options = ConversionOptions(compute_precision=("fp16",), latent_height=20, latent_width=20)
    convert(open_checkpoint(checkpoint), bundle, options, cache=lowered_once)
    remembered(bundle)
    return bundle


def test_the_server_draws_what_the_command_draws(
    sdc: Any, converted: Path, larger: Path, tmp_path: Path
) -> None:
    arguments = ("--hires-scale", 1.25, "--hires-strength", 0.5, "--hires-steps", 1, "--hires-bundle", larger)
    plain = ("--num-inference-steps", 2, "--rng", "torch", "--prompt-syntax", "a1111", "--seed", 7)
    target = tmp_path / "a.png"
    done = sdc("generate", PROMPT, "-i", converted, "-o", target, *plain, *arguments, "--engine", "portable")
    assert done.status == 0, done.err
    assert read_settings(target).hires_upscaler == "latent"
    with Image.open(target) as image:
        drawn = np.asarray(image)
    assert drawn.shape == (160, 160, 3)

    app = App(
        open_studio(converted, engine="portable", hires_bundle=larger),
        Gallery(tmp_path / "gallery"),
        ("127.0.0.1:7860",),
    )
    fields = {
        "prompt": PROMPT,
        "seed": 7,
        "steps": 2,
        "enable_hr": True,
        "hr_scale": 1.25,
        "hr_upscaler": "Latent",
        "hr_second_pass_steps": 1,
        "hr_resize_x": 0,
        "hr_prompt": "",
        "denoising_strength": 0.5,
        "override_settings": {"randn_source": "CPU"},
    }
    answer = app.answer(Asked("POST", "/sdapi/v1/txt2img", HOST, json.dumps(fields).encode()))
    assert answer.status == 200, answer.body
    (picture,) = json.loads(answer.body)["images"]
    found = Image.open(io.BytesIO(base64.b64decode(picture)))
    np.testing.assert_array_equal(np.asarray(found), drawn)
    assert "Hires upscale: 1.25, Hires steps: 1, Hires upscaler: Latent" in found.info["parameters"]


def test_what_is_missing_is_said_and_how_to_make_it(sdc: Any, converted: Path, tmp_path: Path) -> None:
    done = sdc("generate", PROMPT, "-i", converted, "-o", tmp_path / "a.png", "--hires-scale", 2)
    assert done.status == 1
    assert "256x256 for hires_scale 2" in done.err
    assert "--latent-w 32 --latent-h 32" in done.err
    assert list(tmp_path.iterdir()) == []


def test_fields_have_the_web_uis_defaults() -> None:
    from sd_bundle import ImageSize

    sizes = [ImageSize(128, 128)]
    options = wanted({"enable_hr": True}, sizes, from_image=False, title="x").options
    assert {name: options[name] for name in options if name.startswith("hires")} == {
        "hires_scale": 2.0,
        "hires_strength": 0.75,
        "hires_steps": None,
        "hires_upscaler": "latent",
    }
    off = {"enable_hr": False, "hr_scale": 3, "hr_sampler_name": "DDIM", "denoising_strength": 0.2}
    assert not any(
        name.startswith("hires") for name in wanted(off, sizes, from_image=False, title="").options
    )


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"enable_hr": "yes"}, "enable_hr"),
        ({"hr_upscaler": "ESRGAN_4x"}, "hr_upscaler"),
        ({"hr_resize_x": 512}, "hr_resize_x"),
        ({"hr_sampler_name": "DDIM"}, "hr_sampler_name"),
        ({"hr_scale": "2"}, "hr_scale"),
        ({"hr_second_pass_steps": 1.5}, "hr_second_pass_steps"),
        ({"hr_no_such": 1}, "hr_no_such"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    from sd_bundle import ImageSize

    with pytest.raises(Refused) as refused:
        wanted({"enable_hr": True, **fields}, [ImageSize(128, 128)], from_image=False, title="x")
    assert refused.value.field == field

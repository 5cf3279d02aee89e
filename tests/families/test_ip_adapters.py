"""IP-Adapters of tiny random checkpoints, not square, against diffusers' pipelines."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("sd_mil.engines.openvino.library", exc_type=ImportError)

from safetensors.torch import save_file  # noqa: E402
from sd_controlnet import BaseModelError, Control, ControlNetError, ImagePrompt, Steering  # noqa: E402
from sd_runtime import Pipeline, open_bundle  # noqa: E402

WIDTH, HEIGHT = 24, 16
STEPS, SCALE = 3, 3.0
SAMPLING = {
    "prompt": "a cat",
    "negative_prompt": "dull",
    "num_inference_steps": STEPS,
    "guidance_scale": SCALE,
}
KINDS_OF = {"sd": ("plain", "plus"), "xl": ("full", "plus")}


def photo(seed: int) -> Image.Image:
    """Patches of colour in another size and shape than the picture's."""
    colours = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((70, 50), Image.Resampling.NEAREST)


PHOTOS = [photo(1), photo(2)]


@dataclass(frozen=True)
class Prompted:
    """diffusers' networks, and the pipeline of the bundle made of them, whose UNet has two IP-Adapters."""

    networks: Any
    controlnet: Any
    encoder: Any
    files: list[Path]
    pipeline: Pipeline

    @contextmanager
    def adapted(self, scales: list[float]) -> Iterator[Any]:
        """diffusers' UNet with the adapters, as long as it is needed."""
        unet = self.networks.unet
        tensors = [_by_part(path) for path in self.files]
        unet._load_ip_adapter_weights(tensors, low_cpu_mem_usage=False)
        for processor in unet.attn_processors.values():
            if hasattr(processor, "scale"):
                processor.scale = scales
        try:
            yield unet
        finally:
            unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor2_0())
            unet.encoder_hid_proj, unet.config.encoder_hid_dim_type = None, None

    def by_diffusers(self, kind: str, scales: list[float], **options: Any) -> np.ndarray:
        """Images through the pipeline of that kind."""
        made = getattr(diffusers, kind)
        taken = inspect.signature(made.__init__).parameters
        parts = {name: part for name, part in self.networks.components.items() if name in taken}
        parts |= {"image_encoder": self.encoder, "feature_extractor": _extractor(self.encoder)}
        if "ControlNet" in kind:
            parts["controlnet"] = self.controlnet
        extra = {} if "XL" in kind else {"requires_safety_checker": False}
        with self.adapted(scales), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = made(**parts, **extra)
            pipeline.set_progress_bar_config(disable=True)
            generator = torch.Generator("cpu").manual_seed(11)
            sizes = {} if "Img2Img" in kind else {"width": WIDTH, "height": HEIGHT}
            drawn = pipeline(**SAMPLING | sizes | options, generator=generator, ip_adapter_image=PHOTOS)
        return np.asarray(drawn.images[0], dtype=np.float64)

    def ours(self, scales: list[float], *controls: Control, **options: Any) -> np.ndarray:
        images = [ImagePrompt(image, scale) for image, scale in zip(PHOTOS, scales, strict=False)]
        steer = Steering(self.pipeline, controls, images) if images or controls else None
        (drawn,) = self.pipeline.generate(**SAMPLING | options, seed=11, rng="torch", steer=steer)
        return np.asarray(drawn.image, dtype=np.float64)


def _by_part(path: Path) -> dict[str, dict[str, Any]]:
    from safetensors.torch import load_file

    parts: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in load_file(path).items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    return parts


def _extractor(encoder: Any) -> Any:
    from transformers import CLIPImageProcessor

    side = encoder.config.image_size
    return CLIPImageProcessor(size=side, crop_size=side)


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape == (HEIGHT, WIDTH, 3)
    return float(10 * np.log10(255**2 / max(np.mean((found - expected) ** 2), 1e-9)))


def prompted(families: Any, networks: Any, kinds: tuple[str, ...], **options: Any) -> Prompted:
    encoder, controlnet = families.image_encoder(), families.controlnet(networks.unet, seed=5)
    folder = families.folder / "models"
    encoder.save_pretrained(folder / "image_encoder")
    files = []
    for seed, kind in enumerate(kinds):
        width = encoder.config.projection_dim if kind == "plain" else encoder.config.hidden_size
        files.append(folder / f"ip-adapter-{kind}.safetensors")
        save_file(families.ip_adapter_tensors(networks.unet, kind, seed=seed, image_width=width), files[-1])
    path = families.steered_bundle(
        networks,
        {"edges": controlnet},
        {},
        ip_adapters=files,
        unet_support_controlnet=True,
        latent_height=HEIGHT // 2,
        latent_width=WIDTH // 2,
        **options,
    )
    return Prompted(networks, controlnet, encoder, files, Pipeline.open(path))


@pytest.fixture(scope="module")
def sd(shared_families: Any) -> Prompted:
    return prompted(shared_families, shared_families.sd(), KINDS_OF["sd"])


@pytest.fixture(scope="module")
def xl(shared_families: Any, tmp_path_factory: pytest.TempPathFactory) -> Prompted:
    families = type(shared_families)(
        tmp_path_factory.mktemp("xl"), shared_families.cache, shared_families.remember
    )
    return prompted(
        families,
        families.xl(),
        KINDS_OF["xl"],
        unet_batch_one=True,
        attention_implementation="SPLIT_EINSUM_V2",
    )


def test_sd_like_diffusers(sd: Prompted) -> None:
    plain = sd.ours([])
    for scales in ([0.6, 0.0], [0.0, 0.8], [0.6, 0.9]):
        expected = sd.by_diffusers("StableDiffusionPipeline", scales)
        assert psnr(plain, expected) < 30
        assert psnr(sd.ours(scales), expected) >= 35
    np.testing.assert_array_equal(sd.ours([0.6]), sd.ours([0.6, 0.0]))


def test_xl_one_row_at_a_time_like_diffusers(xl: Prompted) -> None:
    expected = xl.by_diffusers("StableDiffusionXLPipeline", [0.7, 0.5])
    assert psnr(xl.ours([]), expected) < 30
    assert psnr(xl.ours([0.7, 0.5]), expected) >= 35


def test_without_an_image_it_is_the_plain_one(sd: Prompted) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generator = torch.Generator("cpu").manual_seed(11)
        drawn = sd.networks(**SAMPLING, width=WIDTH, height=HEIGHT, generator=generator)
    plain = sd.ours([])
    assert psnr(plain, np.asarray(drawn.images[0], dtype=np.float64)) >= 35
    np.testing.assert_array_equal(sd.ours([0.0, 0.0]), plain)


def test_beside_a_controlnet_and_on_pictures(sd: Prompted) -> None:
    hint = photo(7).resize((WIDTH, HEIGHT))
    expected = sd.by_diffusers("StableDiffusionControlNetPipeline", [0.6, 0.9], image=hint)
    assert psnr(sd.ours([0.6, 0.9]), expected) < 30
    assert psnr(sd.ours([0.6, 0.9], Control("edges", hint)), expected) >= 35
    image = photo(8).resize((WIDTH, HEIGHT))
    expected = sd.by_diffusers("StableDiffusionImg2ImgPipeline", [0.6, 0.9], image=image, strength=0.75)
    assert psnr(sd.ours([0.6, 0.9], image=image, strength=0.75), expected) >= 35
    mask = Image.new("L", (WIDTH, HEIGHT))
    mask.paste(255, (4, 4, 20, 12))
    expected = sd.by_diffusers(
        "StableDiffusionInpaintPipeline", [0.6, 0.9], image=image, mask_image=mask, strength=1.0
    )
    assert psnr(sd.ours([0.6, 0.9], image=image, mask=mask, strength=1.0), expected) >= 35


def _verified(prompted: Prompted, *names: str) -> dict[str, float]:
    from sd_controlnet.conversion import with_ip_adapters
    from sd_convert import KINDS, open_checkpoint, verify

    path = prompted.pipeline.bundle.path
    opened, kinds = with_ip_adapters(open_checkpoint(path.parent / "checkpoint"), prompted.files)
    report = verify(path, opened, components=names, kinds=(*KINDS, *kinds))
    return {f"{row.component}.{row.output}": row.psnr for row in report.rows}


def test_they_compute_what_torch_computes(sd: Prompted, xl: Prompted) -> None:
    """Each network against torch's, from the files that it was made of."""
    found = _verified(xl, "unet", "image_encoder", *(file.stem for file in xl.files))
    assert len(found) == 5
    found |= _verified(sd, sd.files[0].stem)
    assert min(found.values()) >= 60, found
    origins = sd.pipeline.bundle.manifest.provenance.weights.files
    assert [file.sha256 is None for file in origins[sd.files[0].stem]] == [False]


def test_each_network_equals_that_of_diffusers(sd: Prompted) -> None:
    """The UNet with scales of its own for each row, and the tokens, by diffusers' processors themselves."""
    from sd_mil import psnr as fidelity

    models = sd.pipeline.models
    unet = models.only("denoiser")
    generator = np.random.default_rng(0)
    given = {
        port.name: generator.standard_normal(port.shape).astype(np.float16).astype(np.float32)
        for port in unet.component.inputs
    }
    given |= {name: np.zeros_like(array) for name, array in given.items() if "residual" in name}
    given["timestep"] = np.array([7, 500], np.float32)
    given["ip_adapter_scale"] = np.array([[0.5, 1.25], [0.0, 0.75]], np.float32)
    found = unet.predict("noise_pred", **given)
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    for row, scales in enumerate(given["ip_adapter_scale"].tolist()):
        with sd.adapted(scales) as theirs, torch.no_grad():
            theirs.encoder_hid_proj = torch.nn.Identity()  # tokens are given, not images
            expected = theirs(
                tensors["sample"][row : row + 1],
                tensors["timestep"][row],
                tensors["encoder_hidden_states"][row : row + 1].squeeze(2).transpose(1, 2),
                added_cond_kwargs={
                    "image_embeds": [
                        tensors[f"ip_hidden_states_{number}"][row : row + 1]
                        .squeeze(2)
                        .transpose(1, 2)[:, None]
                        for number in range(2)
                    ]
                },
            ).sample
        assert fidelity(expected.numpy(), found[row : row + 1]) >= 60


def test_from_the_command_line(sd: Prompted, tmp_path: Path) -> None:
    from click.testing import CliRunner
    from sd_runtime import read_settings
    from sdc.cli import cli

    images = [tmp_path / f"{number}.png" for number in range(2)]
    for path, image in zip(images, PHOTOS, strict=True):
        image.save(path)
    command = ["generate", "a cat", "-i", sd.pipeline.bundle.path, "-o", tmp_path / "x.png", "--rng", "torch"]
    command += ["--negative-prompt", "dull", "--seed", 11, "--num-inference-steps", STEPS]
    command += ["--guidance-scale", SCALE, "--ip-adapter-image", *images, "--ip-adapter-scale", 0.6, 0.9]
    done = CliRunner().invoke(cli, list(map(str, command)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "x.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn, float), sd.ours([0.6, 0.9]))
    controls = read_settings(tmp_path / "x.png").controls or ()
    assert [(each.component, each.scale) for each in controls] == [
        ("ip-adapter-plain", 0.6),
        ("ip-adapter-plus", 0.9),
    ]


def test_converted_and_drawn_with_by_the_command_line(sd: Prompted, tmp_path: Path) -> None:
    """The whole way, in this process: the picture is that of the bundle that the library made."""
    from click.testing import CliRunner
    from sdc.cli import cli

    checkpoint = sd.pipeline.bundle.path.parent / "checkpoint"
    command = ["convert", checkpoint, "-o", tmp_path / "bundle", "--ip-adapter", *sd.files]
    command += ["--image-encoder", sd.files[0].parent / "image_encoder", "--compute-precision", "fp16"]
    command += ["--latent-h", HEIGHT // 2, "--latent-w", WIDTH // 2]
    planned = CliRunner().invoke(cli, [*map(str, command), "--dry-run"], catch_exceptions=False)
    for port in (
        "ip_hidden_states_1: float16[2, 32, 1, 5]",
        "ip_adapter_scale: float16[2, 2]",
        "pixel_values: float16[1, 3, 32, 32]",
    ):
        assert port in planned.output
    assert not (tmp_path / "bundle").exists()
    done = CliRunner().invoke(cli, list(map(str, command)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    roles = [each.role for each in open_bundle(tmp_path / "bundle").manifest.components]
    assert (roles.count("vision_encoder"), roles.count("image_projection")) == (1, 2)

    PHOTOS[1].save(tmp_path / "photo.png")
    command = ["generate", "a cat", "-i", tmp_path / "bundle", "-o", tmp_path / "x.png", "--rng", "torch"]
    command += ["--negative-prompt", "dull", "--seed", 11, "--num-inference-steps", STEPS]
    command += ["--guidance-scale", SCALE, "--ip-adapter-image", tmp_path / "photo.png"]
    command += ["--ip-adapter", "ip-adapter-plus", "--ip-adapter-scale", 0.8]
    done = CliRunner().invoke(cli, list(map(str, command)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "x.png") as drawn:
        found = np.asarray(drawn, float)
    assert psnr(found, sd.ours([0.0, 0.8])) >= 50  # whose UNet takes residuals, too
    assert psnr(found, sd.ours([])) < 35


def test_when_and_for_which_adapter(sd: Prompted) -> None:
    named = Steering(sd.pipeline, images=[ImagePrompt(PHOTOS[1], 0.8, adapter="ip-adapter-plus")])
    (drawn,) = sd.pipeline.generate(**SAMPLING, seed=11, rng="torch", steer=named)
    np.testing.assert_array_equal(np.asarray(drawn.image, float), sd.ours([0.0, 0.8]))
    late = Steering(sd.pipeline, images=[ImagePrompt(PHOTOS[1], 0.8, start=0.5)])
    (drawn,) = sd.pipeline.generate(**SAMPLING, seed=11, rng="torch", steer=late)
    assert psnr(np.asarray(drawn.image, float), sd.ours([])) < 60
    assert psnr(np.asarray(drawn.image, float), sd.ours([0.8])) < 60


def test_what_is_refused(sd: Prompted, xl: Prompted, families: Any, tmp_path: Path) -> None:
    from sd_controlnet.conversion import with_ip_adapters
    from sd_convert import (
        NotACheckpointError,
        UnsafeWeightsError,
        UnsupportedArchitectureError,
        open_checkpoint,
    )

    opened = open_checkpoint(sd.pipeline.bundle.path.parent / "checkpoint")
    with pytest.raises(BaseModelError, match=r"cross_attention_dim 32, as the UNet has it, got one with 64"):
        with_ip_adapters(opened, [xl.files[0]])
    lonely = tmp_path / "lonely.safetensors"
    lonely.write_bytes(sd.files[0].read_bytes())
    with pytest.raises(ControlNetError, match=r"expected an image encoder for .*lonely"):
        with_ip_adapters(opened, [lonely])
    families.image_encoder(projection_dim=7).save_pretrained(tmp_path / "image_encoder")
    with pytest.raises(BaseModelError, match=r"image_embeds of 7 channels, .* got one for 24"):
        with_ip_adapters(opened, [lonely])
    pickle = tmp_path / "ip-adapter_sd15.bin"
    pickle.write_bytes(b"\x80\x02")
    with pytest.raises(UnsafeWeightsError, match=r"ip-adapter_sd15\.bin: expected .* pickle.* python -c"):
        with_ip_adapters(opened, [pickle])
    save_file(
        {"image_proj.norm.weight": torch.zeros(3), "ip_adapter.1.to_k_ip.weight": torch.zeros(3)}, lonely
    )
    with pytest.raises(UnsupportedArchitectureError, match="FaceID"):
        with_ip_adapters(opened, [lonely])
    save_file({"x": torch.zeros(3)}, lonely)
    with pytest.raises(NotACheckpointError, match="expected an IP-Adapter"):
        with_ip_adapters(opened, [lonely])
    with pytest.raises(ControlNetError, match="expected an image for each IP-Adapter"):
        Steering(sd.pipeline, images=[ImagePrompt(PHOTOS[0])] * 3)
    with pytest.raises(ControlNetError, match="a scale from 0 to 10, got 11"):
        ImagePrompt(PHOTOS[0], 11)

"""ControlNets and T2I-Adapters of tiny random checkpoints, not square, against diffusers' pipelines."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("sd_mil.engines.openvino.library", exc_type=ImportError)

from sd_controlnet import Control, ControlNetError, Steering  # noqa: E402
from sd_runtime import Pipeline  # noqa: E402

WIDTH, HEIGHT = 24, 16
STEPS, SCALE = 5, 3.0
STRENGTHS = {"first": 0.8, "second": 0.5, "sketch": 0.7}
SPANS = {"first": (0.0, 0.7), "second": (0.3, 1.0), "sketch": (0.0, 1.0)}
PROMPTS = {"prompt": "a cat", "negative_prompt": "dull"}
SAMPLING = {**PROMPTS, "num_inference_steps": STEPS, "guidance_scale": SCALE}


def hint(seed: int) -> Image.Image:
    """Edges of another size and shape than the picture's."""
    return Image.fromarray((np.random.default_rng(seed).random((40, 30, 3)) > 0.6).astype(np.uint8) * 255)


HINTS = {"first": hint(1), "second": hint(2), "sketch": hint(3)}


@dataclass(frozen=True)
class Steered:
    """diffusers' networks, and the pipeline of the bundle made of them."""

    networks: Any
    controlnets: dict[str, Any]
    adapter: Any
    pipeline: Pipeline

    def by_diffusers(self, kind: str, *names: str, **options: Any) -> np.ndarray:
        """ControlNets by the pipeline of that kind."""
        chosen = [self.controlnets[name] for name in names]
        spans = [SPANS[name] for name in names]
        scales = [STRENGTHS[name] for name in names]
        fitted = [HINTS[name].resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS) for name in names]
        one = len(names) == 1
        pipeline = self._pipeline(kind, controlnet=chosen[0] if one else chosen)
        return self._drawn(
            pipeline,
            controlnet_conditioning_scale=scales[0] if one else scales,
            control_guidance_start=[start for start, _ in spans],
            control_guidance_end=[end for _, end in spans],
            **{"control_image" if "image" in options else "image": fitted[0] if one else fitted},
            **options,
        )

    def adapted_by_diffusers(self, kind: str, **options: Any) -> np.ndarray:
        """The adapter by the pipeline of that kind."""
        image, scale = HINTS["sketch"].resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), STRENGTHS["sketch"]
        pipeline = self._pipeline(kind, adapter=self.adapter)
        return self._drawn(pipeline, image=image, adapter_conditioning_scale=scale, **options)

    def _pipeline(self, kind: str, **networks: Any) -> Any:
        extra = {} if "XL" in kind else {"requires_safety_checker": False}
        made = getattr(diffusers, kind)
        taken = inspect.signature(made.__init__).parameters
        components = {name: part for name, part in self.networks.components.items() if name in taken}
        pipeline = made(**components, **networks, **extra)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _drawn(self, pipeline: Any, **options: Any) -> np.ndarray:
        generator = torch.Generator("cpu").manual_seed(11)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            drawn = pipeline(**SAMPLING, width=WIDTH, height=HEIGHT, generator=generator, **options)
        return np.asarray(drawn.images[0], dtype=np.float64)

    def ours(self, *names: str, guess_mode: bool = False, **options: Any) -> np.ndarray:
        controls = [
            Control(name, HINTS[name], STRENGTHS[name], *SPANS[name], guess_mode=guess_mode) for name in names
        ]
        steer = Steering(self.pipeline, controls) if names else None
        (drawn,) = self.pipeline.generate(**SAMPLING, seed=11, rng="torch", steer=steer, **options)
        assert (drawn.settings.controls or ()) == (steer.controls if steer else ())
        return np.asarray(drawn.image, dtype=np.float64)


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape == (HEIGHT, WIDTH, 3)
    return float(10 * np.log10(255**2 / max(np.mean((found - expected) ** 2), 1e-9)))


def steered(families: Any, networks: Any, *, xl: bool = False) -> Steered:
    controlnets = {
        "first": families.controlnet(networks.unet, seed=5),
        "second": families.controlnet(networks.unet, seed=6, controlnet_conditioning_channel_order="bgr"),
    }
    if xl:
        controlnets["union"] = families.union(networks.unet, seed=7)
    adapter = families.adapter(xl=xl, seed=8)
    path = families.steered_bundle(
        networks,
        controlnets,
        {"sketch": adapter},
        unet_support_controlnet=True,
        unet_support_t2i_adapter=True,
        unet_batch_one=xl,
        latent_height=HEIGHT // 2,
        latent_width=WIDTH // 2,
    )
    return Steered(networks, controlnets, adapter, Pipeline.open(path))


@pytest.fixture(scope="module")
def sd(shared_families: Any) -> Steered:
    return steered(shared_families, shared_families.sd())


@pytest.fixture(scope="module")
def xl(shared_families: Any, tmp_path_factory: pytest.TempPathFactory) -> Steered:
    families = type(shared_families)(
        tmp_path_factory.mktemp("xl"), shared_families.cache, shared_families.remember
    )
    unet = {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 1),
    }
    return steered(families, families.xl(unet=unet), xl=True)


@pytest.fixture
def pictures() -> dict[str, Any]:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] / WIDTH
    image = np.stack([rows, columns, (rows + columns) % 1], axis=-1)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:12, 8:20] = 255
    return {
        "image": Image.fromarray(np.round(image * 255).astype(np.uint8)),
        "mask": Image.fromarray(mask),
    }


def test_sd_like_diffusers(sd: Steered) -> None:
    plain = sd.ours()
    for names, guess_mode in ((("first",), False), (("first", "second"), False), (("first", "second"), True)):
        expected = sd.by_diffusers("StableDiffusionControlNetPipeline", *names, guess_mode=guess_mode)
        assert psnr(plain, expected) < 30
        assert psnr(sd.ours(*names, guess_mode=guess_mode), expected) >= 35


def test_sd_from_pictures(sd: Steered, pictures: dict[str, Any]) -> None:
    names = ("first", "second")
    image, mask = pictures["image"], pictures["mask"]
    expected = sd.by_diffusers("StableDiffusionControlNetImg2ImgPipeline", *names, image=image, strength=0.8)
    assert psnr(sd.ours(*names, image=image, strength=0.8), expected) >= 35
    expected = sd.by_diffusers(
        "StableDiffusionControlNetInpaintPipeline", *names, image=image, mask_image=mask, strength=1.0
    )
    assert psnr(sd.ours(*names, image=image, mask=mask, strength=1.0), expected) >= 35


def test_xl_one_row_at_a_time_like_diffusers(xl: Steered, pictures: dict[str, Any]) -> None:
    names = ("first", "second")
    for guess_mode in (False, True):
        expected = xl.by_diffusers("StableDiffusionXLControlNetPipeline", *names, guess_mode=guess_mode)
        assert psnr(xl.ours(), expected) < 30
        assert psnr(xl.ours(*names, guess_mode=guess_mode), expected) >= 35
    image, mask = pictures["image"], pictures["mask"]
    expected = xl.by_diffusers(
        "StableDiffusionXLControlNetImg2ImgPipeline", *names, image=image, strength=0.8
    )
    assert psnr(xl.ours(*names, image=image, strength=0.8), expected) >= 35
    expected = xl.by_diffusers(
        "StableDiffusionXLControlNetInpaintPipeline", *names, image=image, mask_image=mask, strength=0.99
    )
    assert psnr(xl.ours(*names, image=image, mask=mask, strength=0.99), expected) >= 35


def test_a_union_controlnet_is_told_the_kind_of_hint(xl: Steered, pictures: dict[str, Any]) -> None:
    fitted = HINTS["first"].resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)

    def ours(mode: int | None, **options: Any) -> np.ndarray:
        steer = Steering(xl.pipeline, [Control("union", HINTS["first"], 0.8, mode=mode)])
        (drawn,) = xl.pipeline.generate(**SAMPLING, seed=11, rng="torch", steer=steer, **options)
        assert drawn.settings.controls is not None
        assert drawn.settings.controls[0].mode == mode
        return np.asarray(drawn.image, dtype=np.float64)

    def by_diffusers(kind: str, mode: int, **options: Any) -> np.ndarray:
        pipeline = xl._pipeline(kind, controlnet=xl.controlnets["union"])
        return xl._drawn(
            pipeline,
            control_image=[fitted],
            control_mode=[mode],
            controlnet_conditioning_scale=0.8,
            **options,
        )

    expected = by_diffusers("StableDiffusionXLControlNetUnionPipeline", 3)
    assert psnr(xl.ours(), expected) < 30
    assert psnr(ours(1), expected) < 35
    assert psnr(ours(3), expected) >= 35
    image = pictures["image"]
    expected = by_diffusers("StableDiffusionXLControlNetUnionImg2ImgPipeline", 1, image=image, strength=0.8)
    assert psnr(ours(1, image=image, strength=0.8), expected) >= 35
    with pytest.raises(ControlNetError, match="a mode from 0 to 3 for the union ControlNet union, got 4"):
        ours(4)
    with pytest.raises(ControlNetError, match="got None"):
        ours(None)
    with pytest.raises(ControlNetError, match="got 1 for first, which is none"):
        Steering(xl.pipeline, [Control("first", fitted, mode=1)])


def test_a_union_controlnet_of_two_hints_at_once(xl: Steered, lowered_once: Any) -> None:
    """In one use of the network, as diffusers' pipeline has it for lists; with one hint it is as ever."""
    from sd_controlnet.conversion import with_controlnets
    from sd_convert import KINDS, ConversionOptions, convert, open_checkpoint, verify

    folder = xl.pipeline.bundle.path.parent
    opened = open_checkpoint(folder / "checkpoint")
    opened, kinds = with_controlnets(opened, [folder / "union"], union_hints=2)
    sizes = {"latent_height": HEIGHT // 2, "latent_width": WIDTH // 2}
    options = ConversionOptions(
        compute_precision=("fp16",),
        unet_support_controlnet=True,
        unet_support_t2i_adapter=True,  # as the fixture's, which is traced and compiled already
        unet_batch_one=True,
        **sizes,
    )
    convert(opened, folder / "two", options, kinds=(*KINDS, *kinds), cache=lowered_once)
    report = verify(folder / "two", opened, components=["union"], kinds=(*KINDS, *kinds))
    assert min(row.psnr for row in report.rows) >= 60
    pipeline = Pipeline.open(folder / "two")
    names, modes, scales = ("first", "second"), (3, 1), (0.8, 0.5)
    controls = [
        Control("union", HINTS[name], scale, mode=mode)
        for name, mode, scale in zip(names, modes, scales, strict=True)
    ]

    def ours(*controls: Control) -> np.ndarray:
        steer = Steering(pipeline, controls)
        (drawn,) = pipeline.generate(**SAMPLING, seed=11, rng="torch", steer=steer)
        assert len(drawn.settings.controls or ()) == len(controls)
        return np.asarray(drawn.image, dtype=np.float64)

    theirs = xl._pipeline("StableDiffusionXLControlNetUnionPipeline", controlnet=xl.controlnets["union"])
    fitted = [HINTS[name].resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS) for name in names]
    for count in (1, 2):
        expected = xl._drawn(
            theirs,
            control_image=fitted[:count],
            control_mode=list(modes[:count]),
            controlnet_conditioning_scale=list(scales[:count]) if count > 1 else scales[0],
        )
        assert psnr(ours(*controls[:count]), expected) >= 35
        assert psnr(ours(*controls[: 3 - count]), expected) < 35
    with pytest.raises(ControlNetError, match=r"up to 2 hints for union, got more.*--union-hints 3"):
        Steering(pipeline, [*controls, controls[0]])
    with pytest.raises(ControlNetError, match=r"to have the same end, got 1\.0 and 0\.5"):
        Steering(pipeline, [controls[0], Control("union", HINTS["first"], mode=1, end=0.5)])
    with pytest.raises(ControlNetError, match="a union ControlNet for 2 hints at once, got first"):
        with_controlnets(open_checkpoint(folder / "checkpoint"), [folder / "first"], union_hints=2)


def test_adapters_like_diffusers(sd: Steered, xl: Steered) -> None:
    kinds = {"StableDiffusionAdapterPipeline": sd, "StableDiffusionXLAdapterPipeline": xl}
    for kind, steered in kinds.items():
        expected = steered.adapted_by_diffusers(kind)
        assert psnr(steered.ours(), expected) < 30
        assert psnr(steered.ours("sketch"), expected) >= 35


def test_they_compute_what_torch_computes(sd: Steered, xl: Steered) -> None:
    """The networks that steer, each against torch's, from the folders that they were made of."""
    from sd_controlnet.conversion import with_controlnets, with_t2i_adapters
    from sd_convert import KINDS, open_checkpoint, verify

    for steered in (sd, xl):
        path = steered.pipeline.bundle.path
        opened = open_checkpoint(path.parent / "checkpoint")
        opened, kinds = with_controlnets(opened, [path.parent / name for name in steered.controlnets])
        opened, more = with_t2i_adapters(opened, [path.parent / "sketch"])
        names = [*steered.controlnets, "sketch"]
        report = verify(path, opened, components=names, kinds=(*KINDS, *kinds, *more))
        assert min(row.psnr for row in report.rows) >= 60
        assert {row.component for row in report.rows} == set(names)
        origins = steered.pipeline.bundle.manifest.provenance.weights.files
        assert [file.name for file in origins["first"]] == ["first/diffusion_pytorch_model.safetensors"]
        assert origins["first"][0].sha256 is not None


def test_from_the_command_line(sd: Steered, tmp_path: Path) -> None:
    from click.testing import CliRunner
    from sd_runtime import read_settings
    from sdc.cli import cli

    hints = [tmp_path / f"{name}.png" for name in ("first", "second")]
    for path in hints:
        HINTS[path.stem].save(path)
    command = ["generate", "a cat", "-i", sd.pipeline.bundle.path, "-o", tmp_path / "x.png", "--rng", "torch"]
    command += ["--negative-prompt", "dull", "--seed", 11, "--num-inference-steps", STEPS]
    command += ["--guidance-scale", SCALE, "--controlnet", "first", "second", "--controlnet-inputs", *hints]
    command += ["--controlnet-scale", 0.8, 0.5, "--controlnet-start", 0, 0.3, "--controlnet-end", 0.7, 1]
    done = CliRunner().invoke(cli, list(map(str, command)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "x.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn, float), sd.ours("first", "second"))
        assert "ControlNet 0:" in drawn.text["parameters"]  # type: ignore[attr-defined]
    assert [control.scale for control in read_settings(tmp_path / "x.png").controls or ()] == [0.8, 0.5]


def test_in_six_bits_they_steer_alike(sd: Steered, tmp_path: Path) -> None:
    from click.testing import CliRunner
    from sdc.cli import cli

    command = ["compress", sd.pipeline.bundle.path, "-o", tmp_path / "small", "--nbits", 6, "--no-measure"]
    done = CliRunner().invoke(cli, list(map(str, command)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    small = Steered(sd.networks, sd.controlnets, sd.adapter, Pipeline.open(tmp_path / "small"))
    for name in ("unet", "first", "second", "sketch"):
        compression = small.pipeline.bundle.component(name).compression
        assert compression is not None
        assert compression.bits_per_weight < 10
    for names in (("first", "second"), ("sketch",)):
        expected = sd.ours(*names)
        assert psnr(small.ours(*names), expected) >= 25
        assert psnr(small.ours(*names), expected) > psnr(small.ours(), expected) + 6


def test_a_controlnet_of_another_base_is_refused(sd: Steered, xl: Steered, tmp_path: Path) -> None:
    from sd_controlnet import BaseModelError
    from sd_controlnet.conversion import with_controlnets
    from sd_convert import KINDS, ConversionOptions, open_checkpoint, plan

    opened = open_checkpoint(sd.pipeline.bundle.path.parent / "checkpoint")
    opened, kinds = with_controlnets(opened, [xl.pipeline.bundle.path.parent / "first"])
    with pytest.raises(
        BaseModelError,
        match=r"cross_attention_dim 64 instead of 32, block_out_channels \[32, 64, 64\] instead",
    ):
        plan(opened, ConversionOptions(components=("first",)), kinds=(*KINDS, *kinds))


def test_single_files_of_a_light_adapter_and_a_union_controlnet(
    families: Any, more_families: Any, tmp_path: Path
) -> None:
    """By the command line, each held against torch's, which is built from what the file says."""
    import json

    from click.testing import CliRunner
    from safetensors.torch import save_file
    from sdc.cli import cli

    torch.manual_seed(9)
    light = diffusers.T2IAdapter(channels=[32, 64], downscale_factor=2, adapter_type="light_adapter")
    names = {
        name: name.removeprefix("adapter.").replace(".resnets.", ".body.") for name in light.state_dict()
    }
    save_file(
        {names[name]: tensor for name, tensor in light.half().state_dict().items()},
        tmp_path / "light.safetensors",
    )
    three = {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    }
    sd = families.sd(unet=three)
    xl = more_families.xl(unet={**three, "transformer_layers_per_block": (1, 2, 1)})
    save_file(families.union(xl.unet, seed=7).state_dict(), tmp_path / "union.safetensors")
    for pipeline, option, name in (
        (sd, "--convert-t2i-adapter", "light"),
        (xl, "--convert-controlnet", "union"),
    ):
        pipeline.save_pretrained(tmp_path / f"with-{name}")
        command = ["convert", tmp_path / f"with-{name}", "-o", tmp_path / f"{name}-bundle", "--json"]
        command += [
            option,
            tmp_path / f"{name}.safetensors",
            "--components",
            name,
            "--compute-precision",
            "fp16",
        ]
        command += ["--check-output-correctness", "--latent-h", 8, "--latent-w", 8]
        done = CliRunner().invoke(cli, list(map(str, command)), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        rows = json.loads(done.stdout)["verification"]["rows"]
        assert {row["component"] for row in rows} == {name}
        assert len(rows) >= 3
        assert all(row["psnr"] > 45 for row in rows)

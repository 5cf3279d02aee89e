"""The same checkpoint, prompt and noise through diffusers' StableDiffusionPipeline, in float32."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sd_bundle import Role
from sd_runtime import (
    Bundle,
    BundleComponent,
    ConditioningFacts,
    DenoiserFacts,
    FunctionModel,
    ImageSize,
    LatentSize,
    ModelFacts,
    PictureSize,
    Pipeline,
    PortSpec,
    Provenance,
    TextEncoding,
    VaeFacts,
    Variant,
    draw_noise,
    new_bundle,
    open_bundle,
)

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference"
PACKAGES = {
    "text_encoder": "split_einsum/Stable_Diffusion_version_tiny-sd_text_encoder.mlpackage",
    "unet": "split_einsum/Stable_Diffusion_version_tiny-sd_unet.mlpackage",
    "vae_decoder": "split_einsum/Stable_Diffusion_version_tiny-sd_vae_decoder.mlpackage",
}
ROLES: dict[str, Role] = {
    "text_encoder": "text_encoder",
    "unet": "denoiser",
    "vae_decoder": "image_decoder",
}
PROMPT, NEGATIVE = "a photo of a cat", "blurry"
pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the reference checkpoint")


def ports(found: tuple[Any, ...], dtype: str | None) -> tuple[PortSpec, ...]:
    return tuple(PortSpec(port.name, port.shape, dtype or port.dtype) for port in found)


@pytest.fixture(scope="module")
def checkpoint() -> Any:
    """diffusers' own pipeline of the reference checkpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
            REFERENCE / "tiny-sd", torch_dtype=torch.float32, variant="fp16", safety_checker=None
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """The reference packages as a bundle; ``dtype`` overrides that of the ports in the manifest."""

    def write(*, dtype: str | None = None, prediction_type: str = "epsilon") -> Bundle:
        from sd_mil import read_package

        scheduler = json.loads((REFERENCE / "tiny-sd/scheduler/scheduler_config.json").read_text())
        facts = ModelFacts(
            identifier="tiny-sd",
            family="sd1",
            task="text-to-image",
            denoiser=DenoiserFacts("unet", None),
            prediction_type=prediction_type,  # type: ignore[arg-type]
            scheduler="scheduler/scheduler_config.json",
            sizes=(PictureSize(ImageSize(256, 256), LatentSize(4, 32, 32)),),
            vae=VaeFacts(0.18215, 0.0, "moments"),
            text_encoders=(TextEncoding("text_encoder", "tokenizer", "last_hidden_state"),),
            conditioning=ConditioningFacts("none", zero_empty_negative=False, guidance_embedding=False),
        )
        with new_bundle(tmp_path / "bundle", facts, provenance=Provenance.now("tiny-sd", tools={})) as draft:
            for name, path in PACKAGES.items():
                described = read_package(REFERENCE / "reference-packages" / path).description
                component = BundleComponent.of_package(
                    Path(path).name,
                    name=name,
                    role=ROLES[name],
                    size=facts.image,
                    inputs=ports(described.inputs, dtype),
                    outputs=ports(described.outputs, dtype),
                    attention_implementation="SPLIT_EINSUM" if name == "unet" else None,
                    compute_unit="CPU_AND_NE",
                    deployment_target="macOS13",
                )
                draft.add_component(component).parent.mkdir(exist_ok=True)
                for file in (REFERENCE / "reference-packages" / path).rglob("*"):
                    if file.is_file():
                        relative = file.relative_to(REFERENCE / "reference-packages" / path)
                        draft.copy_file(file, f"{component.package}/{relative.as_posix()}")
            for file in (REFERENCE / "tiny-sd/tokenizer").iterdir():
                draft.copy_file(file, f"tokenizer/{file.name}")
            config = {**scheduler, "prediction_type": prediction_type}
            draft.add_file("scheduler/scheduler_config.json", json.dumps(config).encode())
        return open_bundle(tmp_path / "bundle")

    return write


def torch_networks(checkpoint: Any) -> Callable[[BundleComponent], FunctionModel]:
    """The checkpoint's own modules as models: what differs then is the pipeline around them."""

    def text_encoder(input_ids: Any) -> Any:
        return {"last_hidden_state": checkpoint.text_encoder(torch.from_numpy(input_ids).long())[0].numpy()}

    def unet(sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:
        states = torch.from_numpy(encoder_hidden_states)[:, :, 0].transpose(1, 2)
        output = checkpoint.unet(torch.from_numpy(sample), torch.from_numpy(timestep), states).sample
        return {"noise_pred": output.numpy()}

    def vae_decoder(z: Any) -> Any:
        return {"image": checkpoint.vae.decode(torch.from_numpy(z)).sample.numpy()}

    functions = {"text_encoder": text_encoder, "unet": unet, "vae_decoder": vae_decoder}
    return lambda component: FunctionModel(torch.no_grad()(functions[component.name]))


def by_diffusers(checkpoint: Any, *, scheduler: str, prediction_type: str, scale: float, steps: int) -> Any:
    kind = getattr(diffusers, scheduler)
    checkpoint.scheduler = kind.from_config(
        json.loads((REFERENCE / "tiny-sd/scheduler/scheduler_config.json").read_text()),
        prediction_type=prediction_type,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = checkpoint(
            PROMPT,
            negative_prompt=NEGATIVE,
            num_inference_steps=steps,
            guidance_scale=scale,
            latents=torch.from_numpy(draw_noise((1, 4, 32, 32), 11, "torch")),
        )
    return np.asarray(drawn.images[0], dtype=np.float64)


def psnr(found: Any, expected: Any) -> float:
    error = np.mean((np.asarray(found, dtype=np.float64) - expected) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


@pytest.mark.parametrize(
    ("scheduler", "prediction_type", "scale"),
    [
        ("PNDMScheduler", "epsilon", 7.5),
        ("DDIMScheduler", "epsilon", 1.0),
        ("EulerDiscreteScheduler", "v_prediction", 3.0),
        ("DPMSolverMultistepScheduler", "epsilon", 5.0),
    ],
)
def test_same_pixels_with_the_same_networks(
    checkpoint: Any, bundle: Callable[..., Bundle], scheduler: str, prediction_type: str, scale: float
) -> None:
    """float32 ports: no rounding on the way, so the pixels are those of diffusers, give or take one level."""
    pipeline = Pipeline(bundle(dtype="float32", prediction_type=prediction_type), torch_networks(checkpoint))
    (drawn,) = pipeline.generate(
        PROMPT,
        negative_prompt=NEGATIVE,
        seed=11,
        rng="torch",
        num_inference_steps=4,
        guidance_scale=scale,
        scheduler=scheduler,
    )
    expected = by_diffusers(
        checkpoint, scheduler=scheduler, prediction_type=prediction_type, scale=scale, steps=4
    )
    assert np.std(expected) > 5
    assert np.abs(np.asarray(drawn.image, dtype=np.float64) - expected).max() <= 1


@pytest.mark.parametrize(("engine", "steps"), [("portable", 4), ("reference", 1)])
def test_same_picture_from_the_packages(
    checkpoint: Any, bundle: Callable[..., Bundle], engine: Any, steps: int
) -> None:
    pipeline = Pipeline.open(bundle().path, engine=engine)
    (drawn,) = pipeline.generate(
        PROMPT, negative_prompt=NEGATIVE, seed=11, rng="torch", num_inference_steps=steps
    )
    expected = by_diffusers(
        checkpoint, scheduler="PNDMScheduler", prediction_type="epsilon", scale=7.5, steps=steps
    )
    assert drawn.settings.engine == engine
    assert psnr(drawn.image, expected) >= 35


def test_ports_that_contradict_the_package(bundle: Callable[..., Bundle]) -> None:
    from sd_runtime import PortsError

    pipeline = Pipeline.open(bundle(dtype="float32").path, engine="portable")
    with pytest.raises(PortsError, match=r"unet\.mlpackage: expected the manifest's port .*float32.*, got "):
        pipeline.steps(PROMPT)


def test_a_window_of_another_kind(bundle: Callable[..., Bundle]) -> None:
    from sd_runtime import BundleError

    sound = bundle()
    encoder = sound.only("text_encoder")
    chunk = dataclasses.replace(encoder.chunk, inputs=(PortSpec("input_ids", (2, 77), "float32"),))
    short = dataclasses.replace(encoder, variants=(Variant(None, (chunk,)),))
    manifest = dataclasses.replace(
        sound.manifest, components=(short, *(c for c in sound.manifest.components if c != encoder))
    )
    pipeline = Pipeline(dataclasses.replace(sound, manifest=manifest), lambda _: FunctionModel(dict))
    with pytest.raises(BundleError, match=r"input_ids of one shape \[1, tokens\] .* got \[2, 77\]"):
        pipeline.steps(PROMPT)

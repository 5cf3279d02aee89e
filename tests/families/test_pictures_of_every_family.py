"""Each family: one random checkpoint, prompt and seed through diffusers in float32 and through the bundle."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from sd_runtime import Pipeline

PROMPT, NEGATIVE = "a cat, on a mat", "blurry"


def psnr(found: Any, expected: Any) -> float:
    error = np.mean((np.asarray(found, float) - np.asarray(expected, float)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


opened = lru_cache(maxsize=2)(Pipeline.open)  # compiling these networks takes longer than drawing with them


def drawn(path: Any, prompt: str = PROMPT, **options: Any) -> Any:
    (picture,) = opened(path).generate(prompt, seed=11, rng="torch", **options)
    return picture.image


def assert_same(found: Any, expected: np.ndarray, *, at_least: float = 35) -> None:
    assert np.std(expected) > 2
    assert psnr(found, expected) >= at_least


GUIDED = {"negative_prompt": NEGATIVE, "guidance_scale": 5.0}


def test_sd1(families: Any, by_diffusers: Any) -> None:
    theirs = families.sd(scheduler=families.scheduler("PNDMScheduler"))
    bundle = families.bundle(theirs)
    for scale in (1.0, 6.0):
        options = {"negative_prompt": NEGATIVE, "num_inference_steps": 3, "guidance_scale": scale}
        assert_same(drawn(bundle, **options), by_diffusers(theirs, PROMPT, **options))


def test_sd2_predicts_v_and_pads_with_an_exclamation_mark(families: Any, by_diffusers: Any) -> None:
    theirs = families.sd(
        unet={"use_linear_projection": True, "attention_head_dim": (2, 4)},
        text_encoder={"activation": "gelu"},
        scheduler=families.scheduler(
            "DDIMScheduler",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
        ),
        pad="!",
    )
    options = {**GUIDED, "num_inference_steps": 3}
    assert_same(drawn(families.bundle(theirs), **options), by_diffusers(theirs, PROMPT, **options))


@pytest.mark.parametrize("batch_one", [False, True])
def test_a_unet_for_controlnet_draws_without_one(families: Any, by_diffusers: Any, batch_one: bool) -> None:
    theirs = families.sd()
    bundle = families.bundle(theirs, unet_support_controlnet=True, unet_batch_one=batch_one)
    options = {**GUIDED, "num_inference_steps": 2}
    assert_same(drawn(bundle, **options), by_diffusers(theirs, PROMPT, **options))


def test_sdxl(families: Any, by_diffusers: Any) -> None:
    theirs = families.xl()
    theirs.unet.add_embedding.linear_1.weight.data *= 4  # random weights would hardly look at sizes
    bundle = families.bundle(theirs)
    for scale, negative in ((0.0, None), (6.0, None), (6.0, NEGATIVE)):
        shared = {"num_inference_steps": 3, "guidance_scale": scale}
        expected = by_diffusers(theirs, PROMPT, negative_prompt=negative, **shared)
        assert_same(drawn(bundle, negative_prompt=negative or "", **shared), expected)
    shared, plain = {"num_inference_steps": 3, "guidance_scale": 6.0}, expected
    sizes = {"original_size": (900, 700), "target_size": (512, 768)}
    expected = by_diffusers(theirs, PROMPT, **shared, **sizes, crops_coords_top_left=(30, 250))
    assert psnr(plain, expected) < 30
    assert_same(drawn(bundle, **shared, **sizes, crop_top_left=(30, 250)), expected)


def test_sdxl_with_one_row_at_a_time(families: Any, by_diffusers: Any) -> None:
    theirs = families.xl()
    options = {**GUIDED, "num_inference_steps": 2}
    found = drawn(families.bundle(theirs, unet_batch_one=True), **options)
    assert_same(found, by_diffusers(theirs, PROMPT, **options))


@pytest.mark.parametrize("family", ["sd", "xl"])
def test_turbo(families: Any, by_diffusers: Any, family: str) -> None:
    """No guidance, trailing timesteps, and fresh noise at every step."""
    ancestral = families.scheduler("EulerAncestralDiscreteScheduler", timestep_spacing="trailing")
    theirs = getattr(families, family)(scheduler=ancestral)
    bundle = families.bundle(theirs)
    for steps in (1, 3):
        options = {"num_inference_steps": steps, "guidance_scale": 0.0}
        assert_same(drawn(bundle, **options), by_diffusers(theirs, PROMPT, **options))


def test_latent_consistency(families: Any, by_diffusers: Any, photo: Any) -> None:
    import diffusers

    theirs = families.sd(
        kind="LatentConsistencyModelPipeline",
        unet={"time_cond_proj_dim": 16},
        scheduler=families.scheduler("LCMScheduler"),
    )
    theirs.unet.time_embedding.cond_proj.weight.data *= 16  # random weights would hardly look at the scale
    bundle = families.bundle(theirs)
    pictures = []
    for scale in (1.0, 8.5):
        options = {"num_inference_steps": 4, "guidance_scale": scale}
        pictures.append(by_diffusers(theirs, PROMPT, **options))
        assert_same(drawn(bundle, **options), pictures[-1])
    assert psnr(*pictures) < 30
    from_image = families.as_kind(diffusers.LatentConsistencyModelImg2ImgPipeline, theirs)
    options = {"image": photo, "strength": 0.5, "num_inference_steps": 3, "guidance_scale": 8.5}
    assert_same(drawn(bundle, **options), by_diffusers(from_image, PROMPT, **options))


def test_image_to_image(families: Any, by_diffusers: Any, photo: Any) -> None:
    import diffusers

    made = families.sd(scheduler=families.scheduler("DPMSolverMultistepScheduler"))
    bundle = families.bundle(made)
    theirs = families.as_kind(diffusers.StableDiffusionImg2ImgPipeline, made)
    for name in ("DPMSolverMultistep", "DDIM", "EulerDiscrete", "EulerAncestralDiscrete"):
        kind = getattr(diffusers, f"{name}Scheduler")
        theirs.scheduler = kind.from_pretrained(families.folder / "checkpoint/scheduler")
        options = {**GUIDED, "image": photo, "strength": 0.6, "num_inference_steps": 5}
        assert_same(drawn(bundle, scheduler=name, **options), by_diffusers(theirs, PROMPT, **options))


def test_image_to_image_with_pndm_and_taesd(families: Any, by_diffusers: Any, photo: Any) -> None:
    import diffusers

    made = families.sd(vae="taesd", scheduler=families.scheduler("PNDMScheduler"))
    bundle = families.bundle(made)
    plain = {**GUIDED, "num_inference_steps": 2}
    assert_same(drawn(bundle, **plain), by_diffusers(made, PROMPT, **plain))
    theirs = families.as_kind(diffusers.StableDiffusionImg2ImgPipeline, made)
    for strength in (0.5, 1.0):
        options = {**GUIDED, "image": photo, "strength": strength, "num_inference_steps": 4}
        assert_same(drawn(bundle, **options), by_diffusers(theirs, PROMPT, **options))


def test_inpainting(families: Any, by_diffusers: Any, photo: Any, mask: Any) -> None:
    theirs = families.sd(kind="StableDiffusionInpaintPipeline", unet={"in_channels": 9})
    bundle = families.bundle(theirs)
    for strength in (1.0, 0.7):
        shared = {**GUIDED, "image": photo, "strength": strength, "num_inference_steps": 4}
        expected = by_diffusers(theirs, PROMPT, mask_image=mask, height=16, width=16, **shared)
        assert_same(drawn(bundle, mask=mask, **shared), expected)


def test_inpainting_with_an_ordinary_unet(families: Any, by_diffusers: Any, photo: Any, mask: Any) -> None:
    """What is kept is the picture at every noise level: the same for samplers of every kind."""
    import diffusers

    made = families.sd()
    bundle = families.bundle(made)
    theirs = families.as_kind(diffusers.StableDiffusionInpaintPipeline, made)
    for name in ("DDIM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "HeunDiscrete"):
        kind = getattr(diffusers, f"{name}Scheduler")
        theirs.scheduler = kind.from_pretrained(families.folder / "checkpoint/scheduler")
        for strength in (1.0, 0.6):
            shared = {**GUIDED, "image": photo, "strength": strength, "num_inference_steps": 5}
            expected = by_diffusers(theirs, PROMPT, mask_image=mask, height=16, width=16, **shared)
            assert_same(drawn(bundle, mask=mask, scheduler=name, **shared), expected)
    plain = drawn(bundle, scheduler="HeunDiscrete", **shared)
    assert psnr(plain, expected) < 30


def test_inpainting_the_masked_part_alone(families: Any, by_diffusers: Any, photo: Any) -> None:
    import diffusers
    from PIL import Image

    made = families.sd(scheduler=families.scheduler("DDIMScheduler"))
    bundle = families.bundle(made)
    theirs = families.as_kind(diffusers.StableDiffusionInpaintPipeline, made)
    large, mask = photo.resize((50, 40)), Image.new("L", (50, 40))
    mask.paste(255, (28, 9, 37, 20))
    shared = {**GUIDED, "image": large, "strength": 0.7, "num_inference_steps": 4, "padding_mask_crop": 3}
    expected = by_diffusers(theirs, PROMPT, mask_image=mask, height=16, width=16, **shared)
    found = drawn(bundle, mask=mask, **shared)
    assert found.size == (50, 40)
    box = np.s_[9:20, 28:37]
    assert_same(np.asarray(found)[box], expected[box])
    assert psnr(np.asarray(large)[box], expected[box]) < 25
    assert psnr(found, expected) >= 40


def test_instruct_pix2pix(families: Any, by_diffusers: Any, photo: Any) -> None:
    theirs = families.sd(
        kind="StableDiffusionInstructPix2PixPipeline",
        unet={"in_channels": 8},
        scheduler=families.scheduler("EulerAncestralDiscreteScheduler"),
    )
    bundle = families.bundle(theirs)
    for scale, image_scale in ((6.0, 1.5), (6.0, 0.5), (1.0, 1.5)):
        options = {"image": photo, "image_guidance_scale": image_scale, "guidance_scale": scale}
        options |= {"num_inference_steps": 3, "negative_prompt": NEGATIVE}
        assert_same(drawn(bundle, **options), by_diffusers(theirs, PROMPT, **options))


def test_base_and_refiner(families: Any, more_families: Any, by_diffusers: Any, photo: Any) -> None:
    base, refiner = families.xl(), more_families.xl(refiner=True)
    refining = more_families.bundle(refiner)
    for scale in (1.0, 5.0):
        alone = {"image": photo, "strength": 0.5, "num_inference_steps": 4, "guidance_scale": scale}
        alone |= {"aesthetic_score": 7.0, "negative_aesthetic_score": 1.0}
        assert_same(drawn(refining, **alone), by_diffusers(refiner, PROMPT, **alone))
    refiner.register_modules(vae=base.vae)  # as diffusers' documentation has it: the base's decoder draws
    shared = {**GUIDED, "num_inference_steps": 5}
    half_done = families.latent(base, PROMPT, denoising_end=0.6, **shared)
    expected = by_diffusers(refiner, PROMPT, image=half_done, denoising_start=0.6, **shared)
    together = {"refiner": Pipeline.open(refining), "refiner_start": 0.6}
    assert_same(drawn(families.bundle(base), **together, **shared), expected)


@pytest.mark.parametrize(("threshold", "flagged"), [(1.5, False), (-1.5, True)])
def test_safety_checker(families: Any, by_diffusers: Any, threshold: float, flagged: bool) -> None:
    theirs = families.sd(safety_checker=threshold)
    shared = {"num_inference_steps": 2, "guidance_scale": 5.0}
    pipeline = Pipeline.open(families.bundle(theirs))
    (picture,) = pipeline.generate(PROMPT, seed=11, rng="torch", **shared)
    expected = by_diffusers(theirs, PROMPT, **shared)
    assert picture.flagged is flagged
    assert bool(expected.max() == 0) is flagged
    assert psnr(picture.image, expected) >= 35
    (unchecked,) = pipeline.generate(PROMPT, seed=11, rng="torch", check_safety=False, **shared)
    assert np.std(np.asarray(unchecked.image)) > 2


@pytest.mark.parametrize("length", [40, 154])
def test_windows_of_other_lengths(families: Any, by_diffusers: Any, length: int) -> None:
    """Fewer tokens than CLIP has positions, or several windows one after the other."""
    theirs = families.sd()
    prompt = "a cat on a mat in a hat and a rat at bat " * 6  # every letter is a token
    bundle = families.bundle(theirs, text_token_sequence_length=length)
    states = families.encoded(theirs, prompt, length), families.encoded(theirs, NEGATIVE, length)
    shared = {"num_inference_steps": 2, "guidance_scale": 5.0}
    expected = by_diffusers(theirs, None, prompt_embeds=states[0], negative_prompt_embeds=states[1], **shared)
    with pytest.warns(UserWarning, match="longer than"):
        found = drawn(bundle, prompt, negative_prompt=NEGATIVE, **shared)
    assert_same(found, expected)


def test_hires_fix(families: Any, by_diffusers: Any) -> None:
    """Text-to-image, then upscaled, then image-to-image at the larger size, each by diffusers."""
    import diffusers
    import torch
    from PIL import Image

    made = families.sd(scheduler=families.scheduler("EulerDiscreteScheduler"))
    bundle = families.bundle(made)
    larger = families.again("larger", latent_height=12, latent_width=12)
    over = families.as_kind(diffusers.StableDiffusionImg2ImgPipeline, made)
    plain = {**GUIDED, "num_inference_steps": 3}
    latent = families.latent(made, PROMPT, **plain, height=16, width=16)
    first = Image.fromarray(by_diffusers(made, PROMPT, **plain, height=16, width=16).astype(np.uint8))
    starts = {
        "latent": torch.nn.functional.interpolate(latent, scale_factor=1.5, mode="bilinear"),
        "lanczos": first.resize((24, 24), Image.Resampling.LANCZOS),
    }
    pipeline = Pipeline.open(bundle, hires_bundle=larger)
    for upscaler, start in starts.items():
        expected = by_diffusers(over, PROMPT, **GUIDED, image=start, strength=0.6, num_inference_steps=4)
        hires = {"hires_scale": 1.5, "hires_strength": 0.6, "hires_steps": 2, "hires_upscaler": upscaler}
        (found,) = pipeline.generate(PROMPT, seed=11, rng="torch", **plain, **hires)
        assert found.image.size == (24, 24)
        assert_same(found.image, expected)


def saved_vectors(folder: Any, **vectors: np.ndarray) -> Any:
    from safetensors.numpy import save_file

    save_file(vectors, folder / "style.safetensors")
    return folder / "style.safetensors"


@pytest.mark.parametrize("family", ["sd", "xl"])
def test_embeddings_and_clip_skip_at_run_time(
    families: Any, by_diffusers: Any, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle as it is converted; what changes are its text encoders, as it is opened."""
    from transformers import CLIPTextModel

    if not hasattr(CLIPTextModel, "text_model"):  # transformers 5 dropped it; diffusers asks for it
        monkeypatch.setattr(CLIPTextModel, "text_model", property(lambda self: self), raising=False)
    theirs = getattr(families, family)()
    bundle = families.bundle(theirs)
    rng = np.random.default_rng(2)
    rows = [rng.normal(size=(2, 32)).astype(np.float16).astype(np.float32) for _ in range(2)]
    named = {"emb_params": rows[0]} if family == "sd" else {"clip_l": rows[0], "clip_g": rows[1]}
    opened_with = {"embeddings": {"qxstyle": saved_vectors(families.folder, **named)}, "clip_skip": 2}
    pipeline = Pipeline.open(bundle, **opened_with)
    options = {**GUIDED, "num_inference_steps": 2}
    prompt = "a cat, qxstyle on a mat"
    (found,) = pipeline.generate(prompt, seed=11, rng="torch", **options)
    plain = drawn(bundle, prompt, **options)
    encoders = [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")]
    for (encoder, tokenizer), vectors in zip(encoders[: len(named)], rows, strict=False):
        theirs.load_textual_inversion(
            {"qxstyle": families.torch.from_numpy(vectors)},
            token="qxstyle",  # noqa: S106 # of a prompt
            text_encoder=getattr(theirs, encoder),
            tokenizer=getattr(theirs, tokenizer),
        )
    # its pipelines leave the layers of negative prompts where they are; the web UI, and we, do not
    encoded = theirs.encode_prompt(
        NEGATIVE, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, clip_skip=1
    )
    negative = {"negative_prompt_embeds": encoded[0]}
    if family == "xl":
        negative["negative_pooled_prompt_embeds"] = encoded[2]
    own = {name: value for name, value in options.items() if name != "negative_prompt"}
    expected = by_diffusers(theirs, prompt, **own, **negative, clip_skip=1)
    assert_same(found.image, expected)
    assert psnr(plain, expected) < 34  # random weights hardly look at SDXL's text
    assert [each.name for each in found.settings.embeddings] == ["qxstyle"]

"""Single files as Civitai has them: what they become, value by value, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from sd_convert import (
    Checkpoint,
    CheckpointNotFoundError,
    ConversionOptions,
    IncompleteCheckpointError,
    NotACheckpointError,
    OptionsError,
    UnsupportedArchitectureError,
    convert,
    open_checkpoint,
    verify,
)
from sd_tokenize import ClipTokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

pytestmark = pytest.mark.long

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
XL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "use_linear_projection": True}
XL |= {"transformer_layers_per_block": [1, 2], "attention_head_dim": [1, 1]}


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": (PLAIN, CROSS),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 64,
            "attention_head_dim": 8,
            **changes,
        }
    )


def tiny_text(
    width: int = 64, *, kind: type = CLIPTextModel, act: str = "quick_gelu", layers: int = 2
) -> Any:
    return kind(
        CLIPTextConfig(
            vocab_size=190, hidden_size=width, intermediate_size=64, num_hidden_layers=layers,
            num_attention_heads=max(1, width // 64), projection_dim=width, hidden_act=act,
            bos_token_id=188, eos_token_id=189,
        )
    )  # fmt: skip


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
    )


@pytest.fixture(scope="module")
def networks() -> dict[str, dict[str, Any]]:
    """By family: the arguments of ``original``."""
    torch.manual_seed(0)
    projected = CLIPTextModelWithProjection
    linear = {"use_linear_projection": True, "attention_head_dim": [1, 1]}
    vae = tiny_vae()
    return {
        "sd1": {"unet": tiny_unet(), "vae": vae, "text": tiny_text()},
        "sd2": {"unet": tiny_unet(**linear), "vae": vae, "open_text": tiny_text(act="gelu")},
        "sdxl": {
            "unet": tiny_unet(
                cross_attention_dim=192, projection_class_embeddings_input_dim=128 + 6 * 8, **XL
            ),
            "vae": vae,
            "text": tiny_text(),
            "open_text": tiny_text(128, kind=projected, act="gelu"),
        },
        "sdxl-refiner": {
            "unet": tiny_unet(
                cross_attention_dim=128, projection_class_embeddings_input_dim=128 + 5 * 8, **XL
            ),
            "vae": vae,
            "open_text": tiny_text(128, kind=projected, act="gelu"),
        },
    }


@pytest.fixture
def opened(
    networks: dict[str, dict[str, Any]], original: Any, save: Any, tokenizer_folder: Path
) -> Callable[..., Checkpoint]:
    def open_kind(kind: str, **request: Any) -> Checkpoint:
        file = save(original(**networks[kind], kind=kind))
        return open_checkpoint(file, tokenizer=tokenizer_folder, **request)

    return open_kind


FOLDERS = {
    "sd1": {"text_encoder": "text", "unet": "unet", "vae_decoder": "vae", "vae_encoder": "vae"},
    "sd2": {"text_encoder": "open_text", "unet": "unet", "vae_decoder": "vae", "vae_encoder": "vae"},
    "sdxl": {
        "text_encoder": "text",
        "text_encoder_2": "open_text",
        "unet": "unet",
        "vae_decoder": "vae",
        "vae_encoder": "vae",
    },
    "sdxl-refiner": {
        "text_encoder_2": "open_text",
        "unet": "unet",
        "vae_decoder": "vae",
        "vae_encoder": "vae",
    },
}


def named(module: Any) -> dict[str, np.ndarray]:
    """transformers 5 dropped the ``text_model.`` in front of some names."""
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    if not isinstance(module, CLIPTextModel) or any(name.startswith("text_model.") for name in state):
        return state
    return {f"text_model.{name}": array for name, array in state.items()}


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_tensor_has_its_value(
    kind: str, opened: Callable[..., Checkpoint], networks: dict[str, dict[str, Any]]
) -> None:
    checkpoint = opened(kind, prediction_type="epsilon")
    assert checkpoint.components == tuple(FOLDERS[kind])
    for component, network in FOLDERS[kind].items():
        weights, expected = checkpoint.weights(component), named(networks[kind][network])
        assert set(weights) == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(weights[name], array)


@pytest.mark.parametrize("kind", FOLDERS)
def test_configs_build_the_same_networks(
    kind: str, opened: Callable[..., Checkpoint], networks: dict[str, dict[str, Any]]
) -> None:
    checkpoint = opened(kind, prediction_type="epsilon")
    unet, vae = networks[kind]["unet"], networks[kind]["vae"]
    found = dict(UNet2DConditionModel.from_config(dict(checkpoint.config("unet"))).config)
    expected = dict(unet.config) | {"sample_size": found["sample_size"]}
    for key in ("transformer_layers_per_block", "attention_head_dim"):
        assert found.pop(key) in (expected.pop(key), [1, 1], 2)
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in found.items() if k[0] != "_"} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in expected.items() if k[0] != "_"
    }
    built = UNet2DConditionModel.from_config(dict(checkpoint.config("unet")))
    built.load_state_dict(unet.state_dict())
    torch.manual_seed(1)
    inputs = {"sample": torch.randn(1, 4, 8, 8), "timestep": torch.tensor([500])}
    inputs["encoder_hidden_states"] = torch.randn(1, 7, unet.config.cross_attention_dim)
    if "xl" in kind:
        width, count = unet.config.projection_class_embeddings_input_dim, 5 if "refiner" in kind else 6
        conditions = {"text_embeds": torch.randn(1, width - 8 * count), "time_ids": torch.randn(1, count)}
        inputs["added_cond_kwargs"] = conditions
    with torch.no_grad():
        torch.testing.assert_close(built(**inputs).sample, unet(**inputs).sample)
    assert checkpoint.config("vae")["scaling_factor"] == (0.13025 if "xl" in kind else 0.18215)
    AutoencoderKL.from_config(dict(checkpoint.config("vae"))).load_state_dict(vae.state_dict())


def test_text_encoders_say_the_same(
    opened: Callable[..., Checkpoint], networks: dict[str, dict[str, Any]]
) -> None:
    checkpoint = opened("sdxl")
    for name, network, kind in (
        ("text_encoder", "text", CLIPTextModel),
        ("text_encoder_2", "open_text", CLIPTextModelWithProjection),
    ):
        model = networks["sdxl"][network]
        built = kind(CLIPTextConfig.from_dict(dict(checkpoint.config(name)))).eval()
        built.load_state_dict(model.state_dict())
        ids = torch.tensor([[188, 5, 6, 189, *[0] * 73]])
        with torch.no_grad():
            ours, theirs = built(ids), model.eval()(ids)
        torch.testing.assert_close(ours.last_hidden_state, theirs.last_hidden_state)
        torch.testing.assert_close(ours[0], theirs[0])


def test_the_tokenizer_gets_the_padding_of_its_family(opened: Callable[..., Checkpoint]) -> None:
    files = opened("sdxl").made_files
    pads = [
        json.loads(files[f"{f}/tokenizer_config.json"])["pad_token"] for f in ("tokenizer", "tokenizer_2")
    ]
    assert pads == ["<|endoftext|>", "!"]
    pads = [json.loads(opened("sd2").made_files["tokenizer/tokenizer_config.json"])["pad_token"]]
    assert pads == ["!"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes(
    dtype: torch.dtype, networks: dict[str, dict[str, Any]], original: Any, save: Any, tokenizer_folder: Path
) -> None:
    state = {name: t.to(dtype) for name, t in original(**networks["sd2"], kind="sd2").items()}
    weights = open_checkpoint(save(state), tokenizer=tokenizer_folder).weights("text_encoder")
    for name, array in named(networks["sd2"]["open_text"]).items():
        np.testing.assert_allclose(weights[name], array, rtol=1e-2, atol=1e-3)


def averaged(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    unet = {n: t for n, t in state.items() if n.startswith("model.diffusion_model.")}
    return {"model_ema." + n.removeprefix("model.").replace(".", ""): 2 * t for n, t in unet.items()}


def test_averaged_weights_only_when_asked_for(
    networks: dict[str, dict[str, Any]], original: Any, save: Any
) -> None:
    state = original(unet=networks["sd1"]["unet"])
    file = save(state | averaged(state))
    plain = open_checkpoint(file).weights("unet")["conv_in.weight"]
    opened = open_checkpoint(file, variant="ema")
    np.testing.assert_array_equal(opened.weights("unet")["conv_in.weight"], 2 * plain)
    assert opened.variants["unet"] == "ema"
    with pytest.raises(OptionsError, match=r"got none for model\.diffusion_model"):
        open_checkpoint(save(state, name="plain"), variant="ema")


def test_a_unet_alone(networks: dict[str, dict[str, Any]], original: Any, save: Any) -> None:
    state = original(unet=networks["sdxl"]["unet"])
    checkpoint = open_checkpoint(save(state))
    assert checkpoint.components == ("unet",)
    assert checkpoint.config("vae")["block_out_channels"] == [128, 256, 512, 512]
    assert len(checkpoint.notes) == 2
    bare = {name.removeprefix("model.diffusion_model."): tensor for name, tensor in state.items()}
    beside = {"lora_unet_x.lora_down.weight": torch.zeros(1), "control_model.y": torch.zeros(1)}
    assert set(open_checkpoint(save(bare | beside, name="bare")).weights("unet")) == set(
        checkpoint.weights("unet")
    )
    with pytest.raises(IncompleteCheckpointError, match="text_encoder in the file, got only unet"):
        open_checkpoint(save(state), components=["text_encoder"])


@pytest.mark.parametrize(
    ("names"), [("q", "k", "v", "proj_out", "norm"), ("query", "key", "value", "proj_attn", "group_norm")]
)
def test_names_of_the_attention_of_the_vae(
    names: tuple[str, ...], networks: dict[str, dict[str, Any]], original: Any, save: Any
) -> None:
    vae = networks["sd1"]["vae"]
    state = original(unet=networks["sd1"]["unet"], vae=vae)
    for old, new in zip(("q", "k", "v", "proj_out", "norm"), names, strict=True):
        state = {name.replace(f".attn_1.{old}.", f".attn_1.{new}."): t for name, t in state.items()}
    weights = open_checkpoint(save(state)).weights("vae_decoder")
    for name, tensor in vae.state_dict().items():
        np.testing.assert_array_equal(weights[name], tensor.numpy())


def test_what_the_training_of_the_vae_left(networks: Any, original: Any, save: Any) -> None:
    vae = networks["sd1"]["vae"]
    state = original(unet=networks["sd1"]["unet"], vae=vae)
    names = ("loss.logvar", "loss.discriminator.main.0.weight", "model_ema.decoderconv_inweight")
    state |= {f"first_stage_model.{name}": torch.ones(3) for name in names}
    weights = open_checkpoint(save(state)).weights("vae_decoder")
    assert set(weights) == set(vae.state_dict())


PREDICTIONS = [
    ("sd1", {}, {}, "epsilon", None),
    ("sd2", {}, {}, "v_prediction", "is assumed"),
    ("sd2", {}, {"global_step": torch.tensor(875000)}, "epsilon", None),
    ("sd2", {}, {"global_step": torch.tensor(140000, dtype=torch.int32)}, "v_prediction", None),
    ("sd2", {"modelspec.prediction_type": "epsilon"}, {}, "epsilon", None),
    ("sd1", {"modelspec.prediction_type": "v"}, {}, "v_prediction", None),
    ("sd2", {"modelspec.architecture": "stable-diffusion-v2-768-v"}, {}, "v_prediction", None),
    ("sdxl", {}, {"v_pred": torch.tensor([])}, "v_prediction", None),
]


@pytest.mark.parametrize(("kind", "metadata", "extra", "expected", "note"), PREDICTIONS)
def test_what_the_unet_predicts(
    kind: str, metadata: dict[str, str], extra: Any, expected: str, note: str | None,
    networks: dict[str, dict[str, Any]], original: Any, save: Any,
) -> None:  # fmt: skip
    file = save(
        original(unet=networks[kind]["unet"], vae=networks[kind]["vae"]), metadata=metadata or None, **extra
    )
    checkpoint = open_checkpoint(file, components=["unet"])
    scheduler = json.loads(checkpoint.made_files["scheduler/scheduler_config.json"])
    assert scheduler == checkpoint.config("scheduler")
    assert scheduler["prediction_type"] == expected
    assert [note in said for said in checkpoint.notes] == ([True] if note else [])
    size = {"sd1": 64, "sd2": 96 if expected == "v_prediction" else 64, "sdxl": 128}[kind]
    assert checkpoint.config("unet")["sample_size"] == size
    other = open_checkpoint(file, components=["unet"], prediction_type="sample")
    assert other.config("scheduler")["prediction_type"] == "sample"
    assert json.loads(other.made_files["scheduler/scheduler_config.json"])["prediction_type"] == "sample"
    assert not other.notes


def test_zero_terminal_snr_and_resolution(networks: dict[str, Any], original: Any, save: Any) -> None:
    state = original(unet=networks["sdxl"]["unet"], vae=networks["sdxl"]["vae"])
    file = save(
        state,
        metadata={"modelspec.resolution": "832x1216"},
        v_pred=torch.tensor([]),
        ztsnr=torch.tensor([]),
    )
    checkpoint = open_checkpoint(file)
    assert checkpoint.config("scheduler")["rescale_betas_zero_snr"] is True
    assert checkpoint.config("scheduler")["timestep_spacing"] == "trailing"
    assert checkpoint.config("unet")["sample_size"] == [1216 // 2, 832 // 2]  # this VAE halves once


@pytest.mark.parametrize(("channels", "name"), [(9, "InpaintPipeline"), (8, "InstructPix2PixPipeline")])
def test_more_input_channels(channels: int, name: str, original: Any, save: Any) -> None:
    checkpoint = open_checkpoint(save(original(unet=tiny_unet(in_channels=channels))))
    assert checkpoint.config("unet")["in_channels"] == channels
    assert checkpoint.config("model_index")["_class_name"] == f"StableDiffusion{name}"


def tensors(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(1) for name in names}


UNET_PREFIX = "model.diffusion_model."
REFUSED = {
    "LoRA": (
        tensors("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"),
        NotACheckpointError,
        "--lora",
    ),
    "LoHa": (tensors("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a"), NotACheckpointError, "--lora"),
    "PEFT": (tensors("unet.mid_block.attentions.0.proj_in.lora_A.weight"), NotACheckpointError, "--lora"),
    "embedding": (tensors("emb_params"), NotACheckpointError, "--embedding"),
    "ControlNet": (tensors("control_model.input_blocks.0.0.weight"), NotACheckpointError, "a ControlNet"),
    "VAE": (tensors("first_stage_model.encoder.conv_in.weight"), NotACheckpointError, "custom-vae-version"),
    "bare VAE": (tensors("decoder.conv_in.weight"), NotACheckpointError, "custom-vae-version"),
    "SD3": (tensors(f"{UNET_PREFIX}joint_blocks.0.x"), UnsupportedArchitectureError, "Stable Diffusion 3"),
    "Flux": (tensors("double_blocks.0.img_attn.qkv.weight"), UnsupportedArchitectureError, "Flux"),
    "Cascade": (tensors("clip_txt_pooled_mapper.weight"), UnsupportedArchitectureError, "Cascade"),
    "diffusers": (tensors("down_blocks.0.resnets.0.conv1.weight"), NotACheckpointError, "diffusers' layout"),
    "nothing known": (tensors("a.weight"), NotACheckpointError, "got a.weight"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_checkpoint(kind: str, save: Any) -> None:
    state, error, reason = REFUSED[kind]
    with pytest.raises(error, match=reason):
        open_checkpoint(save(state))


def test_a_unet_of_another_kind(networks: dict[str, Any], original: Any, save: Any) -> None:
    state = original(unet=networks["sd1"]["unet"])
    with pytest.raises(UnsupportedArchitectureError, match=r"does not have: time_mixer\.weight"):
        open_checkpoint(save(state | {f"{UNET_PREFIX}time_mixer.weight": torch.zeros(1)}))
    del state[f"{UNET_PREFIX}input_blocks.1.0.in_layers.0.weight"]
    for name in [n for n in state if n.startswith(f"{UNET_PREFIX}input_blocks.1.")]:
        del state[name]
    with pytest.raises(UnsupportedArchitectureError, match="none numbered 1"):
        open_checkpoint(save(state))


def test_family_and_prediction_that_cannot_be(networks: dict[str, Any], original: Any, save: Any) -> None:
    file = save(original(unet=networks["sd1"]["unet"]))
    with pytest.raises(OptionsError, match="family: expected sd1, as the tensors"):
        open_checkpoint(file, family="sdxl")
    with pytest.raises(OptionsError, match="family: expected one of sd1"):
        open_checkpoint(file, family="sd4")
    with pytest.raises(OptionsError, match="prediction_type: expected one of"):
        open_checkpoint(file, prediction_type="v")
    assert open_checkpoint(file, family="sd2").config("unet")["attention_head_dim"] == [1, 1]


def test_no_tokenizer(networks: dict[str, Any], original: Any, save: Any, tmp_path: Path) -> None:
    file = save(original(text=networks["sd1"]["text"], unet=networks["sd1"]["unet"]))
    with pytest.raises(CheckpointNotFoundError, match=r"openai/clip-vit-large-patch14.*--tokenizer"):
        open_checkpoint(file, local_files_only=True, cache_dir=tmp_path / "empty")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IncompleteCheckpointError, match=r"expected vocab\.json"):
        open_checkpoint(file, tokenizer=tmp_path / "folder")
    with pytest.raises(CheckpointNotFoundError, match="a folder or a hub id"):
        open_checkpoint(file, tokenizer=tmp_path / "nowhere")
    assert open_checkpoint(file, components=["unet"]).tokenizers == {}


def test_a_bundle_of_a_single_file_is_that_of_the_networks(
    opened: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    checkpoint = opened("sdxl", components=["text_encoder_2", "unet"])
    options = ConversionOptions(latent_height=8, latent_width=8)
    bundle = convert(checkpoint, tmp_path / "bundle", options).bundle
    assert verify(bundle, checkpoint, engine="reference").passed
    assert json.loads((bundle / "scheduler/scheduler_config.json").read_text())["beta_end"] == 0.012
    assert ClipTokenizer.from_folder(bundle / "tokenizer_2").encode("a").ids[-1] == 0

"""Tiny random pipelines of every family, made by diffusers and transformers, and the bundles made of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

WIDTH, PROJECTED = 32, 24
LETTERS = [chr(number) for number in range(33, 127)]
TOKENS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]


def make_unet(**config: Any) -> Any:
    from diffusers import UNet2DConditionModel

    defaults: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
    }
    return UNet2DConditionModel(**defaults | config)


def make_xl_unet(*, time_ids: int = 6, **config: Any) -> Any:
    defaults: dict[str, Any] = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": PROJECTED + 8 * time_ids,
        "cross_attention_dim": 2 * WIDTH,
    }
    return make_unet(**defaults | config)


def make_controlnet(unet: Any, *, seed: int, **config: Any) -> Any:
    """For ``unet``, with numbers in the convolutions that training would start with zeros."""
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    made = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(8, 16), load_weights_from_unet=False
    )
    made = ControlNetModel.from_config({**made.config, **config})
    zeros = (*made.controlnet_down_blocks, made.controlnet_mid_block, made.controlnet_cond_embedding.conv_out)
    for convolution in zeros:
        torch.nn.init.normal_(convolution.weight, std=0.4)
        torch.nn.init.normal_(convolution.bias, std=0.1)
    return made.half().float().eval()


def make_union(unet: Any, *, seed: int) -> Any:
    """A union ControlNet of four kinds of hints for SDXL's ``unet``, with numbers everywhere."""
    from diffusers import ControlNetUnionModel

    torch.manual_seed(seed)
    names = (
        "block_out_channels down_block_types layers_per_block cross_attention_dim attention_head_dim "
        "norm_num_groups transformer_layers_per_block use_linear_projection addition_embed_type "
        "addition_time_embed_dim projection_class_embeddings_input_dim"
    )
    width = unet.config.block_out_channels[0]
    made = ControlNetUnionModel(
        **{name: unet.config[name] for name in names.split()},
        conditioning_embedding_out_channels=(8, 16),
        num_control_type=4,
        num_trans_channel=width,
        num_trans_head=2,
        num_proj_channel=width,
    )
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return made.half().float().eval()


def make_adapter(*, xl: bool = False, seed: int, channels: int = 3) -> Any:
    from diffusers import T2IAdapter

    torch.manual_seed(seed)
    own = {"channels": [32, 64, 64, 64], "downscale_factor": 4, "adapter_type": "full_adapter_xl"}
    sd = {"channels": [32, 64], "downscale_factor": 2, "adapter_type": "full_adapter"}
    made = T2IAdapter(in_channels=channels, num_res_blocks=1, **(own if xl else sd))
    made.adapter.conv_in.weight.data *= 100  # or nobody would see it
    return made.half().float().eval()


def make_image_encoder(*, seed: int = 3, **config: Any) -> Any:
    """Of 32x32 pixels in patches of 8: 17 hidden states."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    own = {"hidden_size": 40, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes = {"image_size": 32, "patch_size": 8, "projection_dim": PROJECTED}
    made = CLIPVisionModelWithProjection(CLIPVisionConfig(**own | sizes | {"hidden_act": "gelu"} | config))
    return made.half().float().eval()


def ip_adapter_tensors(unet: Any, kind: str, *, seed: int, image_width: int) -> dict[str, Any]:
    """What a file of an IP-Adapter of that kind (plain, plus, full) for ``unet`` holds."""
    generator = torch.Generator().manual_seed(seed)
    width, hidden, tokens = unet.config.cross_attention_dim, 24, 5

    def drawn(*shape: int, std: float = 0.3) -> Any:
        return (torch.randn(*shape, generator=generator) * std).half().float()

    def norm(name: str, size: int) -> dict[str, Any]:
        return {f"{name}.weight": 1 + drawn(size, std=0.1), f"{name}.bias": drawn(size, std=0.1)}

    def linear(name: str, rows: int, columns: int) -> dict[str, Any]:
        return {f"{name}.weight": drawn(rows, columns), f"{name}.bias": drawn(rows)}

    if kind == "plain":
        projection = linear("proj", 4 * width, image_width) | norm("norm", width)
    elif kind == "full":
        projection = linear("proj.0", image_width, image_width) | linear("proj.2", width, image_width)
        projection |= norm("proj.3", width)
    else:
        projection = {"latents": drawn(1, tokens, hidden), **linear("proj_in", hidden, image_width)}
        projection |= linear("proj_out", width, hidden) | norm("norm_out", width)
        for layer in (f"layers.{number}" for number in range(4)):
            projection |= norm(f"{layer}.0.norm1", hidden) | norm(f"{layer}.0.norm2", hidden)
            projection |= norm(f"{layer}.1.0", hidden)
            projection |= {
                f"{layer}.0.to_q.weight": drawn(128, hidden),
                f"{layer}.0.to_kv.weight": drawn(256, hidden),
                f"{layer}.0.to_out.weight": drawn(hidden, 128),
                f"{layer}.1.1.weight": drawn(4 * hidden, hidden),
                f"{layer}.1.3.weight": drawn(hidden, 4 * hidden),
            }
    attentions = [name.removesuffix(".processor") for name in unet.attn_processors if "attn2" in name]
    keys = {
        f"{2 * number + 1}.to_{letter}_ip.weight": drawn(unet.get_submodule(name).to_q.out_features, width)
        for number, name in enumerate(attentions)
        for letter in "kv"
    }
    return {f"image_proj.{name}": each for name, each in projection.items()} | {
        f"ip_adapter.{name}": each for name, each in keys.items()
    }


def make_vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=16,
    )


def make_taesd() -> Any:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(16, 16),
        decoder_block_out_channels=(16, 16),
        num_encoder_blocks=(1, 2),
        num_decoder_blocks=(2, 1),
    )


def make_text_encoder(*, projected: bool = False, activation: str = "quick_gelu") -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(TOKENS),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_act=activation,
        bos_token_id=len(TOKENS) - 2,
        eos_token_id=len(TOKENS) - 1,
        pad_token_id=len(TOKENS) - 1,
        projection_dim=PROJECTED,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def make_safety_checker(threshold: float) -> Any:
    """Concepts of random directions: none is met from a ``threshold`` of 1 up, all of them below -1."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 4}
    vision = {**sizes, "num_hidden_layers": 2, "image_size": 64, "patch_size": 16}
    text = {**sizes, "num_hidden_layers": 1, "vocab_size": len(TOKENS), "eos_token_id": len(TOKENS) - 1}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTED)
    )
    for name in ("concept_embeds", "special_care_embeds"):
        getattr(checker, name).data = torch.randn(getattr(checker, name).shape)
    for name in ("concept_embeds_weights", "special_care_embeds_weights"):
        getattr(checker, name).data.fill_(threshold)
    return checker


def make_tokenizer(folder: Path, *, pad: str = "<|endoftext|>") -> Any:
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(TOKENS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"bos_token": TOKENS[-2], "eos_token": TOKENS[-1], "unk_token": TOKENS[-1], "pad_token": pad}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 77}))
    return CLIPTokenizer.from_pretrained(folder)


def make_feature_extractor() -> Any:
    from transformers import CLIPImageProcessor

    side = {"height": 64, "width": 64}
    return CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=side)


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def make_scheduler(name: str, **config: Any) -> Any:
    import diffusers

    own = {"PNDMScheduler": {"skip_prk_steps": True}, "DDIMScheduler": {"clip_sample": False}}
    return getattr(diffusers, name)(**BETAS | own.get(name, {}) | config)


class Families:
    """Builds diffusers' pipelines in a folder, saves them there, and converts them."""

    scheduler = staticmethod(make_scheduler)

    torch = torch
    controlnet = staticmethod(make_controlnet)
    adapter = staticmethod(make_adapter)
    union = staticmethod(make_union)
    image_encoder = staticmethod(make_image_encoder)
    ip_adapter_tensors = staticmethod(ip_adapter_tensors)

    def __init__(self, folder: Path, cache: Any, remember: Callable[[Path], None]) -> None:
        self.folder, self.cache, self.remember = folder, cache, remember

    def sd(
        self,
        *,
        kind: str = "StableDiffusionPipeline",
        pad: str = "<|endoftext|>",
        scheduler: Any = None,
        unet: dict[str, Any] | None = None,
        text_encoder: dict[str, Any] | None = None,
        vae: str = "kl",
        safety_checker: float | None = None,
    ) -> Any:
        """A pipeline of SD 1.x's parts, some of them configured otherwise; ``kind`` is its class."""
        import diffusers

        torch.manual_seed(0)
        checker = None if safety_checker is None else make_safety_checker(safety_checker)
        return self._finished(
            getattr(diffusers, kind)(
                unet=make_unet(**unet or {}),
                vae=make_vae() if vae == "kl" else make_taesd(),
                text_encoder=make_text_encoder(**text_encoder or {}),
                tokenizer=make_tokenizer(self.folder / "words", pad=pad),
                scheduler=scheduler or make_scheduler("DDIMScheduler"),
                safety_checker=checker,
                feature_extractor=None if checker is None else make_feature_extractor(),
                requires_safety_checker=False,
            )
        )

    def xl(self, *, refiner: bool = False, scheduler: Any = None, unet: dict[str, Any] | None = None) -> Any:
        """SDXL's base or refiner; ``unet`` is what is configured otherwise in the base's."""
        import diffusers

        torch.manual_seed(1 if refiner else 0)
        made = {
            "unet": make_xl_unet(time_ids=5, cross_attention_dim=WIDTH)
            if refiner
            else make_xl_unet(**unet or {}),
            "vae": make_vae(),
            "text_encoder": None if refiner else make_text_encoder(),
            "text_encoder_2": make_text_encoder(projected=True, activation="gelu"),
            "tokenizer": None if refiner else make_tokenizer(self.folder / "words"),
            "tokenizer_2": make_tokenizer(self.folder / "words_2", pad="!"),
            "scheduler": scheduler or make_scheduler("EulerDiscreteScheduler"),
            "add_watermarker": False,
        }
        if not refiner:
            return self._finished(diffusers.StableDiffusionXLPipeline(**made))
        kind = diffusers.StableDiffusionXLImg2ImgPipeline
        return self._finished(
            kind(**made, requires_aesthetics_score=True, force_zeros_for_empty_prompt=False)
        )

    def as_kind(self, kind: Any, pipeline: Any) -> Any:
        """The same networks in another of diffusers' pipelines."""
        return self._finished(kind(**pipeline.components, requires_safety_checker=False))

    def latent(self, pipeline: Any, prompt: str, **options: Any) -> Any:
        """What ``pipeline`` has after its last step."""
        generator = torch.Generator("cpu").manual_seed(11)
        return pipeline(prompt, generator=generator, output_type="latent", **options).images

    def encoded(self, pipeline: Any, prompt: str, length: int) -> Any:
        """Hidden states of ``length`` tokens: up to 77 in one window, more in windows of 77."""
        window = min(length, 77)
        ids = pipeline.tokenizer(prompt).input_ids[1:-1]
        start, end = pipeline.tokenizer.bos_token_id, pipeline.tokenizer.eos_token_id
        states = []
        for first in range(0, length // window * (window - 2), window - 2):
            framed = [start, *ids[first : first + window - 2], end]
            padded = framed + [pipeline.tokenizer.pad_token_id] * (window - len(framed))
            with torch.no_grad():
                states.append(pipeline.text_encoder(torch.tensor([padded]))[0])
        return torch.cat(states, dim=1)

    def _finished(self, pipeline: Any) -> Any:
        """Weights that float16 holds, so that rounding them is no difference."""
        for network in pipeline.components.values():
            if isinstance(network, torch.nn.Module):
                network.half().float().eval()
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def bundle(self, pipeline: Any, **options: Any) -> Path:
        """``pipeline`` saved as a checkpoint, and converted."""
        return self.steered_bundle(pipeline, {}, {}, **options)

    def steered_bundle(
        self,
        pipeline: Any,
        controlnets: dict[str, Any],
        adapters: dict[str, Any],
        *,
        ip_adapters: Sequence[Path] = (),
        image_encoder: Path | None = None,
        **options: Any,
    ) -> Path:
        """The same with ControlNets and adapters of these names, and IP-Adapters of these files."""
        from sd_controlnet.conversion import with_controlnets, with_ip_adapters, with_t2i_adapters
        from sd_convert import KINDS, ConversionOptions, convert, open_checkpoint

        for name, network in (*controlnets.items(), *adapters.items()):
            network.save_pretrained(self.folder / name)
        pipeline.save_pretrained(self.folder / "checkpoint")
        for words in ("tokenizer", "tokenizer_2"):
            if getattr(pipeline, words, None) is not None:
                self._as_published(words)
        known = ConversionOptions(compute_precision=("fp16",), **options)  # not to look for overflows
        opened = open_checkpoint(self.folder / "checkpoint")
        opened, kinds = with_controlnets(opened, [self.folder / name for name in controlnets])
        opened, more = with_t2i_adapters(opened, [self.folder / name for name in adapters])
        opened, images = with_ip_adapters(opened, ip_adapters, image_encoder)
        convert(
            opened, self.folder / "bundle", known, kinds=(*KINDS, *kinds, *more, *images), cache=self.cache
        )
        self.remember(self.folder / "bundle")
        return self.folder / "bundle"

    def again(self, name: str, **options: Any) -> Path:
        """The checkpoint that was saved before, converted otherwise."""
        from sd_convert import ConversionOptions, convert, open_checkpoint

        known = ConversionOptions(compute_precision=("fp16",), **options)
        convert(open_checkpoint(self.folder / "checkpoint"), self.folder / name, known, cache=self.cache)
        self.remember(self.folder / name)
        return self.folder / name

    def _as_published(self, words: str) -> None:
        """The files that checkpoints have, in place of what today's transformers writes."""
        source = self.folder / ("words_2" if words == "tokenizer_2" else "words")
        target = self.folder / "checkpoint" / words
        for file in target.iterdir():
            file.unlink()
        for file in source.iterdir():
            (target / file.name).write_bytes(file.read_bytes())


@pytest.fixture
def families(tmp_path: Path, lowered_once: Any, remembered: Any) -> Families:
    return Families(tmp_path, lowered_once, remembered)


@pytest.fixture(scope="module")
def shared_families(tmp_path_factory: pytest.TempPathFactory, lowered_once: Any, remembered: Any) -> Families:
    """For tests that draw with one bundle."""
    return Families(tmp_path_factory.mktemp("families"), lowered_once, remembered)


@pytest.fixture
def more_families(tmp_path: Path, lowered_once: Any, remembered: Any) -> Families:
    return Families(tmp_path / "more", lowered_once, remembered)


@pytest.fixture
def photo() -> Image.Image:
    """Colours that change across the picture."""
    rows, columns = np.mgrid[0:16, 0:16] / 15
    channels = [rows, columns, (rows + columns) % 1]
    return Image.fromarray(np.round(np.stack(channels, axis=-1) * 255).astype(np.uint8))


@pytest.fixture
def mask() -> Image.Image:
    """White, to be painted anew, in the lower right quarter."""
    white = np.zeros((16, 16), np.uint8)
    white[8:, 8:] = 255
    return Image.fromarray(white)


@pytest.fixture
def by_diffusers() -> Callable[..., np.ndarray]:
    """The picture of a diffusers pipeline in 0..255, with the seed of the generator that it draws from."""

    def draw(pipeline: Any, prompt: str, *, seed: int = 11, **options: Any) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            drawn = pipeline(prompt, generator=torch.Generator("cpu").manual_seed(seed), **options)
        return np.asarray(drawn.images[0], dtype=np.float64)

    return draw

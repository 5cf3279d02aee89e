"""The manifest of a bundle names what its weights were read from, and the sha256 of what was merged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from sd_bundle import AddedEmbedding, CustomVae, FileHashes, MergedLora, SourceFile, open_bundle
from sd_convert import Checkpoint, ConversionOptions, Embedding, Lora, convert, open_checkpoint
from sd_convert.checkpoint.origins import weight_sources
from sd_convert.conversion.bundle import model_facts
from sd_convert.facts import chosen_sizes, read_facts

UNET, TEXT = "unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16.safetensors"
VAE = "vae/diffusion_pytorch_model.fp16.safetensors"


def source(file: Path, name: str | None = None, *, hashed: bool = True) -> SourceFile:
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest() if hashed else None
    return SourceFile(name or file.name, len(content), sha256)


@pytest.fixture
def lora(tiny_models: Any, tmp_path: Path) -> Path:
    """A LoRA of one module of the UNet."""
    name = next(n for n, _ in tiny_models.unet.named_modules() if n.endswith("attn1.to_q"))
    width = tiny_models.unet.get_submodule(name).in_features
    start = f"lora_unet_{name.replace('.', '_')}"
    save_file(
        {f"{start}.lora_down.weight": torch.ones(1, width), f"{start}.lora_up.weight": torch.ones(width, 1)},
        tmp_path / "detail.safetensors",
    )
    return tmp_path / "detail.safetensors"


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    save_file({"emb_params": torch.ones(2, 32)}, tmp_path / "style.safetensors")
    return tmp_path / "style.safetensors"


@pytest.fixture
def vae(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    AutoencoderKL(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=1,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).save_pretrained(tmp_path / "other-vae")  # fmt: skip
    return tmp_path / "other-vae"


@pytest.fixture
def everything(tiny: Path, lora: Path, embedding: Path, vae: Path) -> Checkpoint:
    return open_checkpoint(
        tiny,
        loras=[Lora(lora, 0.5), Lora(lora, -0.25, 0.75)],
        embeddings=[Embedding("my-style", embedding)],
        vae=vae,
    )


def test_all_of_it_is_in_the_bundle(
    everything: Checkpoint, tiny: Path, lora: Path, embedding: Path, vae: Path, tmp_path: Path
) -> None:
    options = ConversionOptions(components=("text_encoder", "vae_decoder"))
    convert(everything, tmp_path / "bundle", options)
    weights = open_bundle(tmp_path / "bundle").manifest.provenance.weights
    assert weights is not None
    assert weights.files == {"text_encoder": (source(tiny / TEXT, TEXT, hashed=False),)}
    assert weights.loras == (MergedLora(source(lora), 0.5, 0.5), MergedLora(source(lora), -0.25, 0.75))
    assert weights.embeddings == (AddedEmbedding("my-style", source(embedding)),)
    (file,) = vae.glob("*.safetensors")
    assert weights.vae == CustomVae("other-vae", (source(file),))
    assert str(tmp_path) not in (tmp_path / "bundle/manifest.json").read_text()


def test_of_a_plain_checkpoint_its_own_files(tiny: Path) -> None:
    components = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
    weights = weight_sources(open_checkpoint(tiny), components, FileHashes())
    files = {"text_encoder": TEXT, "unet": UNET, "vae_decoder": VAE, "vae_encoder": VAE}
    assert weights.files == {name: (source(tiny / path, path, hashed=False),) for name, path in files.items()}
    assert (weights.loras, weights.embeddings, weights.vae) == ((), (), None)


def test_the_checkpoints_own_files_are_not_read(tiny: Path) -> None:
    def refuse(file: Path) -> str:
        raise AssertionError(file)

    weight_sources(open_checkpoint(tiny), ("unet", "vae_decoder"), refuse)


@pytest.mark.parametrize(
    ("components", "loras", "embeddings", "has_vae"),
    [(("unet",), 2, 0, False), (("vae_encoder",), 0, 0, True), (("text_encoder",), 2, 1, False)],
)
def test_only_what_is_in_the_components(
    everything: Checkpoint, components: tuple[str, ...], loras: int, embeddings: int, has_vae: bool
) -> None:
    weights = weight_sources(everything, components, FileHashes())
    assert (len(weights.loras), len(weights.embeddings)) == (loras, embeddings)
    assert (weights.vae is not None) == has_vae
    assert list(weights.files) == [name for name in components if not has_vae]


def test_shards_are_all_named(tiny_models: Any, tmp_path: Path) -> None:
    tiny_models.save(tmp_path / "sharded", shard="1MB")
    weights = weight_sources(open_checkpoint(tmp_path / "sharded"), ("unet",), FileHashes())
    names = [file.name for file in weights.files["unet"]]
    folder = tmp_path / "sharded/unet"
    assert sorted(names) == sorted(f"unet/{path.name}" for path in folder.glob("*.safetensors"))
    assert len(names) > 1


def hub_file(cache: Path, repository: str, name: str, content: bytes) -> None:
    """As the hub's own client keeps it."""
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs/main").write_text("0123456789abcdef")
    file = root / "snapshots/0123456789abcdef" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(content)


@pytest.mark.parametrize("asked", ["org/lora", "org/lora/pytorch_lora_weights.safetensors"])
def test_a_file_of_the_hub_has_its_place_there(asked: str, tiny: Path, lora: Path, tmp_path: Path) -> None:
    hub_file(tmp_path / "cache", "org/lora", "pytorch_lora_weights.safetensors", lora.read_bytes())
    checkpoint = open_checkpoint(
        tiny, loras=[Lora(Path(asked))], cache_dir=tmp_path / "cache", local_files_only=True
    )
    (merged,) = weight_sources(checkpoint, ("unet",), FileHashes()).loras
    assert merged.file == source(lora, "org/lora/pytorch_lora_weights.safetensors")


def test_a_lora_in_a_folder_and_a_name_that_is_no_utf8(tiny: Path, lora: Path, tmp_path: Path) -> None:
    strange = tmp_path / "d\udce9tail.safetensors"
    strange.write_bytes(lora.read_bytes())
    (tmp_path / "folder").mkdir()
    lora.rename(tmp_path / "folder/pytorch_lora_weights.safetensors")
    checkpoint = open_checkpoint(tiny, loras=[Lora(tmp_path / "folder"), Lora(strange)])
    first, second = weight_sources(checkpoint, ("unet",), FileHashes()).loras
    assert (first.file.name, second.file.name) == ("pytorch_lora_weights.safetensors", "d?tail.safetensors")


@pytest.mark.parametrize(
    ("folder", "values", "distillation"),
    [
        ("unet", {}, None),
        ("unet", {"time_cond_proj_dim": 32}, "lcm"),
        ("scheduler", {"_class_name": "LCMScheduler"}, "lcm"),
    ],
)
def test_the_kind_of_denoiser(
    edit_config: Callable[..., Path], folder: str, values: dict[str, Any], distillation: str | None
) -> None:
    checkpoint = open_checkpoint(edit_config(folder, **values), components=["vae_decoder"])
    read = read_facts(checkpoint)
    facts = model_facts(read, chosen_sizes(read, ConversionOptions()), "tiny", ("vae_decoder",))
    assert (facts.denoiser.architecture, facts.denoiser.distillation) == ("unet", distillation)


def test_two_conversions_say_the_same(everything: Checkpoint, tmp_path: Path) -> None:
    """All but the time."""
    documents = []
    for name in ("a", "b"):
        convert(everything, tmp_path / name, ConversionOptions(components=("text_encoder",)))
        document = json.loads((tmp_path / name / "manifest.json").read_text())
        document["provenance"].pop("created")
        documents.append(json.dumps(document))
    assert documents[0] == documents[1]

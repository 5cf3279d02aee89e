"""Make the programs without weights that sd-convert carries, from the public configs, or check them.

    uv run python tools/make_programs.py [--check] [NAME ...]

A program follows from a network's config, the names and shapes of its tensors, sizes and options; no weights
are needed, nor read. ``--check`` makes them anew and compares them with those that are there, byte for byte
as they are before compression; without it they are written. All of them take some minutes.
Sources of the configs: the model repositories on the hub (stable-diffusion-v1-5, stable-diffusion-2 and 2-1,
2-inpainting, stable-diffusion-xl-base, -refiner and -inpainting, taesd), as in ``bench_checkpoint``.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench_checkpoint import MODELS
from sd_convert import KINDS, Checkpoint, ConversionOptions
from sd_convert.checkpoint.weights import LazyWeights
from sd_convert.components import Part, kind_named
from sd_convert.conversion.precision import Precision, reduced
from sd_convert.conversion.programs import Programs
from sd_convert.conversion.stores import SHIPPED, compressed, file_name
from sd_convert.facts import chosen_sizes, read_facts, section

#: The largest that the compressed programs may be together.
MOST_BYTES: Final = 10_000_000
ATTENTION: Final = ("SPLIT_EINSUM", "SPLIT_EINSUM_V2", "ORIGINAL")
#: ``eos_token_id`` as configs of 2022 have it, and as the vocabulary does; the network pools differently.
_ENDS: Final = (2, 49407)

_SD1: Final = {name: config for name, (_, config) in MODELS["sd15"][1].items()}
_SDXL: Final = {name: config for name, (_, config) in MODELS["sdxl"][1].items()}
_SD2_UNET: Final = {
    **_SD1["unet"], "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}  # fmt: skip
_SD2_TEXT: Final = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "hidden_act": "gelu",
}  # fmt: skip
_REFINER_UNET: Final = {
    **_SDXL["unet"], "block_out_channels": [384, 768, 1536, 1536], "cross_attention_dim": 1280,
    "attention_head_dim": [6, 12, 24, 24], "transformer_layers_per_block": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "projection_class_embeddings_input_dim": 2560,
}  # fmt: skip
_SD2: Final = {**_SD1, "unet": _SD2_UNET, "text_encoder": _SD2_TEXT}
_REFINER: Final = {name: _SDXL[name] for name in ("text_encoder_2", "vae")} | {"unet": _REFINER_UNET}
_SAFETY: Final = {
    "model_type": "clip", "projection_dim": 768,
    "vision_config": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "patch_size": 14, "image_size": 224,
    },
}  # fmt: skip
_TAESD: Final = {"_class_name": "AutoencoderTiny", "scaling_factor": 1.0}


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint by its configs, which differ from ``like`` in these, and the components to make of it.

    ``side``: of the latents, where the UNet's config says another. ``ends``: tokens that end a text.
    """

    like: Mapping[str, Mapping[str, Any]]
    configs: Mapping[str, Mapping[str, Any]]
    components: tuple[str, ...]
    side: int | None = None
    ends: tuple[int, ...] = _ENDS


_HALVES: Final = ("vae_decoder", "vae_encoder")
#: The demo checkpoint, which ``sdc demo`` converts: what a first try takes.
_DEMO_FOLDER: Final = Path(__file__).resolve().parents[1] / "apps/sdc/src/sdc/demo/checkpoint"
_DEMO: Final = {
    name: json.loads((_DEMO_FOLDER / name / "config.json").read_text())
    for name in ("text_encoder", "unet", "vae")
}
SHIPPED_MODELS: Final[Mapping[str, Model]] = {
    "demo": Model(
        _DEMO, {}, ("text_encoder", "unet", *_HALVES), ends=(_DEMO["text_encoder"]["eos_token_id"],)
    ),
    "taesd": Model(_SD1, {"vae": _TAESD}, _HALVES),
    "taesd-768": Model(_SD1, {"vae": _TAESD}, _HALVES, 96),
    "taesdxl": Model(_SDXL, {"vae": _TAESD}, _HALVES),
    "safety": Model(_SD1, {"safety_checker": _SAFETY}, ("safety_checker",)),
    "vae-512": Model(_SD1, {}, _HALVES),
    "vae-768": Model(_SD1, {}, _HALVES, 96),
    "vae-1024": Model(_SDXL, {}, _HALVES),
    "sd1-text": Model(_SD1, {}, ("text_encoder",)),
    "sd2-text": Model(_SD2, {}, ("text_encoder",)),
    "sdxl-text": Model(_SDXL, {}, ("text_encoder", "text_encoder_2")),
    "sd1": Model(_SD1, {}, ("unet",)),
    "sd1-inpaint": Model(_SD1, {"unet": {**_SD1["unet"], "in_channels": 9}}, ("unet",)),
    "sd2-512": Model(_SD2, {}, ("unet",)),
    "sd2-768": Model(_SD2, {"unet": {**_SD2_UNET, "sample_size": 96}}, ("unet",)),
    "sd2-inpaint": Model(_SD2, {"unet": {**_SD2_UNET, "in_channels": 9}}, ("unet",)),
    "sdxl": Model(_SDXL, {}, ("unet",)),
    "sdxl-inpaint": Model(_SDXL, {"unet": {**_SDXL["unet"], "in_channels": 9}}, ("unet",)),
    "sdxl-refiner": Model(_REFINER, {}, ("unet",)),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A tensor that is not there: see :class:`sd_convert.checkpoint.tensors.LazyTensor`."""

    shape: tuple[int, ...]
    dtype: str = "F16"
    bytes: int = 0

    def read(self) -> Any:
        """Refuse: a program does not follow from it."""
        raise LookupError("expected programs that follow from no weight, got one that does")

    def identity(self, _: Any) -> str:
        """Its shape."""
        return str(self.shape)


def checkpoint_of(model: Model, end: int) -> Checkpoint:
    """The checkpoint, without weights."""
    configs: dict[str, dict[str, Any]] = {
        name: dict(one) for name, one in {**model.like, **model.configs}.items()
    }
    for name, config in configs.items():
        if name.startswith("text_encoder"):
            config |= {"model_type": "clip_text_model", "eos_token_id": end}
    configs["unet"]["_class_name"] = "UNet2DConditionModel"
    configs["vae"].setdefault("_class_name", "AutoencoderKL")
    encoders = {
        name: ["transformers", "CLIPTextModel"] for name in configs if name.startswith("text_encoder")
    }
    folders = {kind.name: kind.folder for kind in KINDS if kind.name in model.components}
    return Checkpoint(
        name="programs",
        folder=Path("programs"),
        revision=None,
        networks=folders,
        configs={**configs, "model_index": encoders, "scheduler": {}},
        tokenizers={},
        scheduler_file=None,
        sources={},
        variants={},
    )


def part_of(checkpoint: Checkpoint, component: str) -> Part:
    """A component of it, with the shapes of its tensors."""
    kind, facts = kind_named(component, KINDS), read_facts(checkpoint)
    config = section(checkpoint, kind.folder)
    inputs, _ = kind.shapes(facts, config, chosen_sizes(facts, ConversionOptions()))
    network = kind.network(facts, config, tuple(inputs))
    shapes = {}
    for name, tensor in network.module.state_dict().items():
        plain = next(one for one in (name, name.partition(".")[2]) if network.rename(one) == name)
        shapes[plain] = Shape(tuple(tensor.shape))
    return Part(kind, facts, config, LazyWeights(shapes), "")


def programs_of(name: str) -> Iterator[tuple[str, bytes]]:
    """Every program of a model: its key, and the program."""
    model = SHIPPED_MODELS[name]
    for component in model.components:
        is_text, is_vae = component.startswith("text_encoder"), component in _HALVES
        for end in model.ends if is_text else model.ends[:1]:
            part = part_of(checkpoint_of(model, end), component)
            for attention in ATTENTION if part.kind.rewrites_attention else ATTENTION[:1]:
                options = ConversionOptions(
                    attention_implementation=attention, latent_height=model.side, latent_width=model.side
                )
                sizes = chosen_sizes(part.facts, options)
                precisions = (
                    (Precision("float16"), Precision("float32")) if is_vae else (Precision("float16"),)
                )
                for precision in precisions:
                    yield from Programs(sizes, options, None).made_anew(part, precision).items()
            if is_vae:
                yield from (
                    Programs(reduced(sizes), options, None).made_anew(part, Precision("float32")).items()
                )


def main() -> None:
    """Write the programs of the models named, or of all, or check them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    parser.add_argument("--output", type=Path, default=SHIPPED.folder, help="the folder of the programs")
    parser.add_argument("models", nargs="*", metavar="NAME", help=", ".join(SHIPPED_MODELS))
    options = parser.parse_args()
    unknown = [name for name in options.models if name not in SHIPPED_MODELS]
    if unknown:
        parser.error(f"expected some of {', '.join(SHIPPED_MODELS)}, got {', '.join(unknown)}")
    wrong, known = [], set()
    for name in options.models or SHIPPED_MODELS:
        for key, content in programs_of(name):
            path = options.output / file_name(key)
            known.add(path.name)
            if not options.check:
                options.output.mkdir(parents=True, exist_ok=True)
                path.write_bytes(compressed(content, 9 | lzma.PRESET_EXTREME))
            elif not path.is_file() or lzma.decompress(path.read_bytes()) != content:
                wrong.append(f"{name}: {path.name}")
                print(f"another one: {wrong[-1]}", flush=True)
        print(f"{name}: {len(known)} programs so far", flush=True)
    if not options.models:
        wrong += [f"left over: {path.name}" for path in options.output.iterdir() if path.name not in known]
    total = sum(path.stat().st_size for path in options.output.iterdir())
    print(f"{total / 1e6:.2f} MB in {options.output.name}")
    if wrong or total > MOST_BYTES:
        sys.exit(
            "\n".join(["expected the programs that are made now, and at most 10 MB, got others:", *wrong])
        )


if __name__ == "__main__":
    main()

"""A component in one file outside the packages: a network that previews latents, as one ComponentKind.

It has its folder in the checkpoint like every other, with a config that nobody else knows. It is converted,
cached, verified and drawn with; in one piece, in chunks, and with a function for each size of the picture.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sd_convert
import torch
from safetensors.torch import save_file
from sd_bundle import (
    BundleComponent,
    Chunk,
    PictureSize,
    PortSpec,
    Provenance,
    Variant,
    new_bundle,
    open_bundle,
)
from sd_convert import (
    KINDS,
    Component,
    ComponentKind,
    ConversionCache,
    ConversionOptions,
    Drawing,
    Facts,
    Network,
    OptionsError,
    Section,
    Sizes,
    UnsupportedArchitectureError,
    VerificationError,
    build_component,
    open_checkpoint,
    verify,
    write_component,
)
from sd_runtime import Pipeline
from torch import Tensor, nn

pytestmark = [  # coremltools leaves temporary folders to the interpreter
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

FOLDER = "preview_decoder"


class Preview(nn.Module):
    """Latents (1, C, H, W) to an image (1, 3, F*H, F*W): a convolution, then larger pixels."""

    def __init__(self, channels: int, kernel: int, factor: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, kernel, padding=kernel // 2)
        self.last = nn.Conv2d(8, 3, 1)
        self.factor = factor

    def forward(self, z: Tensor) -> tuple[Tensor]:
        return (self.draw(self.hide(z)[0])[0],)

    def hide(self, z: Tensor) -> tuple[Tensor]:
        return (torch.tanh(self.first(z)),)

    def draw(self, hidden: Tensor) -> tuple[Tensor]:
        image = torch.tanh(self.last(hidden))
        return (nn.functional.interpolate(image, scale_factor=float(self.factor), mode="nearest"),)


def shapes(facts: Facts, _: Section, sizes: Sizes) -> tuple[dict[str, Any], dict[str, Any]]:
    factor = facts.vae.factor
    image = (1, 3, sizes.height * factor, sizes.width * factor)
    return {"z": (1, facts.vae.channels, sizes.height, sizes.width)}, {"image": image}


def network(facts: Facts, config: Section, _: tuple[str, ...]) -> Network:
    with torch.device("meta"):
        module = Preview(facts.vae.channels, config.count("kernel", 1), facts.vae.factor)
    return Network(module, lambda name: name)


def latents(drawing: Drawing, shape: tuple[int, ...]) -> Any:
    return drawing.noise(shape) / drawing.facts.vae.scaling_factor


PREVIEW = ComponentKind(
    name=FOLDER,
    role="image_decoder",
    folder=FOLDER,
    libraries=("torch.export",),
    shapes=shapes,
    network=network,
    descriptions={"z": "Latents of {shape[2]}x{shape[3]}"},
    draws={"z": latents},
    notes=lambda facts: {"scaling_factor": str(facts.vae.scaling_factor)},
)
#: In place of the VAE's decoder, so that a bundle of all has one decoder.
ALL = (*(kind for kind in KINDS if kind.role != "image_decoder"), PREVIEW)


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """The demo checkpoint with a folder of one network more."""
    copy = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    torch.manual_seed(0)
    state = {name: tensor.half() for name, tensor in Preview(4, 3, 1).state_dict().items()}
    (copy / FOLDER).mkdir()
    save_file(state, copy / FOLDER / "diffusion_pytorch_model.safetensors")
    (copy / FOLDER / "config.json").write_text(json.dumps({"_class_name": "Preview", "kernel": 3}))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {FOLDER: ["outside", "Preview"]}))
    return copy


def test_it_is_converted_verified_and_drawn_with(
    folder: Path, tmp_path: Path, lowered_once: ConversionCache
) -> None:
    opened = open_checkpoint(folder, components=["text_encoder", "unet", FOLDER], kinds=ALL)
    report = sd_convert.convert(opened, tmp_path / "bundle", cache=lowered_once, kinds=ALL)
    assert [part.name for part in report.components] == ["text_encoder", "unet", FOLDER]
    entry = open_bundle(report.bundle).component(FOLDER)
    assert (entry.role, entry.attention_implementation) == ("image_decoder", None)
    assert [str(port) for port in entry.inputs] == ["z: float16[1, 4, 16, 16]"]
    verified = verify(report.bundle, opened, components=[FOLDER], kinds=ALL)
    assert min(row.psnr for row in verified.rows) > 60
    (drawn,) = Pipeline.open(report.bundle).generate("a red circle", num_inference_steps=2, seed=1)
    pixels = np.asarray(drawn.image)
    side = pixels.shape[0] // 16  # the picture is made of larger pixels, and they are not all alike
    np.testing.assert_array_equal(pixels, pixels[::side, ::side].repeat(side, 0).repeat(side, 1))
    assert pixels.std() > 1


def test_its_program_is_kept_until_what_it_follows_from_changes(folder: Path, tmp_path: Path) -> None:
    options = ConversionOptions(components=(FOLDER,), overwrite=True)
    cache = ConversionCache(tmp_path / "cache")

    def is_reused(kind: ComponentKind = PREVIEW) -> bool:
        opened = open_checkpoint(folder, kinds=(*KINDS, kind))
        return sd_convert.plan(opened, options, cache=cache, kinds=(*KINDS, kind)).components[0].is_reused

    opened = open_checkpoint(folder, kinds=(*KINDS, PREVIEW))
    sd_convert.convert(opened, tmp_path / "bundle", options, cache=cache, kinds=(*KINDS, PREVIEW))
    assert is_reused()
    assert is_reused(replace(PREVIEW, notes=lambda _: {"scaling_factor": "another"}))  # said beside it
    assert not is_reused(replace(PREVIEW, inputs_as="float32"))
    (folder / FOLDER / "config.json").write_text(json.dumps({"kernel": 3, "more": 1}))
    assert not is_reused()


def test_its_own_config_is_checked_and_unknown_kinds_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="components: expected one of text_encoder"):
        open_checkpoint(folder, components=[FOLDER])
    opened = open_checkpoint(folder, components=[FOLDER], kinds=ALL)
    bundle = sd_convert.convert(opened, tmp_path / "bundle", kinds=ALL).bundle
    with pytest.raises(VerificationError, match="got preview_decoder"):
        verify(bundle, opened)
    with pytest.raises(OptionsError, match=r"expected one of text_encoder.*got 'preview_decoder'"):
        sd_convert.plan(opened)
    (folder / FOLDER / "config.json").write_text(json.dumps({"kernel": "wide"}))
    with pytest.raises(
        UnsupportedArchitectureError, match="preview_decoder: kernel: expected a whole number"
    ):
        sd_convert.convert(open_checkpoint(folder, kinds=ALL), tmp_path / "other", kinds=ALL)


class Half(nn.Module):
    """One method of a network as a network."""

    def __init__(self, whole: Preview, method: str) -> None:
        super().__init__()
        self.first, self.last, self.factor = whole.first, whole.last, whole.factor
        self.method = method

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return getattr(Preview, self.method)(self, x)


def ports(component: Component) -> tuple[tuple[PortSpec, ...], tuple[PortSpec, ...]]:
    inputs, outputs = (
        tuple(PortSpec(port.name, port.shape, port.dtype) for port in side)
        for side in (component.inputs, component.outputs)
    )
    return inputs, outputs


def halves(whole: Component) -> tuple[Component, Component]:
    (z,) = whole.inputs
    hidden = replace(z, name="hidden", shape=(1, 8, *z.shape[2:]), dtype="float32")
    return (
        replace(whole, module=Half(whole.module, "hide"), outputs=(hidden,)),
        replace(whole, module=Half(whole.module, "draw"), inputs=(hidden,)),
    )


def rebundled(bundle: Path, path: Path, variants: tuple[Variant, ...], write: Callable[..., None]) -> Path:
    """A bundle that has the preview as these variants."""
    before = open_bundle(bundle)
    entry: BundleComponent = replace(before.component(FOLDER), variants=variants)
    pictures = [variant.size for variant in variants]
    latent = before.manifest.model.latent
    factor = before.manifest.model.image.height // latent.height
    sizes = tuple(
        PictureSize(p, replace(latent, height=p.height // factor, width=p.width // factor)) for p in pictures
    )
    model = replace(before.manifest.model, sizes=sizes)
    with new_bundle(path, model, provenance=Provenance.now("demo", tools={})) as draft:
        draft.copy_file(bundle / model.scheduler, model.scheduler)
        write(*draft.add_packages(entry))
    return path


@pytest.fixture
def preview(folder: Path, tmp_path: Path) -> Any:
    opened = open_checkpoint(folder, components=[FOLDER], kinds=ALL)
    return opened, sd_convert.convert(opened, tmp_path / "bundle", kinds=ALL).bundle


def test_of_a_network_in_chunks_the_whole_chain_is_verified(preview: Any, tmp_path: Path) -> None:
    opened, bundle = preview
    parts = halves(build_component(FOLDER, opened, ConversionOptions(), kinds=ALL))
    chunks = tuple(Chunk(f"{i}.mlpackage", None, *ports(part)) for i, part in enumerate(parts))
    size = open_bundle(bundle).manifest.model.image

    def write(*places: Path) -> None:
        for place, part in zip(places, parts, strict=True):
            write_component(part, place)

    chunked = rebundled(bundle, tmp_path / "chunked", (Variant(size, chunks),), write)
    (row,) = verify(chunked, opened, kinds=ALL).rows
    assert (row.component, row.output, row.size) == (FOLDER, "image", None)
    assert row.psnr > 60
    swapped = {"first.weight": -np.asarray(parts[0].weights["first.weight"])}
    parts = (replace(parts[0], weights=Changed(parts[0].weights, swapped)), parts[1])
    wrong = rebundled(bundle, tmp_path / "wrong", (Variant(size, chunks),), write)
    assert not verify(wrong, opened, kinds=ALL).passed


class Changed:
    """Weights of which some are others."""

    def __init__(self, weights: Any, others: dict[str, np.ndarray]) -> None:
        self.weights, self.others = weights, others

    def __getitem__(self, name: str) -> np.ndarray:
        return self.others[name] if name in self.others else self.weights[name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.weights, name)

    def __contains__(self, name: object) -> bool:
        return name in self.weights


def test_each_size_is_verified(preview: Any, tmp_path: Path) -> None:
    """As functions of one package, which coremltools joins."""
    opened, bundle = preview
    ct = sd_convert.coreml.import_coremltools()
    described, variants = ct.utils.MultiFunctionDescriptor(), []
    image = open_bundle(bundle).manifest.model.image
    for index, width in enumerate((16, 24)):
        part = build_component(FOLDER, opened, ConversionOptions(latent_width=width), kinds=ALL)
        written = write_component(part, tmp_path / f"{width}.mlpackage", target="iOS18")
        described.add_function(str(written.path), "main", f"size_{width}")
        size = replace(image, width=image.width * (2 + index) // 2)
        variants.append(Variant(size, (Chunk("preview.mlpackage", f"size_{width}", *ports(part)),)))
    described.default_function_name = "size_16"
    sized = rebundled(
        bundle,
        tmp_path / "sized",
        tuple(variants),
        lambda path: ct.utils.save_multifunction(described, str(path)),
    )
    rows = verify(sized, opened, kinds=ALL).rows
    assert [row.size for row in rows] == [str(variant.size) for variant in variants]
    assert min(row.psnr for row in rows) > 60

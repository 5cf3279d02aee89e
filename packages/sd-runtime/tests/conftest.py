"""A small sound bundle to write, read and break; and a toy pipeline whose networks are functions."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
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
    new_bundle,
    open_bundle,
)

Array: TypeAlias = npt.NDArray[Any]

FACTS = ModelFacts(
    identifier="org/tiny",
    family="sd1",
    task="text-to-image",
    denoiser=DenoiserFacts("unet", None),
    prediction_type="epsilon",
    scheduler="scheduler/scheduler_config.json",
    sizes=(PictureSize(ImageSize(64, 64), LatentSize(4, 8, 8)),),
    vae=VaeFacts(0.18215, 0.0, "moments"),
    text_encoders=(),
    conditioning=ConditioningFacts("none", zero_empty_negative=False, guidance_embedding=False),
)
PROVENANCE = Provenance("org/tiny", None, {"sd-runtime": "0.1.0"}, "2026-01-31T12:00:00Z")
WIDTH = 6  # channels of the toy text encoder
WINDOW = 77
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def port(name: str, *shape: int, dtype: str = "float16") -> PortSpec:
    return PortSpec(name, shape, dtype)  # type: ignore[arg-type]


def component(name: str, role: str, inputs: list[PortSpec], outputs: list[PortSpec]) -> BundleComponent:
    return BundleComponent.of_package(
        f"Stable_Diffusion_version_org_toy_{name}.mlpackage",
        name=name,
        role=role,  # type: ignore[arg-type]
        size=FACTS.image,
        inputs=inputs,
        outputs=outputs,
        attention_implementation=None,
        compute_unit="CPU_ONLY",
        deployment_target="macOS13",
    )


def toy_components(batch: int) -> list[BundleComponent]:
    latent = (batch, 4, 8, 8)
    return [
        component(
            "text_encoder",
            "text_encoder",
            [port("input_ids", 1, WINDOW, dtype="float32")],
            [port("last_hidden_state", 1, WINDOW, WIDTH, dtype="float32")],
        ),
        component(
            "unet",
            "denoiser",
            [
                port("sample", *latent),
                port("timestep", batch),
                port("encoder_hidden_states", batch, WIDTH, 1, WINDOW),
            ],
            [port("noise_pred", *latent, dtype="float32")],
        ),
        component(
            "vae_decoder",
            "image_decoder",
            [port("z", 1, 4, 8, 8)],
            [port("image", 1, 3, 64, 64, dtype="float32")],
        ),
        component(
            "vae_encoder",
            "image_encoder",
            [port("x", 1, 3, 64, 64)],
            [port("latent", 1, 8, 8, 8, dtype="float32")],
        ),
    ]


def toy_tokenizer() -> dict[str, bytes]:
    """A CLIP tokenizer that knows single letters."""
    letters = [*LETTERS, *(letter + "</w>" for letter in LETTERS)]
    tokens = [*letters, "<|startoftext|>", "<|endoftext|>"]
    return {
        "tokenizer/vocab.json": json.dumps({token: index for index, token in enumerate(tokens)}).encode(),
        "tokenizer/merges.txt": b"#version: 0.2\n",
    }


@pytest.fixture
def toy_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """A bundle with empty packages, each in a folder of its own: its models are functions."""
    numbers = itertools.count()

    def write(
        *,
        batch: int = 2,
        scheduler: dict[str, object] | None = None,
        lacks: tuple[str, ...] = (),
        encoder: bool = False,
    ) -> Bundle:
        config = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", **(scheduler or {})}
        facts = dataclasses.replace(
            FACTS,
            identifier="org/toy",
            vae=VaeFacts(0.5, 0.25, "moments"),
            text_encoders=tuple(
                TextEncoding(name, "tokenizer", "last_hidden_state")
                for name in ("text_encoder",)
                if name not in lacks
            ),
        )
        path = tmp_path / f"toy-{next(numbers)}"
        with new_bundle(path, facts, provenance=PROVENANCE, overwrite=True) as draft:
            for each in toy_components(batch):
                if each.name in lacks or (each.name == "vae_encoder" and not encoder):
                    continue
                package = draft.add_component(each)
                package.mkdir()
                (package / "Manifest.json").write_text("{}")
            for name, content in toy_tokenizer().items():
                draft.add_file(name, content)
            draft.add_file("scheduler/scheduler_config.json", json.dumps(config).encode())
        return open_bundle(path)

    return write


class ToyNetworks:
    """Three small functions in place of networks, and a record of what they were given."""

    def __init__(self) -> None:
        names = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
        self.calls: dict[str, list[dict[str, Array]]] = {name: [] for name in names}
        self.opened: list[str] = []
        self._embedding = np.random.RandomState(1).randn(2 * len(LETTERS) + 2, WIDTH).astype(np.float32)

    def open(self, component: BundleComponent) -> FunctionModel:
        self.opened.append(component.name)
        network = getattr(self, component.name)

        def call(**inputs: Array) -> dict[str, Array]:
            for expected in component.inputs:
                given = inputs[expected.name]
                assert (given.shape, given.dtype) == (expected.shape, expected.dtype)
            self.calls[component.name].append(inputs)
            (output,) = component.outputs
            return {
                output.name: network(*(inputs[each.name].astype(np.float64) for each in component.inputs))
            }

        return FunctionModel(call)

    def text_encoder(self, input_ids: Array) -> Array:
        positions = np.cos(np.arange(WINDOW))[:, None]
        return (self._embedding[input_ids.astype(int)] * positions).astype(np.float32)

    def unet(self, sample: Array, timestep: Array, encoder_hidden_states: Array) -> Array:
        weights = np.linspace(-1, 1, WINDOW)
        said = np.tanh(encoder_hidden_states @ weights)[:, :4, :, None]
        return (0.7 * sample + 0.3 * said + timestep[:, None, None, None] / 5000).astype(np.float32)

    def vae_decoder(self, z: Array) -> Array:
        colours = np.array([[0.5, 0.1, 0.0, -0.2], [0.0, 0.6, 0.2, 0.1], [-0.3, 0.0, 0.4, 0.2]])
        small = np.einsum("rc,bchw->brhw", colours, z)
        return small.repeat(8, axis=2).repeat(8, axis=3).astype(np.float32)

    def vae_encoder(self, x: Array) -> Array:
        """Means and log variances: of four mixtures of the colours, at the upper left of each cell."""
        mixtures = np.array([[0.5, 0.1, 0.0], [0.0, 0.6, 0.2], [-0.3, 0.0, 0.4], [0.2, 0.2, -0.1]])
        mean = np.einsum("cr,brhw->bchw", mixtures, x[:, :, ::8, ::8])
        return np.concatenate([mean, np.full_like(mean, -6.0)], axis=1).astype(np.float32)


@pytest.fixture
def toy_networks() -> ToyNetworks:
    return ToyNetworks()


@pytest.fixture
def toy_pipeline(toy_bundle: Callable[..., Bundle], toy_networks: ToyNetworks) -> Callable[..., Pipeline]:
    """A pipeline on the toy networks; ``batch`` is that of the UNet's ports."""

    def build(*, batch: int = 2, scheduler: dict[str, object] | None = None) -> Pipeline:
        return Pipeline(toy_bundle(batch=batch, scheduler=scheduler), toy_networks.open)

    return build


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither find nor leave anything in the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        # the variable, not a patched function: a test of the caches sets its own over it
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield

"""A bundle whose packages coremltools wrote: in chunks, and with a function for each size of the picture."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sd_bundle import (
    Bundle,
    BundleComponent,
    Chunk,
    ConditioningFacts,
    DenoiserFacts,
    ImageSize,
    LatentSize,
    ModelFacts,
    PictureSize,
    PortsError,
    PortSpec,
    Provenance,
    VaeFacts,
    Variant,
    new_bundle,
    open_bundle,
)
from sd_runtime import open_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ct = pytest.importorskip("coremltools")

pytestmark = [  # coremltools leaves temporary folders to the interpreter
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SIZES = (ImageSize(64, 64), ImageSize(64, 128))
WEIGHTS = np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float32)


def latent(size: ImageSize) -> tuple[int, ...]:
    return (2, 4, size.height // 8, size.width // 8)


def write(path: Path, function: Callable[..., Any], *names: str, size: ImageSize) -> Path:
    """A package of ``function`` of these inputs, all of the latent's shape."""
    from coremltools.converters.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    specs = [mb.TensorSpec(latent(size), dtype=types.fp32) for _ in names]
    parameters = ", ".join(names)
    scope: dict[str, Any] = {"function": function}
    exec(f"def made({parameters}): return function({parameters})", scope)  # noqa: S102
    program = mb.program(input_specs=specs, opset_version=ct.target.iOS18)(scope["made"])
    model = ct.convert(
        program, minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT32
    )
    model.save(str(path))
    return path


def first(sample: Any) -> Any:
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    return mb.conv(x=sample, weight=WEIGHTS, pad_type="same", name="hidden")


def second(hidden: Any, sample: Any) -> Any:
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    return mb.add(x=mb.tanh(x=hidden), y=sample, name="noise_pred")


def whole(sample: Any) -> Any:
    return second(first(sample), sample)


def port(name: str, size: ImageSize) -> PortSpec:
    return PortSpec(name, latent(size), "float32")


def component(*variants: Variant) -> BundleComponent:
    return BundleComponent(
        name="unet",
        role="denoiser",
        variants=variants,
        attention_implementation=None,
        compression=None,
        compute_unit="ALL",
        deployment_target="iOS18",
    )


def bundle(
    path: Path, unet: BundleComponent, sizes: tuple[ImageSize, ...], place: Callable[..., None]
) -> Bundle:
    facts = ModelFacts(
        identifier="org/toy",
        family="sd1",
        task="text-to-image",
        denoiser=DenoiserFacts("unet", None),
        prediction_type="epsilon",
        scheduler="scheduler.json",
        sizes=tuple(PictureSize(size, LatentSize(*latent(size)[1:])) for size in sizes),
        vae=VaeFacts(1.0, 0.0, "moments"),
        text_encoders=(),
        conditioning=ConditioningFacts("none", zero_empty_negative=False, guidance_embedding=False),
    )
    with new_bundle(path, facts, provenance=Provenance.now("org/toy", tools={})) as draft:
        place(*draft.add_packages(unet))
        draft.add_file("scheduler.json", b"{}")
    return open_bundle(path)


def predicted(opened: Bundle, size: ImageSize, engine: Any) -> tuple[np.ndarray, np.ndarray]:
    """A random sample, and what the denoiser makes of it."""
    sized = opened.at_size(size)
    sample = np.random.default_rng(1).standard_normal(latent(size)).astype(np.float32)
    model = open_model(sized, sized.only("denoiser"), engine=engine)
    (output,) = model.predict({"sample": sample}).items()
    assert output[0] == "noise_pred"
    return sample, np.asarray(output[1])


def expected(sample: np.ndarray) -> np.ndarray:
    import torch

    convolved = torch.nn.functional.conv2d(torch.from_numpy(sample), torch.from_numpy(WEIGHTS), padding=1)
    return torch.tanh(convolved).numpy() + sample


@pytest.mark.parametrize("engine", ["portable", "reference"])
def test_chunks_compute_what_the_network_computes(tmp_path: Path, engine: str) -> None:
    size = SIZES[0]
    chunks = (
        Chunk("first.mlpackage", None, (port("sample", size),), (port("hidden", size),)),
        Chunk(
            "second.mlpackage",
            None,
            (port("hidden", size), port("sample", size)),
            (port("noise_pred", size),),
        ),
    )

    def place(one: Path, two: Path) -> None:
        write(one, first, "sample", size=size)
        write(two, second, "hidden", "sample", size=size)

    opened = bundle(tmp_path / "bundle", component(Variant(size, chunks)), (size,), place)
    sample, got = predicted(opened, size, engine)
    np.testing.assert_allclose(got, expected(sample), atol=1e-5)


@pytest.fixture
def functions(tmp_path: Path) -> Callable[..., Bundle]:
    """One package with a function for each size; ``names`` are what the manifest calls them."""

    def make(*names: str) -> Bundle:
        described = ct.utils.MultiFunctionDescriptor()
        for size in SIZES:
            package = write(tmp_path / f"{size.width}.mlpackage", whole, "sample", size=size)
            described.add_function(str(package), "main", f"size_{size.width}")
        described.default_function_name = "size_64"
        variants = [
            Variant(
                size, (Chunk("unet.mlpackage", name, (port("sample", size),), (port("noise_pred", size),)),)
            )
            for size, name in zip(SIZES, names, strict=True)
        ]
        return bundle(
            tmp_path / "bundle",
            component(*variants),
            SIZES,
            lambda path: ct.utils.save_multifunction(described, str(path)),
        )

    return make


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_each_size_is_a_function_of_one_package(functions: Callable[..., Bundle], size: ImageSize) -> None:
    opened = functions("size_64", "size_128")
    assert opened.only("denoiser").packages == ("unet.mlpackage",)
    sample, got = predicted(opened, size, "portable")
    np.testing.assert_allclose(got, expected(sample), atol=1e-5)


def test_a_function_that_the_package_lacks(functions: Callable[..., Bundle]) -> None:
    opened = functions("size_64", "size_256")
    with pytest.raises(PortsError, match=r"unet\.mlpackage: expected a function 'size_256', got only size_"):
        predicted(opened, SIZES[1], "portable")


def test_a_function_of_another_size(functions: Callable[..., Bundle]) -> None:
    opened = functions("size_64", "size_64")
    with pytest.raises(PortsError, match=r"expected the manifest's port sample: float32\[2, 4, 8, 16\]"):
        predicted(opened, SIZES[1], "portable")

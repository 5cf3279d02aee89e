"""The networks of a bundle: which packages they are made of, and what they take and return."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from sd_bundle.errors import ManifestError, UnsupportedBundleError
from sd_bundle.facts import ImageSize
from sd_bundle.paths import check_relative
from sd_bundle.rules import check_elements, check_filled, check_positive, check_unique

Role: TypeAlias = Literal[
    "text_encoder",
    "denoiser",
    "image_decoder",
    "preview_decoder",
    "image_encoder",
    "safety_checker",
    "controlnet",
    "t2i_adapter",
    "vision_encoder",
    "image_projection",
]
AttentionImplementation: TypeAlias = Literal["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "SDPA", "AUTO"]
CompressionMethod: TypeAlias = Literal["palettization", "quantization", "pruning", "activation_quantization"]
ComputeUnit: TypeAlias = Literal["ALL", "CPU_AND_GPU", "CPU_ONLY", "CPU_AND_NE"]
Dtype: TypeAlias = Literal["float16", "float32", "int32"]

#: The roles whose networks are made for a size of the picture; the others serve all sizes.
SIZED_ROLES: Final[tuple[Role, ...]] = (
    "denoiser",
    "image_decoder",
    "preview_decoder",
    "image_encoder",
    "controlnet",
    "t2i_adapter",
)

#: How the names of a denoiser's inputs begin, by the role of the networks that give them.
STEERING: Final[Mapping[Role, str]] = MappingProxyType(
    {
        "controlnet": "additional_residual_",
        "t2i_adapter": "adapter_res_samples_",
        "image_projection": "ip_hidden_states_",
    }
)

_MOST_BITS: Final = 32
_TARGET: Final = re.compile(r"(macOS|iOS|iPadOS|tvOS|watchOS|visionOS)[1-9][0-9]?")


@dataclass(frozen=True, slots=True)
class PortSpec:
    """A named input or output of a package; ``shape`` has no unknown dimension."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype

    def __post_init__(self) -> None:
        """Refuse empty names, and shapes that no array can have."""
        check_filled(self.name, "$.name")
        for index, size in enumerate(self.shape):
            check_positive(size, f"$.shape[{index}]")
        check_elements(self.shape, "$.shape")

    def __str__(self) -> str:
        """``sample: float16[2, 4, 64, 64]``."""
        return f"{self.name}: {self.dtype}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is loaded and run as one: a package, or one function of a package that has several.

    ``package`` is the ``.mlpackage`` folder; ``function`` is None for a package's only, or default, function.
    """

    package: str
    function: str | None
    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]

    def __post_init__(self) -> None:
        """Refuse paths out of the bundle, and ports of one name."""
        check_relative(self.package, "$.package")
        if self.function is not None:
            check_filled(self.function, "$.function")
        check_unique((port.name for port in self.inputs), "$.inputs")
        check_unique((port.name for port in self.outputs), "$.outputs")


@dataclass(frozen=True, slots=True)
class Form:
    """How a network is called, beside the size of the picture: what tells variants of one size apart.

    ``batch``: rows of ``sample``; ``tokens``: of ``encoder_hidden_states``; None of networks without.
    ``takes``: the roles of the networks whose outputs it has inputs for, such as ``controlnet``.
    """

    batch: int | None
    tokens: int | None
    takes: tuple[Role, ...] = ()

    def __str__(self) -> str:
        """``batch 2, 77 tokens, with controlnet``."""
        parts = (
            None if self.batch is None else f"batch {self.batch}",
            None if self.tokens is None else f"{self.tokens} tokens",
            f"with {' and '.join(self.takes)}" if self.takes else None,
        )
        return ", ".join(part for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class Variant:
    """A whole network: chunks that run in their order, each fed by name from inputs and earlier chunks.

    ``size`` is that of the pictures that it is made for, None if that plays no part.
    """

    size: ImageSize | None
    chunks: tuple[Chunk, ...]

    def __post_init__(self) -> None:
        """Refuse none, one that comes twice, and ports that do not fit together."""
        if not self.chunks:
            raise ManifestError("$.chunks", "at least one chunk", ())
        check_unique(_labels(self.chunks), "$.chunks")
        shapes: dict[str, tuple[int, ...]] = {}
        for index, chunk in enumerate(self.chunks):
            for port in chunk.inputs:
                if shapes.setdefault(port.name, port.shape) != port.shape:
                    expected = f"{port.name!r} of shape {list(shapes[port.name])}, as in an earlier chunk"
                    raise ManifestError(f"$.chunks[{index}].inputs", expected, list(port.shape))
            names = {port.name for port in chunk.inputs} if len(self.chunks) == 1 else set()
            for port in chunk.outputs:
                if port.name in shapes and port.name not in names:
                    expected = "outputs that no chunk has yet as a port"
                    raise ManifestError(f"$.chunks[{index}].outputs", expected, port.name)
            shapes |= {port.name: port.shape for port in chunk.outputs}

    @property
    def inputs(self) -> tuple[PortSpec, ...]:
        """What the whole takes: the inputs that no chunk returns, each as the first chunk has it."""
        returned = {port.name for chunk in self.chunks[:-1] for port in chunk.outputs}
        taken: dict[str, PortSpec] = {}
        for chunk in self.chunks:
            for port in chunk.inputs:
                if port.name not in returned:
                    taken.setdefault(port.name, port)
        return tuple(taken.values())

    @property
    def form(self) -> Form:
        """How it is called, as its inputs say."""
        shapes = {port.name: port.shape for port in self.inputs}
        sample, attended = shapes.get("sample", ()), shapes.get("encoder_hidden_states", ())
        takes = (role for role, start in STEERING.items() if any(name.startswith(start) for name in shapes))
        return Form(sample[0] if sample else None, attended[-1] if attended else None, tuple(takes))

    def __str__(self) -> str:
        """Size and form: ``512x768, batch 2, 77 tokens``."""
        return ", ".join(text for text in (str(self.size or ""), str(self.form)) if text)

    @property
    def outputs(self) -> tuple[PortSpec, ...]:
        """What the whole returns: the outputs that no later chunk takes."""
        taken = {port.name for chunk in self.chunks[1:] for port in chunk.inputs}
        *earlier, last = self.chunks
        left = (port for chunk in earlier for port in chunk.outputs if port.name not in taken)
        return (*left, *last.outputs)


@dataclass(frozen=True, slots=True)
class Compression:
    """How the weights of a component were compressed.

    ``methods`` are coremltools' names, in the order in which they were applied; with
    ``activation_quantization`` the inputs of layers of integers are integers, too. ``bits_per_weight`` is the
    average over all weights as they are stored, tables and scales included; ``recipe`` is the file of the
    bundle that says what was done to each weight, None if it has none.
    """

    methods: tuple[CompressionMethod, ...]
    bits_per_weight: float
    recipe: str | None

    def __post_init__(self) -> None:
        """Refuse no method, one that comes twice, and numbers that weights cannot have."""
        if not self.methods:
            raise ManifestError("$.methods", "at least one method", ())
        check_unique(self.methods, "$.methods")
        if not 0 < self.bits_per_weight <= _MOST_BITS:
            raise ManifestError("$.bits_per_weight", f"more than 0, up to {_MOST_BITS}", self.bits_per_weight)
        if self.recipe is not None:
            check_relative(self.recipe, "$.recipe")


@dataclass(frozen=True, slots=True)
class BundleComponent:
    """One network of the bundle: what it is for, and the packages that it is made of.

    ``name`` is the ecosystem's (``unet``); ``role`` is what the pipeline looks for. ``variants`` has one for
    each picture size, or a single one; several of one size have different forms, and the first is taken where
    none is asked for. ``attention_implementation`` is None for networks whose attention was
    left as it was, ``compression`` for weights that were.
    """

    name: str
    role: Role
    variants: tuple[Variant, ...]
    attention_implementation: AttentionImplementation | None
    compression: Compression | None
    compute_unit: ComputeUnit
    deployment_target: str

    def __post_init__(self) -> None:
        """Refuse an empty name, sizes that the role does not have or that come twice, and unknown systems."""
        check_filled(self.name, "$.name")
        if not self.variants:
            raise ManifestError("$.variants", "at least one variant", ())
        is_sized = self.role in SIZED_ROLES
        for index, variant in enumerate(self.variants):
            if (variant.size is not None) != is_sized:
                expected = f"{'a size' if is_sized else 'null'} for the role {self.role}"
                raise ManifestError(f"$.variants[{index}].size", expected, variant.size)
        check_unique((str(variant) for variant in self.variants), "$.variants")
        if not _TARGET.fullmatch(self.deployment_target):
            raise ManifestError("$.deployment_target", "a system such as 'macOS13'", self.deployment_target)

    @classmethod
    def of_package(
        cls,
        package: str,
        *,
        name: str,
        role: Role,
        size: ImageSize,
        inputs: Iterable[PortSpec],
        outputs: Iterable[PortSpec],
        attention_implementation: AttentionImplementation | None,
        compute_unit: ComputeUnit,
        deployment_target: str,
        compression: Compression | None = None,
    ) -> BundleComponent:
        """A component of one package; ``size`` is that of the pictures, which some roles leave aside."""
        chunk = Chunk(package, None, tuple(inputs), tuple(outputs))
        return cls(
            name=name,
            role=role,
            variants=(Variant(size if role in SIZED_ROLES else None, (chunk,)),),
            attention_implementation=attention_implementation,
            compression=compression,
            compute_unit=compute_unit,
            deployment_target=deployment_target,
        )

    @property
    def packages(self) -> tuple[str, ...]:
        """Every package of every variant, once."""
        chunks = (chunk for variant in self.variants for chunk in variant.chunks)
        return tuple(dict.fromkeys(chunk.package for chunk in chunks))

    @property
    def labels(self) -> tuple[str, ...]:
        """What tells each variant from the others: the size (``512x768``), the form, or both; "" of one."""
        told = (self.told_apart(variant) for variant in self.variants)
        return tuple(", ".join(text for text in each if text is not None) for each in told)

    def told_apart(self, variant: Variant) -> tuple[str | None, str | None]:
        """Its size and its form; each None where all variants have the same, the form where sizes do."""
        sizes = {each.size for each in self.variants}
        has_forms = len(sizes) < len(self.variants)
        return str(variant.size) if len(sizes) > 1 else None, str(variant.form) if has_forms else None

    @property
    def variant(self) -> Variant:
        """The only one.

        Raises:
            UnsupportedBundleError: there are several; :meth:`Bundle.at_size` chooses.
        """
        if len(self.variants) > 1:
            have = "; ".join(self.labels)
            raise UnsupportedBundleError(
                f"{self.name}: expected one variant, got several ({have}): choose with Bundle.at_size"
            )
        return self.variants[0]

    @property
    def chunk(self) -> Chunk:
        """The only one.

        Raises:
            UnsupportedBundleError: there are several, or several sizes.
        """
        if len(chunks := self.variant.chunks) > 1:
            packages = ", ".join(chunk.package for chunk in chunks)
            raise UnsupportedBundleError(f"{self.name}: expected a network in one piece, got {packages}")
        return chunks[0]

    @property
    def package(self) -> str:
        """The only package; errors as :attr:`chunk`."""
        return self.chunk.package

    @property
    def inputs(self) -> tuple[PortSpec, ...]:
        """Those of the only variant, whatever its chunks; errors as :attr:`variant`."""
        return self.variant.inputs

    @property
    def outputs(self) -> tuple[PortSpec, ...]:
        """As :attr:`inputs`."""
        return self.variant.outputs


def _labels(chunks: Iterable[Chunk]) -> Iterable[str]:
    """What tells chunks apart: the package and, if it is one of several, the function."""
    return (c.package if c.function is None else f"{c.package}:{c.function}" for c in chunks)

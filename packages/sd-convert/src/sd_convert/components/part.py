"""A component of one checkpoint: its kind, and what is known of it before it is built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sd_convert.checkpoint.checkpoint import Checkpoint
from sd_convert.checkpoint.weights import LazyWeights
from sd_convert.components.component import Component, PortDType, PortSpec
from sd_convert.components.metadata import Metadata, describe
from sd_convert.conversion.options import ConversionOptions
from sd_convert.errors import OptionsError
from sd_convert.facts import Facts, Section, Sizes, read_facts, section
from sd_convert.libraries import check_lowering

from .fit import fit_weights
from .kind import ComponentKind, Drawing

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Ports:
    """Inputs and outputs in order."""

    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A network as a checkpoint has it; ``variant`` is that of its weights."""

    kind: ComponentKind
    facts: Facts
    config: Section
    weights: LazyWeights
    variant: str

    @property
    def name(self) -> str:
        """The component's name."""
        return self.kind.name

    @property
    def architecture(self) -> dict[str, Any]:
        """What the network follows from beside sizes and weights, as JSON has it."""
        if self.kind.architecture is not None:
            return dict(self.kind.architecture(self.facts, self.config))
        facts = {key: value for key, value in asdict(self.facts).items() if key != "name"}
        return {
            "code": source_hash(self.kind.network),
            "facts": {**facts, "family": self.facts.family.name},
            "config": dict(self.config.values),
        }

    def canonical(self, name: str) -> str | None:
        """The name under which programs know a tensor of the checkpoint."""
        return self.kind.canonical(self.facts, name)

    @property
    def tensors(self) -> LazyWeights:
        """The weights under those names."""
        named = ((self.canonical(name), entry) for name, entry in self.weights.entries.items())
        return LazyWeights({name: entry for name, entry in named if name is not None})

    def ports(self, sizes: Sizes, dtype: PortDType) -> Ports:
        """The ports of a network of ``sizes`` that computes in ``dtype``: outputs are float32 in any case."""
        inputs, outputs = self.kind.shapes(self.facts, self.config, sizes)
        given = self.kind.inputs_as or dtype
        described = self.kind.descriptions
        return Ports(
            tuple(_port(name, shape, given, described) for name, shape in inputs.items()),
            tuple(_port(name, shape, "float32", described) for name, shape in outputs.items()),
        )

    def build(self, ports: Ports, metadata: Metadata) -> Component:
        """The network on the meta device, with weights that were held against its config.

        Raises:
            CheckpointError: the weights are missing, or contradict the config.
            UnsupportedArchitectureError: the config has a key or value that is not converted.
            OptionsError: a latent size that the network cannot take.
            MissingLibrariesError: torch is not installed.
        """
        check_lowering(self.name)
        network = self.kind.network(self.facts, self.config, tuple(port.name for port in ports.inputs))
        module = network.module.eval()
        weights = fit_weights(module, self.weights, rename=network.rename, where=self.config.where)
        return Component(
            name=self.name,
            module=module,
            inputs=ports.inputs,
            outputs=ports.outputs,
            weights=weights,
            rewrites_attention=self.kind.rewrites_attention,
            **metadata,
        )

    def metadata(self, options: ConversionOptions, notes: Mapping[str, str]) -> Metadata:
        """What its package says of it; ``notes`` are further metadata by key."""
        own = {**self.kind.notes(self.facts), **notes}
        return describe(
            self.facts, options, summary=self.kind.summary, notes=own, identifier=self.kind.identifier
        )

    def draw(self, inputs: Sequence[PortSpec], *, seed: int) -> dict[str, npt.NDArray[np.generic]]:
        """One array for each port, in its shape and dtype; equal seeds give equal arrays."""
        shapes = {port.name: port.shape for port in inputs}
        drawing = Drawing(np.random.default_rng(seed), self.facts, shapes)
        return {
            port.name: self.kind.draws.get(port.name, Drawing.noise)(drawing, port.shape).astype(port.dtype)
            for port in inputs
        }


def chosen_parts(
    checkpoint: Checkpoint, options: ConversionOptions, kinds: Iterable[ComponentKind]
) -> tuple[Part, ...]:
    """The components to convert, in the usual order.

    Raises:
        OptionsError: one that the checkpoint was not opened with, or that is of none of ``kinds``.
    """
    kinds, asked = tuple(kinds), options.components or checkpoint.components
    _check_named(options, [kind.name for kind in kinds])
    for name in asked:
        if name not in checkpoint.networks:
            raise OptionsError(
                f"components: expected those of {checkpoint.name} as opened "
                f"({', '.join(checkpoint.components)}), got {name!r}"
            )
    if not asked:
        raise OptionsError(f"components: expected at least one in {checkpoint.name}, got none")
    chosen = [kind_named(name, kinds) for name in checkpoint.components if name in asked]
    facts = read_facts(checkpoint)
    return tuple(part_of(kind, checkpoint, facts) for kind in chosen)


def _check_named(options: ConversionOptions, known: Sequence[str]) -> None:
    """Refuse options for a component that there is not, which would have no effect."""
    for name in (entry.rpartition("=")[0] for entry in options.compute_precision):
        if name not in ("", *known):
            raise OptionsError(f"compute_precision: expected one of {', '.join(known)}, got {name!r}")


def part_of(kind: ComponentKind, checkpoint: Checkpoint, facts: Facts | None = None) -> Part:
    """The component of that kind; errors as :func:`sd_convert.facts.read_facts`."""
    return Part(
        kind=kind,
        facts=read_facts(checkpoint) if facts is None else facts,
        config=section(checkpoint, kind.folder),
        weights=checkpoint.weights(kind.name),
        variant=checkpoint.variants[kind.folder],
    )


def kind_named(name: str, kinds: Iterable[ComponentKind]) -> ComponentKind:
    """The kind called ``name``.

    Raises:
        OptionsError: there is none.
    """
    known = {kind.name: kind for kind in kinds}
    if name not in known:
        raise OptionsError(f"components: expected one of {', '.join(known)}, got {name!r}")
    return known[name]


def source_hash(function: Callable[..., Any]) -> str:
    """The sha256 of the file that has the code of ``function``.

    Raises:
        OptionsError: there is none, as of what was typed in: nothing tells when it changes.
    """
    code = getattr(function.func if isinstance(function, partial) else function, "__code__", None)
    if code is None or not Path(code.co_filename).is_file():
        raise OptionsError(f"{function}: expected a function of a file, so that its programs can be kept")
    return hashlib.sha256(Path(code.co_filename).read_bytes()).hexdigest()


def _port(name: str, shape: tuple[int, ...], dtype: PortDType, descriptions: Mapping[str, str]) -> PortSpec:
    return PortSpec(name, shape, dtype, descriptions.get(name, "").format(shape=shape))

"""Whether a bundle still computes what its checkpoint computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from sd_bundle import Bundle, BundleComponent, Variant, open_bundle
from sd_mil import MLModel, psnr
from sd_mil.engines import Engine

from .checkpoint.checkpoint import Checkpoint
from .components import KINDS, ComponentKind, Part, Ports, part_of
from .components.component import Component
from .conversion.bundle import model_facts
from .conversion.options import ConversionOptions, check_components
from .errors import OptionsError, VerificationError
from .facts import Facts, chosen_sizes, read_facts, stated_sizes
from .libraries import check_libraries

#: Apple's threshold for a sound conversion (``report_correctness`` in torch2coreml.py).
MIN_PSNR: Final = 35.0

Arrays = Mapping[str, npt.NDArray[np.generic]]
_Precision = Literal["fp32", "bf16"] | None


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """One output of one component: PSNR against torch in dB, the largest error, seconds of the prediction.

    ``size``: that of the picture (``768x512``), of a component that has a network for each of several;
    ``form`` likewise (``batch 1, 77 tokens``).
    """

    component: str
    output: str
    psnr: float
    max_error: float
    seconds: float
    size: str | None = None
    form: str | None = None


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All outputs that were compared; ``arithmetic`` says what computed the bundle's side."""

    bundle: Path
    checkpoint: str
    min_psnr: float
    arithmetic: str
    rows: tuple[OutputFidelity, ...]

    @property
    def passed(self) -> bool:
        """Whether every output reaches ``min_psnr``."""
        return all(row.psnr >= self.min_psnr for row in self.rows)


def verify(
    bundle: str | Path,
    checkpoint: Checkpoint,
    *,
    min_psnr: float = MIN_PSNR,
    engine: str | Engine = "portable",
    precision: _Precision = None,
    components: Collection[str] | None = None,
    seed: int = 0,
    progress: Callable[[OutputFidelity], None] | None = None,
    kinds: Iterable[ComponentKind] = KINDS,
) -> VerificationReport:
    """Run every component of the bundle, and the checkpoint's own network in torch (fp32), on equal inputs.

    The network is the one that diffusers and transformers define, with nothing rewritten, in each size that
    the manifest states; of one in chunks the whole chain is run. One network or chunk is in memory at a time.
    The inputs are those of :func:`sd_convert.sample_inputs`. ``kinds``: those that the bundle was made with.

    Raises:
        VerificationError: the two do not have the same components or ports, so there is nothing to compare.
        CheckpointError, UnsupportedArchitectureError: see ``sd_convert.errors``.
        MissingLibrariesError: torch is not installed.
        sd_bundle.BundleError: the bundle is damaged; every file is held against its sha256.
        sd_mil.SdMilError: a package is malformed, or the engine cannot run it.
    """
    opened = open_bundle(bundle)
    opened.check_integrity()
    check_libraries("comparing with the checkpoint's own network")
    rows: list[OutputFidelity] = []
    arithmetic = ""
    for network in _networks(opened, checkpoint, components, tuple(kinds)):
        inputs, expected = network.in_torch(seed)
        got = network.predict(inputs, engine, precision)
        arithmetic = got.arithmetic
        for row in _compare(network, expected, got):
            rows.append(row)
            if progress is not None:
                progress(row)
    return VerificationReport(Path(bundle), checkpoint.name, min_psnr, arithmetic, tuple(rows))


@dataclass(frozen=True, slots=True)
class _Predicted:
    """Outputs of the bundle's side, the seconds of predicting them, and what computed them."""

    outputs: Arrays
    seconds: float
    arithmetic: str


@dataclass(frozen=True, slots=True)
class _Network:
    """A network of the bundle, and the checkpoint's component that it was made of."""

    bundle: Bundle
    entry: BundleComponent
    variant: Variant
    part: Part

    def in_torch(self, seed: int) -> tuple[Arrays, Arrays]:
        """Inputs, and what torch makes of them; its weights are gone before the engine loads its own."""
        component = self.part.build(self._ports(), self.part.metadata(ConversionOptions(), {}))
        inputs = self.part.draw(component.inputs, seed=seed)
        expected = _run_torch(component, inputs)
        component.module.to("meta")
        return inputs, expected

    def _ports(self) -> Ports:
        """The checkpoint's ports in the sizes, and with the dtypes, that the manifest states."""
        try:
            sizes = stated_sizes(self.part.facts, self.bundle.manifest.model, self.variant)
        except OptionsError as error:
            raise self._strange(str(error)) from error
        ports = self.part.ports(sizes, "float16")
        sides = ((ports.inputs, self.variant.inputs), (ports.outputs, self.variant.outputs))
        for ours, theirs in sides:
            expected = {port.name: port.shape for port in ours}
            got = {port.name: port.shape for port in theirs}
            if expected != got:
                raise self._strange(f"expected the ports {expected} of {self.part.facts.name}, got {got}")
        stated: dict[str, Any] = {port.name: port.dtype for port in self.variant.inputs}
        inputs = tuple(dataclasses.replace(port, dtype=stated[port.name]) for port in ports.inputs)
        return Ports(inputs, ports.outputs)

    def _strange(self, reason: str) -> VerificationError:
        made = "the bundle was made from another checkpoint"
        return VerificationError(f"{self.bundle.path}: {self.entry.name}: {reason}: {made}")

    def predict(self, inputs: Arrays, engine: str | Engine, precision: _Precision) -> _Predicted:
        """Run the chunks in their order, each fed by name from inputs and earlier chunks."""
        values, seconds, arithmetic = dict(inputs), 0.0, ""
        for chunk in self.variant.chunks:
            with self.bundle.unchanged(chunk.package):
                package = self.bundle.checked_folder(chunk.package)
                model = MLModel(package, engine, precision=precision, function_name=chunk.function)
            given = {port.name: values[port.name].astype(port.dtype) for port in chunk.inputs}
            began = perf_counter()
            values |= model.predict(given)
            seconds += perf_counter() - began
            arithmetic = model.arithmetic
        return _Predicted(
            {port.name: values[port.name] for port in self.variant.outputs}, seconds, arithmetic
        )


def _networks(
    bundle: Bundle,
    checkpoint: Checkpoint,
    asked: Collection[str] | None,
    kinds: tuple[ComponentKind, ...],
) -> Iterator[_Network]:
    known = {kind.name: kind for kind in kinds}
    if asked is not None:
        check_components(tuple(asked), tuple(known))
    entries = tuple(bundle.component(name) for name in asked or (c.name for c in bundle.manifest.components))
    for entry in entries:
        if entry.name not in known or entry.name not in checkpoint.networks:
            raise VerificationError(
                f"{bundle.path}: expected components of {checkpoint.name} as opened "
                f"({', '.join(checkpoint.components)}), got {entry.name}"
            )
    if not entries:
        raise VerificationError(f"{bundle.path}: expected at least one component to compare, got none")
    facts = read_facts(checkpoint)
    _check_facts(bundle, facts)
    for entry in entries:
        part = part_of(known[entry.name], checkpoint, facts)
        yield from (_Network(bundle, entry, variant, part) for variant in entry.variants)


def _check_facts(bundle: Bundle, facts: Facts) -> None:
    """Refuse a manifest that would have the right networks draw wrongly: epsilon taken for v, say."""
    stated = bundle.manifest.model
    names = tuple(component.name for component in bundle.manifest.components)
    meant = model_facts(facts, [chosen_sizes(facts, ConversionOptions())], stated.identifier, names)
    for field in dataclasses.fields(stated):
        ours, theirs = getattr(meant, field.name), getattr(stated, field.name)
        # each variant's size is held to the checkpoint's ports; a recipe is whoever's who converted it
        if field.name not in ("sizes", "recipe") and ours != theirs:
            raise VerificationError(
                f"{bundle.path}: expected the manifest's {field.name} to be {ours!r}, as {facts.name} has it,"
                f" got {theirs!r}: the bundle was made from another checkpoint, or with other options"
            )


def _run_torch(component: Component, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    import torch

    module = component.module
    names = list(module.state_dict())
    weights = {name: torch.from_numpy(np.array(component.weights[name], dtype=np.float32)) for name in names}
    module.load_state_dict(weights, assign=True)
    tensors = [torch.from_numpy(inputs[port.name].astype(np.float32)) for port in component.inputs]
    with torch.no_grad():
        outputs = module(*tensors)
    return {port.name: output.numpy() for port, output in zip(component.outputs, outputs, strict=True)}


def _compare(network: _Network, expected: Arrays, got: _Predicted) -> tuple[OutputFidelity, ...]:
    size, form = network.entry.told_apart(network.variant)
    return tuple(
        OutputFidelity(
            component=network.entry.name,
            output=name,
            psnr=psnr(array, got.outputs[name]),
            max_error=float(np.max(np.abs(array.astype(np.float64) - got.outputs[name].astype(np.float64)))),
            seconds=got.seconds,
            size=size,
            form=form,
        )
        for name, array in expected.items()
    )

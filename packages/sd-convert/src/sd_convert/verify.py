"""Whether a bundle still computes what its checkpoint computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from sd_bundle import Bundle, BundleComponent, open_bundle
from sd_mil import MLModel, psnr
from sd_mil.engines import Engine

from .checkpoint import Checkpoint
from .component import Component
from .components import build_component
from .errors import OptionsError, VerificationError
from .metadata import RESIDUAL
from .options import COMPONENTS, ConversionOptions, check_components
from .samples import sample_inputs

#: Apple's threshold for a sound conversion (``report_correctness`` in torch2coreml.py).
MIN_PSNR: Final = 35.0

Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """One output of one component: PSNR against torch in dB, the largest error, seconds of the prediction."""

    component: str
    output: str
    psnr: float
    max_error: float
    seconds: float


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
    precision: Literal["fp32", "bf16"] | None = None,
    components: Collection[str] | None = None,
    seed: int = 0,
    progress: Callable[[OutputFidelity], None] | None = None,
) -> VerificationReport:
    """Run every component of the bundle, and the checkpoint's own network in torch (fp32), on equal inputs.

    The network is the one that diffusers and transformers define, with nothing rewritten. One component is in
    memory at a time. The inputs are those of :func:`sd_convert.samples.sample_inputs`.

    Raises:
        VerificationError: the two do not have the same components or ports, so there is nothing to compare.
        CheckpointError, UnsupportedArchitectureError: see ``sd_convert.errors``.
        sd_bundle.BundleError: the bundle is damaged; every file is held against its sha256.
        sd_mil.SdMilError: a package is malformed, or the engine cannot run it.
    """
    opened = open_bundle(bundle)
    opened.check_integrity()
    rows: list[OutputFidelity] = []
    arithmetic = ""
    for entry in _chosen(opened, checkpoint, components):
        inputs, expected = _expected(entry, opened, checkpoint, seed=seed)
        with opened.unchanged(entry.package):
            model = MLModel(opened.package(entry), engine, precision=precision)
        arithmetic = model.arithmetic
        for row in _compare(entry.name, expected, model, inputs):
            rows.append(row)
            if progress is not None:
                progress(row)
    return VerificationReport(Path(bundle), checkpoint.name, min_psnr, arithmetic, tuple(rows))


def _chosen(
    bundle: Bundle, checkpoint: Checkpoint, asked: Collection[str] | None
) -> tuple[BundleComponent, ...]:
    if asked is not None:
        check_components(tuple(asked))
    entries = tuple(bundle.component(name) for name in asked or (c.name for c in bundle.manifest.components))
    for entry in entries:
        if entry.name not in COMPONENTS or entry.name not in checkpoint.components:
            raise VerificationError(
                f"{bundle.path}: expected components of {checkpoint.name} as opened "
                f"({', '.join(checkpoint.components)}), got {entry.name}"
            )
    if not entries:
        raise VerificationError(f"{bundle.path}: expected at least one component to compare, got none")
    return entries


def _rebuild(entry: BundleComponent, bundle: Bundle, checkpoint: Checkpoint) -> Component:
    """The checkpoint's own network behind the ports of the bundle."""
    try:
        component = build_component(entry.name, checkpoint, _options_of(bundle))
    except OptionsError as error:
        raise VerificationError(
            f"{bundle.path}: {entry.name}: {error}: the bundle was made from another checkpoint"
        ) from error
    for ours, theirs in ((component.inputs, entry.inputs), (component.outputs, entry.outputs)):
        expected = {port.name: port.shape for port in ours}
        got = {port.name: port.shape for port in theirs}
        if expected != got:
            raise VerificationError(
                f"{bundle.path}: {entry.name}: expected the ports {expected} of {checkpoint.name}, "
                f"got {got}: the bundle was made from another checkpoint"
            )
    dtypes: dict[str, Any] = {port.name: port.dtype for port in entry.inputs}
    inputs = tuple(dataclasses.replace(port, dtype=dtypes[port.name]) for port in component.inputs)
    return dataclasses.replace(component, inputs=inputs)


def _options_of(bundle: Bundle) -> ConversionOptions:
    """The options that gave the bundle's ports their shapes."""
    latent = bundle.manifest.model.latent
    ports = {port.name: port.shape for entry in bundle.manifest.components for port in entry.inputs}
    attended, ids = ports.get("encoder_hidden_states"), ports.get("input_ids")
    return ConversionOptions(
        latent_height=latent.height,
        latent_width=latent.width,
        text_token_sequence_length=attended[3] if attended else ids[1] if ids else None,
        unet_support_controlnet=any(name.startswith(RESIDUAL) for name in ports),
        unet_batch_one=ports.get("sample", ())[:1] == (1,),
    )


def _expected(
    entry: BundleComponent, bundle: Bundle, checkpoint: Checkpoint, *, seed: int
) -> tuple[Arrays, Arrays]:
    """Inputs, and what torch makes of them; its weights are gone before the engine loads its own."""
    component = _rebuild(entry, bundle, checkpoint)
    inputs = sample_inputs(component, checkpoint, seed=seed)
    expected = _run_torch(component, inputs)
    component.module.to("meta")
    return inputs, expected


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


def _compare(component: str, expected: Arrays, model: MLModel, inputs: Arrays) -> tuple[OutputFidelity, ...]:
    began = perf_counter()
    got = model.predict(inputs)
    seconds = perf_counter() - began
    return tuple(
        OutputFidelity(
            component=component,
            output=name,
            psnr=psnr(array, got[name]),
            max_error=float(np.max(np.abs(array.astype(np.float64) - got[name]))),
            seconds=seconds,
        )
        for name, array in expected.items()
    )

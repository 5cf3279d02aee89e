"""What a conversion would do, without writing anything: ports, sizes, file names, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .checkpoint import FOLDERS, Checkpoint
from .component import PortSpec
from .components import build_component
from .errors import OptionsError
from .facts import model_version, package_name
from .options import ConversionOptions

_FP16_BYTES: Final = 2

#: What torch, diffusers, transformers and coremltools take, measured with the SD 1.5 architecture (0.8 GB).
_LIBRARIES_MEMORY: Final = 800_000_000


@dataclass(frozen=True, slots=True)
class ComponentPlan:
    """One network: the package to be, its ports, and bytes of its weights in the checkpoint and there."""

    name: str
    package: str
    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]
    variant: str
    checkpoint_bytes: int
    package_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A conversion before it happens. ``memory_bytes`` is an estimate of the peak of the whole process."""

    model_version: str
    options: ConversionOptions
    components: tuple[ComponentPlan, ...]
    memory_bytes: int


def plan(checkpoint: Checkpoint, options: ConversionOptions | None = None) -> Plan:
    """What :func:`sd_convert.convert` would do with the same arguments; reads the headers of the weights.

    Raises: what ``convert`` raises for a checkpoint or options that it refuses.
    """
    options = options or ConversionOptions()
    names = chosen_components(checkpoint, options)
    components = tuple(_plan_component(checkpoint, options, name) for name in names)
    return Plan(
        model_version=model_version(checkpoint, options),
        options=options,
        components=components,
        memory_bytes=_estimate_memory(checkpoint, names),
    )


def _estimate_memory(checkpoint: Checkpoint, names: tuple[str, ...]) -> int:
    """The libraries, and the largest tensor twice: as it is read and as it is written, one after another."""
    largest = max(entry.bytes for name in names for entry in checkpoint.weights(name).entries.values())
    return _LIBRARIES_MEMORY + 2 * largest


def chosen_components(checkpoint: Checkpoint, options: ConversionOptions) -> tuple[str, ...]:
    """The components to convert, in the usual order.

    Raises:
        OptionsError: one was asked for that the checkpoint was not opened with.
    """
    asked = options.components or checkpoint.components
    for name in asked:
        if name not in checkpoint.components:
            raise OptionsError(
                f"components: expected those of {checkpoint.name} as opened "
                f"({', '.join(checkpoint.components)}), got {name!r}"
            )
    return tuple(name for name in checkpoint.components if name in asked)


def _plan_component(checkpoint: Checkpoint, options: ConversionOptions, name: str) -> ComponentPlan:
    component = build_component(name, checkpoint, options)
    parameters = sum(tensor.numel() for tensor in component.module.state_dict().values())
    return ComponentPlan(
        name=name,
        package=package_name(model_version(checkpoint, options), name),
        inputs=component.inputs,
        outputs=component.outputs,
        variant=checkpoint.variants[FOLDERS[name]],
        checkpoint_bytes=component.weights.bytes,
        package_bytes=parameters * _FP16_BYTES,
    )

"""What a conversion would do, without writing anything: ports, sizes, file names, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .cache import ConversionCache
from .checkpoint import FOLDERS, Checkpoint
from .component import Component, PortSpec
from .components import build_component
from .errors import OptionsError
from .facts import model_version, package_name
from .lowered import LoweredComponent
from .options import ConversionOptions
from .precision import Precision, known_precision
from .programs import Programs, in_precision

#: Bytes that torch, diffusers, transformers and coremltools take with the graph of a UNet (measured: 1.1 GB
#: for SD 1.5, 1.2 GB for SDXL), and what Python takes where none of them is needed.
_LIBRARIES_MEMORY: Final = 1_150_000_000
_PYTHON_MEMORY: Final = 70_000_000


@dataclass(frozen=True, slots=True)
class ComponentPlan:
    """One network: the package to be, its ports, and bytes of its weights in the checkpoint and there.

    ``precision``: float16, float32, or None where a check will tell (``package_bytes`` is then for float16).
    ``is_reused``: whether the cache has its program.
    """

    name: str
    package: str
    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]
    variant: str
    checkpoint_bytes: int
    package_bytes: int
    precision: str | None
    is_reused: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A conversion before it happens.

    ``memory_bytes`` estimates the peak of the whole process; ``disk_bytes`` is what the packages will take.
    """

    model_version: str
    options: ConversionOptions
    components: tuple[ComponentPlan, ...]
    memory_bytes: int
    disk_bytes: int


def plan(
    checkpoint: Checkpoint, options: ConversionOptions | None = None, *, cache: ConversionCache | None = None
) -> Plan:
    """What :func:`sd_convert.convert` would do with the same arguments; reads the headers of the weights.

    Components whose programs are in ``cache`` are planned without importing torch.

    Raises: what ``convert`` raises for a checkpoint or options that it refuses.
    """
    options = options or ConversionOptions()
    names = chosen_components(checkpoint, options)
    programs = Programs(checkpoint, options, cache)
    components = tuple(_plan_component(programs, name) for name in names)
    return Plan(
        model_version=model_version(checkpoint, options),
        options=options,
        components=components,
        memory_bytes=_estimate_memory(checkpoint, components),
        disk_bytes=sum(component.package_bytes for component in components),
    )


def _estimate_memory(checkpoint: Checkpoint, components: tuple[ComponentPlan, ...]) -> int:
    """The libraries, and the largest tensor twice: as it is read and as it is written, one after another."""
    tensors = (entry for part in components for entry in checkpoint.weights(part.name).entries.values())
    largest = max(entry.bytes for entry in tensors)
    is_light = all(component.is_reused for component in components)
    return (_PYTHON_MEMORY if is_light else _LIBRARIES_MEMORY) + 2 * largest


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


def _plan_component(programs: Programs, name: str) -> ComponentPlan:
    checkpoint, options = programs.checkpoint, programs.options
    cached = programs.cached(name)
    precision = known_precision(name, checkpoint, options, programs.cache)
    component = (
        cached.lowered if cached else in_precision(build_component(name, checkpoint, options), precision)
    )
    return ComponentPlan(
        name=name,
        package=package_name(model_version(checkpoint, options), name),
        inputs=component.inputs,
        outputs=component.outputs,
        variant=checkpoint.variants[FOLDERS[name]],
        checkpoint_bytes=checkpoint.weights(name).bytes,
        package_bytes=_package_bytes(component, precision),
        precision=None if precision is None else precision.dtype,
        is_reused=cached is not None,
    )


def _package_bytes(component: Component | LoweredComponent, precision: Precision | None) -> int:
    if isinstance(component, LoweredComponent):
        return component.weight_bytes
    parameters: int = sum(tensor.numel() for tensor in component.module.state_dict().values())
    return parameters * (4 if precision is not None and precision.dtype == "float32" else 2)

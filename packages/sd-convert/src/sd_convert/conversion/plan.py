"""What a conversion would do, without writing anything: ports, sizes, file names, memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sd_convert.checkpoint.checkpoint import Checkpoint
from sd_convert.components import KINDS, ComponentKind, Part, Ports, chosen_parts
from sd_convert.components.component import PortSpec
from sd_convert.components.metadata import model_version
from sd_convert.facts import chosen_sizes

from .cache import ConversionCache
from .options import ConversionOptions
from .precision import Precision
from .programs import Programs

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
    checkpoint: Checkpoint,
    options: ConversionOptions | None = None,
    *,
    cache: ConversionCache | None = None,
    kinds: Iterable[ComponentKind] = KINDS,
) -> Plan:
    """What :func:`sd_convert.convert` would do with the same arguments; reads the headers of the weights.

    Components whose programs are in ``cache`` are planned without importing torch.

    Raises: what ``convert`` raises for a checkpoint or options that it refuses.
    """
    options = options or ConversionOptions()
    parts = chosen_parts(checkpoint, options, kinds)
    programs = Programs(chosen_sizes(parts[0].facts, options), options, cache)
    components = tuple(_plan_component(programs, part) for part in parts)
    return Plan(
        model_version=model_version(parts[0].facts, options),
        options=options,
        components=components,
        memory_bytes=_estimate_memory(parts, is_light=all(part.is_reused for part in components)),
        disk_bytes=sum(component.package_bytes for component in components),
    )


def _estimate_memory(parts: tuple[Part, ...], *, is_light: bool) -> int:
    """The libraries, and the largest tensor twice: as it is read and as it is written, one after another."""
    largest = max(entry.bytes for part in parts for entry in part.weights.entries.values())
    return (_PYTHON_MEMORY if is_light else _LIBRARIES_MEMORY) + 2 * largest


def _plan_component(programs: Programs, part: Part) -> ComponentPlan:
    wanted = programs.wanted(part)
    cached, precision = programs.kept(wanted), wanted.precision
    ports = programs.ports(part, precision or Precision("float16"))
    return ComponentPlan(
        name=part.name,
        package=part.kind.package_of(model_version(part.facts, programs.options), programs.sizes),
        inputs=ports.inputs,
        outputs=ports.outputs,
        variant=part.variant,
        checkpoint_bytes=part.weights.bytes,
        package_bytes=cached.program.weight_bytes
        if cached
        else _package_bytes(programs, part, ports, precision),
        precision=None if precision is None else precision.dtype,
        is_reused=cached is not None,
    )


def _package_bytes(programs: Programs, part: Part, ports: Ports, precision: Precision | None) -> int:
    """That of the network's parameters, which is built for it, so that what is refused is refused now."""
    component = part.build(ports, part.metadata(programs.options, {}))
    parameters: int = sum(tensor.numel() for tensor in component.module.state_dict().values())
    return parameters * (4 if precision is not None and precision.dtype == "float32" else 2)

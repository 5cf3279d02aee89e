"""What a conversion would do, without writing anything: ports, sizes, file names, memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from sd_convert.checkpoint.checkpoint import Checkpoint
from sd_convert.components import KINDS, ComponentKind, Part, Ports, chosen_parts
from sd_convert.components.component import PortSpec
from sd_convert.components.metadata import model_version
from sd_convert.facts import every_size

from .bundle import bundle_component
from .cache import ConversionCache
from .every_size import EverySize, image_size
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
    ``is_reused``: whether the cache has its program. ``size``: that of the picture, where there are several,
    and ``form`` likewise (``batch 1, 77 tokens``); ``package_bytes`` is 0 for those whose weights are the
    first one's.
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
    size: str | None = None
    form: str | None = None


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
    facts = parts[0].facts
    every = EverySize(tuple(Programs(one, options, cache) for one in every_size(facts, options)))
    components = tuple(one for part in parts for one in _plan_sizes(every, part))
    return Plan(
        model_version=model_version(facts, options),
        options=options,
        components=components,
        memory_bytes=_estimate_memory(parts, is_light=all(part.is_reused for part in components)),
        disk_bytes=sum(component.package_bytes for component in components),
    )


def _estimate_memory(parts: tuple[Part, ...], *, is_light: bool) -> int:
    """The libraries, and the largest tensor twice: as it is read and as it is written, one after another."""
    largest = max(entry.bytes for part in parts for entry in part.weights.entries.values())
    return (_PYTHON_MEMORY if is_light else _LIBRARIES_MEMORY) + 2 * largest


def _plan_sizes(every: EverySize, part: Part) -> Iterator[ComponentPlan]:
    """The component in each of its sizes, in the packages that they will have."""
    several = every.of(part)
    planned = [_plan_component(one, part) for one in several]
    if len(several) == 1:
        yield from planned
        return
    images = (image_size(part.facts, one.sizes) for one in several)
    ports = (Ports(one.inputs, one.outputs) for one in planned)
    places = every.places(part)
    entry = bundle_component(part.kind, zip(images, places, ports, strict=True), every.first.options)
    for index, (variant, one) in enumerate(zip(entry.variants, planned, strict=True)):
        taken, (size, form) = 0 if index else one.package_bytes, entry.told_apart(variant)
        package = variant.chunks[0].package
        yield replace(one, package=package, size=size, form=form, package_bytes=taken)


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

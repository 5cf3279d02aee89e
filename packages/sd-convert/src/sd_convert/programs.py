"""Where a conversion gets its programs: from the cache, or lowered anew and put there."""

from __future__ import annotations

import os
from dataclasses import astuple, dataclass
from typing import cast

from .cache import ConversionCache, entry_key
from .components import Part, Ports
from .components.fit import FittedWeights
from .facts import Sizes
from .lowered import LoweredComponent, PackedComponent
from .memory import collect
from .options import ConversionOptions
from .precision import Precision, check_precision, known_precision


@dataclass(frozen=True, slots=True)
class Wanted:
    """A component of which a program is wanted.

    ``precision``: None where a check will tell. ``key``: the entry that the cache has for it, or None.
    """

    part: Part
    precision: Precision | None
    key: str | None


@dataclass(frozen=True, slots=True)
class PreparedComponent:
    """A component's program, the precision that it is for, and the ports that go with it."""

    program: LoweredComponent | PackedComponent
    precision: Precision
    ports: Ports

    @property
    def is_cached(self) -> bool:
        """Whether both came from the cache."""
        return isinstance(self.program, PackedComponent)


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one conversion: of components of these ``sizes``."""

    sizes: Sizes
    options: ConversionOptions
    cache: ConversionCache | None

    def wanted(self, part: Part) -> Wanted:
        """The component, and what is known of it; its cached program may be damaged, or for other weights."""
        precision = known_precision(part, self.sizes, self.options, self.cache)
        if precision is None or self.cache is None:
            return Wanted(part, precision, None)
        key = self._key(part, precision)
        return Wanted(part, precision, key if self.cache.has(key) else None)

    def prepared(self, wanted: Wanted) -> PreparedComponent:
        """The component's program, from the cache or made anew."""
        return self.cached(wanted) or self.lowered(wanted)

    def cached(self, wanted: Wanted) -> PreparedComponent | None:
        """The component's program, if that takes neither torch nor coremltools."""
        if self.cache is None or wanted.key is None or wanted.precision is None:
            return None
        found = self.cache.component(wanted.key, wanted.part.weights)
        ports = self.ports(wanted.part, wanted.precision)
        return None if found is None else PreparedComponent(found, wanted.precision, ports)

    def lowered(self, wanted: Wanted) -> PreparedComponent:
        """The component's program, made anew, and kept.

        Raises: see :func:`sd_convert.convert`.
        """
        from .write import lower_component

        part = wanted.part
        precision = wanted.precision or check_precision(part, self.sizes, self.options, self.cache)
        ports = self.ports(part, precision)
        component = part.build(ports, part.metadata(self.options, precision.notes))
        lowered = lower_component(
            component,
            attention=self.options.attention_implementation,
            compute_unit=self.options.resolved_compute_unit,
            target=self.options.target,
            precision=precision.dtype,
        )
        if self.cache is not None:
            names = cast(FittedWeights, component.weights).names
            self.cache.keep(self._key(part, precision), lowered, names)
        collect()
        return PreparedComponent(lowered, precision, ports)

    def ports(self, part: Part, precision: Precision) -> Ports:
        """The component's ports in that precision."""
        return part.ports(self.sizes, precision.dtype)

    def _key(self, part: Part, precision: Precision) -> str:
        """Of everything that a program follows from, but the elements of its weights."""
        ports = self.ports(part, precision)
        facts = {
            "origin": part.origin,
            "ports": [[astuple(port) for port in side] for side in (ports.inputs, ports.outputs)],
            "metadata": part.metadata(self.options, precision.notes),
            "attention": self.options.attention_implementation if part.kind.rewrites_attention else None,
            "target": self.options.target,
            "precision": precision.dtype,
            "tensors": [(key, tensor.dtype, tensor.shape) for key, tensor in part.weights.entries.items()],
            "date": os.environ.get("SOURCE_DATE_EPOCH"),
        }
        return entry_key("program", facts)

"""Where a conversion gets its programs: from the cache, or lowered anew and put there."""

from __future__ import annotations

import os
from dataclasses import astuple, dataclass
from typing import cast

from .cache import ConversionCache, entry_key
from .component import Component
from .components import Part, Ports
from .components.fit import FittedWeights
from .facts import Sizes
from .lowered import LoweredComponent
from .memory import collect
from .metadata import Metadata
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
    """A component's program, the precision that it is for, and whether both came from the cache."""

    lowered: LoweredComponent
    precision: Precision
    is_cached: bool


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
        return None if found is None else PreparedComponent(found, wanted.precision, is_cached=True)

    def lowered(self, wanted: Wanted) -> PreparedComponent:
        """The component's program, made anew, and kept.

        Raises: see :func:`sd_convert.convert`.
        """
        from .write import lower_component

        part = wanted.part
        precision = wanted.precision or check_precision(part, self.sizes, self.options, self.cache)
        component = self.component(part, precision)
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
        return PreparedComponent(lowered, precision, is_cached=False)

    def component(self, part: Part, precision: Precision | None) -> Component:
        """The network in a precision; in float16 where that is not known."""
        return part.build(*self._said(part, precision or Precision("float16")))

    def _said(self, part: Part, precision: Precision) -> tuple[Ports, Metadata]:
        return part.ports(self.sizes, precision.dtype), part.metadata(self.options, precision.notes)

    def _key(self, part: Part, precision: Precision) -> str:
        """Of everything that a program follows from, but the elements of its weights."""
        ports, metadata = self._said(part, precision)
        facts = {
            "origin": part.origin,
            "ports": [[astuple(port) for port in side] for side in (ports.inputs, ports.outputs)],
            "metadata": metadata,
            "attention": self.options.attention_implementation if part.kind.rewrites_attention else None,
            "target": self.options.target,
            "precision": precision.dtype,
            "tensors": [(key, tensor.dtype, tensor.shape) for key, tensor in part.weights.entries.items()],
            "date": os.environ.get("SOURCE_DATE_EPOCH"),
        }
        return entry_key("program", facts)

"""Where a conversion gets its programs: from the cache, or lowered anew and put there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

from .cache import ConversionCache, program_key
from .checkpoint import Checkpoint
from .component import Component
from .components import build_component
from .components.fit import FittedWeights
from .lowered import LoweredComponent
from .memory import collect
from .options import ConversionOptions
from .precision import Precision, check_precision, known_precision


@dataclass(frozen=True, slots=True)
class PreparedComponent:
    """A component's program, the precision that it is for, and whether both came from the cache."""

    lowered: LoweredComponent
    precision: Precision
    is_cached: bool


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one conversion."""

    checkpoint: Checkpoint
    options: ConversionOptions
    cache: ConversionCache | None

    def has(self, name: str) -> bool:
        """Whether the cache has the component's program; it may still be damaged, or for other weights."""
        precision = known_precision(name, self.checkpoint, self.options, self.cache)
        return precision is not None and self.cache is not None and self.cache.has(self._key(name, precision))

    def prepared(self, name: str) -> PreparedComponent:
        """The component's program, from the cache or made anew."""
        return self.cached(name) or self.lowered(name)

    def cached(self, name: str) -> PreparedComponent | None:
        """The component's program, if that takes neither torch nor coremltools."""
        precision = known_precision(name, self.checkpoint, self.options, self.cache)
        if precision is None or self.cache is None:
            return None
        found = self.cache.component(self._key(name, precision), self.checkpoint.weights(name))
        return None if found is None else PreparedComponent(found, precision, is_cached=True)

    def lowered(self, name: str) -> PreparedComponent:
        """The component's program, made anew, and kept.

        Raises: see :func:`sd_convert.convert`.
        """
        from .write import lower_component

        precision = known_precision(name, self.checkpoint, self.options, self.cache)
        precision = precision or check_precision(name, self.checkpoint, self.options, self.cache)
        component = in_precision(build_component(name, self.checkpoint, self.options), precision)
        lowered = lower_component(
            component,
            attention=self.options.attention_implementation,
            compute_unit=self.options.resolved_compute_unit,
            target=self.options.target,
            precision=precision.dtype,
        )
        if self.cache is not None:
            names = cast(FittedWeights, component.weights).names
            self.cache.keep(self._key(name, precision), lowered, names)
        collect()
        return PreparedComponent(lowered, precision, is_cached=False)

    def _key(self, name: str, precision: Precision) -> str:
        decided = {"precision": precision.dtype, "reason": precision.reason or ""}
        return program_key(self.checkpoint, self.options, name, self.checkpoint.weights(name), **decided)


def in_precision(component: Component, precision: Precision | None) -> Component:
    """The component in that precision: if it is float32, so are its inputs, and the metadata say why."""
    if precision is None or precision.dtype == "float16":
        return component
    said = {"compute_precision": precision.dtype}
    said |= {"compute_precision_reason": precision.reason} if precision.reason else {}
    return dataclasses.replace(
        component,
        inputs=tuple(dataclasses.replace(port, dtype="float32") for port in component.inputs),
        user_defined={**component.user_defined, **said},
    )

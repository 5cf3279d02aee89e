"""Where a conversion gets its blueprints: from the cache, or drawn anew and put there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

from .blueprint import Blueprint
from .cache import ConversionCache, blueprint_key
from .checkpoint import Checkpoint
from .component import Component
from .components import build_component
from .components.fit import FittedWeights
from .memory import collect
from .options import ConversionOptions
from .precision import Precision, check_precision, known_precision


@dataclass(frozen=True, slots=True)
class Drawn:
    """A blueprint, the precision that it is for, and whether both came from the cache."""

    blueprint: Blueprint
    precision: Precision
    is_reused: bool


@dataclass(frozen=True, slots=True)
class Blueprints:
    """The blueprints of one conversion."""

    checkpoint: Checkpoint
    options: ConversionOptions
    cache: ConversionCache | None

    def known(self, name: str) -> Drawn | None:
        """The component's blueprint, if that takes neither torch nor coremltools."""
        precision = known_precision(name, self.checkpoint, self.options, self.cache)
        if precision is None or self.cache is None:
            return None
        found = self.cache.blueprint(self._key(name, precision), self.checkpoint.weights(name))
        return None if found is None else Drawn(found, precision, is_reused=True)

    def drawn(self, name: str) -> Drawn:
        """The component's blueprint, made anew, and kept.

        Raises: see :func:`sd_convert.convert`.
        """
        from .write import draw

        precision = known_precision(name, self.checkpoint, self.options, self.cache)
        precision = precision or check_precision(name, self.checkpoint, self.options, self.cache)
        component = in_precision(build_component(name, self.checkpoint, self.options), precision)
        blueprint = draw(
            component,
            attention=self.options.attention_implementation,
            compute_unit=self.options.resolved_compute_unit,
            target=self.options.target,
            precision=precision.dtype,
        ).renamed(cast(FittedWeights, component.weights).names)
        if self.cache is not None:
            self.cache.keep(self._key(name, precision), blueprint)
        collect()
        return Drawn(blueprint, precision, is_reused=False)

    def _key(self, name: str, precision: Precision) -> str:
        decided = {"precision": precision.dtype, "reason": precision.reason or ""}
        return blueprint_key(self.checkpoint, self.options, name, self.checkpoint.weights(name), **decided)


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

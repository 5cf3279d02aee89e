"""Where a conversion gets its programs: from where they are kept, or lowered anew.

A program follows from the architecture, the sizes and the options, and from the names and shapes of tensors:
it is kept under the sha256 of these, and is good for any checkpoint that has the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from sd_mil import Description

from sd_convert.checkpoint.tensors import READABLE_DTYPES
from sd_convert.components import Part, Ports
from sd_convert.components.description import described
from sd_convert.components.fit import FittedWeights
from sd_convert.facts import Sizes
from sd_convert.targets import target_named

from .cache import ConversionCache
from .lowered import LoweredComponent, PackedComponent, pack, unpack
from .memory import collect
from .options import ConversionOptions
from .precision import (
    Precision,
    asked_precision,
    check_inputs,
    judge,
    known_precision,
    reduced,
    remember_precision,
)
from .stores import SHIPPED, ProgramStore

#: What a checked program computes in: only then does one overflow not hide the next.
_CHECKED_IN: Final = Precision("float32")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A component of which a program is wanted.

    ``precision``: None where a check will tell. ``is_kept``: whether it takes neither torch nor coremltools.
    """

    part: Part
    precision: Precision | None
    is_kept: bool


@dataclass(frozen=True, slots=True)
class PreparedComponent:
    """A component's program, the precision that it is for, and the ports that go with it.

    ``kept``: the program without weights, by its key, and that of the check of the precision if any.
    ``origin``: the title of the place where it was kept, None for a new one.
    """

    program: LoweredComponent | PackedComponent
    precision: Precision
    ports: Ports
    kept: Mapping[str, bytes]
    origin: str | None

    @property
    def is_cached(self) -> bool:
        """Whether it was kept."""
        return self.origin is not None


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one conversion: of components of these ``sizes``.

    ``stores``: where they are looked for before they are lowered, beside ``cache`` and this package.
    """

    sizes: Sizes
    options: ConversionOptions
    cache: ConversionCache | None
    stores: tuple[ProgramStore, ...] = ()
    checks: dict[str, Mapping[str, bytes]] = field(default_factory=dict)

    def wanted(self, part: Part) -> Wanted:
        """The component, and what is known of it."""
        precision = known_precision(part, self.sizes, self.options, self.cache)
        wanted = Wanted(part, precision, is_kept=False)
        return replace(wanted, is_kept=self.kept(wanted) is not None)

    def prepared(self, wanted: Wanted) -> PreparedComponent:
        """The component's program, kept or made anew; the precision is checked if that is not known."""
        part = wanted.part
        precision = wanted.precision or self.checked(part)
        self._remember_check(part)
        return self._found(part, precision) or self._lowered(part, precision)

    def _remember_check(self, part: Part) -> None:
        """A check whose outcome was known goes with the component, too: bundles are equal to those before."""
        if part.name not in self.checks and asked_precision(self.options, part.kind) == "auto":
            check = self._for_check()._found(part, _CHECKED_IN)
            if check is not None:
                self.checks[part.name] = check.kept

    def kept(self, wanted: Wanted) -> PreparedComponent | None:
        """The component's program, if it was kept; of one to be checked, if its check was kept too."""
        part = wanted.part
        if wanted.precision is None and self._for_check()._found(part, _CHECKED_IN) is None:
            return None
        return self._found(part, wanted.precision or Precision("float16"))

    def checked(self, part: Part) -> Precision:
        """The precision that a component's numbers fit into: its program is run, and what comes out is kept.

        Raises: see :func:`sd_convert.conversion.convert`.
        """
        check = self._for_check()
        prepared = check._found(part, _CHECKED_IN) or check._lowered(part, _CHECKED_IN)
        self.checks[part.name] = prepared.kept
        program = prepared.program.lowered().program
        found = judge(part, program, check_inputs(part, prepared.ports.inputs))
        remember_precision(part, self.sizes, self.options, self.cache, found)
        collect()
        return found

    def reopened(self, part: Part, prepared: PreparedComponent) -> PackedComponent:
        """The component as it is kept: its weights have the names that all conversions have for them."""
        precision = prepared.precision
        content = prepared.kept[key_of(self.architecture(part, precision))]
        return unpack(content, part.tensors, self._description(part, precision))

    def made_anew(self, part: Part, precision: Precision) -> Mapping[str, bytes]:
        """The component's program without weights, by its key, whether it was kept or not."""
        return self._lowered(part, precision).kept

    def ports(self, part: Part, precision: Precision) -> Ports:
        """The component's ports in that precision."""
        return part.ports(self.sizes, precision.dtype)

    def architecture(self, part: Part, precision: Precision) -> dict[str, Any]:
        """Everything that a program follows from, but the elements of its weights."""
        ports, target = self.ports(part, precision), target_named(self.options.target)
        tensors = part.tensors
        attention = self.options.attention_implementation if part.kind.rewrites_attention else None
        facts = {
            "component": part.name,
            "config": part.architecture,
            "inputs": {port.name: [port.dtype, *port.shape] for port in ports.inputs},
            "outputs": {port.name: [port.dtype, *port.shape] for port in ports.outputs},
            "attention": attention,
            "compute_unit": self.options.resolved_compute_unit if attention == "AUTO" else None,
            "opset": target.opset,
            "precision": precision.dtype,
            "tensors": {name: list(tensors.shape(name)) for name in sorted(tensors)},
        }
        return cast("dict[str, Any]", json.loads(json.dumps(facts, default=dict)))

    def _for_check(self) -> Programs:
        return replace(self, sizes=reduced(self.sizes))

    def _found(self, part: Part, precision: Precision) -> PreparedComponent | None:
        if any(entry.dtype not in READABLE_DTYPES for entry in part.tensors.entries.values()):
            return None  # the network is built to say so
        key = key_of(self.architecture(part, precision))
        for store in self._stores():
            content = store.find(key)
            program = None if content is None else _opened(content, part, self._description(part, precision))
            if content is not None and program is not None:
                kept = {**self.checks.get(part.name, {}), key: content}
                return PreparedComponent(program, precision, self.ports(part, precision), kept, store.title)
        return None

    def _stores(self) -> tuple[ProgramStore, ...]:
        own = () if self.cache is None else (self.cache,)
        return (*self.stores, *own, SHIPPED)

    def _description(self, part: Part, precision: Precision) -> Description:
        ports = self.ports(part, precision)
        return described(ports.inputs, ports.outputs, part.metadata(self.options, precision.notes))

    def _lowered(self, part: Part, precision: Precision) -> PreparedComponent:
        """The component's program, made anew, and kept."""
        from .write import lower_component

        ports = self.ports(part, precision)
        component = part.build(ports, part.metadata(self.options, precision.notes))
        lowered = lower_component(
            component,
            attention=self.options.attention_implementation,
            compute_unit=self.options.resolved_compute_unit,
            target=self.options.target,
            precision=precision.dtype,
        )
        architecture = self.architecture(part, precision)
        names = cast(FittedWeights, component.weights).names
        content = pack(lowered, lambda name: part.canonical(names[name]) or name, architecture)
        key = key_of(architecture)
        if self.cache is not None:
            self.cache.keep(key, content)
        collect()
        kept = {**self.checks.get(part.name, {}), key: content}
        return PreparedComponent(lowered, precision, ports, kept, None)


def key_of(architecture: Mapping[str, Any]) -> str:
    """The sha256 under which a program of that architecture is kept."""
    return hashlib.sha256(json.dumps(architecture, sort_keys=True).encode()).hexdigest()


def _opened(content: bytes, part: Part, description: Description) -> PackedComponent | None:
    """The component, if it is one and good for these weights."""
    tensors = part.tensors
    try:
        found = unpack(content, tensors, description)
    except (ValueError, KeyError):
        return None
    return found if found.fits(tensors) else None

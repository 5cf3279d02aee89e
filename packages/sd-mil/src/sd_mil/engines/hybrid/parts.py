"""What a program that a backend does not run alone is made of, ready to run.

Values are arrays in the types they are computed in (floats as fp32), lists, and cells of states, by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from sd_mil.engines.protocol import CompiledProgram
from sd_mil.engines.reference import CompiledBlock
from sd_mil.errors import PackageError
from sd_mil.ir.limits import check_iterations

Values: TypeAlias = "dict[str, Any]"


class Part(Protocol):
    """Takes values by name and gives others."""

    @property
    def uses(self) -> frozenset[str]:
        """The names of the values that it needs."""
        ...

    @property
    def in_numpy(self) -> frozenset[str]:
        """The types of the operations that numpy executes."""
        ...

    @property
    def arithmetic(self) -> tuple[str, ...]:
        """What its compiled operations are computed with, each once."""
        ...

    def run(self, values: Values) -> Values:
        """The results, from values that hold at least ``uses``."""
        ...


@dataclass(frozen=True, slots=True)
class NativePart:
    """A segment that the backend runs."""

    uses: frozenset[str]
    compiled: CompiledProgram
    in_numpy: frozenset[str] = frozenset()

    @property
    def arithmetic(self) -> tuple[str, ...]:
        """What the backend computes with."""
        return (self.compiled.arithmetic,)

    def run(self, values: Values) -> Values:
        """One inference."""
        return dict(self.compiled.run({name: values[name] for name in self.uses}))


@dataclass(frozen=True, slots=True)
class NumpyPart:
    """A segment that the reference engine interprets."""

    block: CompiledBlock
    in_numpy: frozenset[str]
    arithmetic: tuple[str, ...] = ()

    @property
    def uses(self) -> frozenset[str]:
        """The names of the values that it needs."""
        return frozenset(self.block.inputs)

    def run(self, values: Values) -> Values:
        """Every operation in turn."""
        return self.block.run({name: values[name] for name in self.block.inputs})


@dataclass(frozen=True, slots=True)
class Chain:
    """Parts one after the other, and the values they end with.

    ``fixed`` are constants that control flow or the outputs need; ``releases`` has, for each part, the values
    that nothing needs after it.
    """

    parts: tuple[Part, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fixed: Mapping[str, Any]
    releases: tuple[frozenset[str], ...]

    @property
    def in_numpy(self) -> frozenset[str]:
        """The types of the operations that numpy executes."""
        return frozenset[str]().union(*(part.in_numpy for part in self.parts))

    @property
    def arithmetic(self) -> tuple[str, ...]:
        """What the compiled operations are computed with, each once."""
        return _arithmetic(self.parts)

    def run(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The outputs, in order."""
        scope = {**self.fixed, **values}
        for part, releases in zip(self.parts, self.releases, strict=True):
            scope.update(part.run(scope))
            for name in releases:
                scope.pop(name, None)
        return tuple(scope[name] for name in self.outputs)


@dataclass(frozen=True, slots=True)
class Branch:
    """``cond``, with both blocks compiled."""

    predicate: str
    blocks: tuple[Chain, Chain]
    outputs: tuple[str, ...]
    uses: frozenset[str]

    @property
    def in_numpy(self) -> frozenset[str]:
        """The types of the operations that numpy executes, in either block."""
        return self.blocks[0].in_numpy | self.blocks[1].in_numpy

    @property
    def arithmetic(self) -> tuple[str, ...]:
        """What the compiled operations are computed with, in either block."""
        return _arithmetic(self.blocks)

    def run(self, values: Values) -> Values:
        """One of the blocks."""
        taken, otherwise = self.blocks
        results = (taken if values[self.predicate].item() else otherwise).run(values)
        return _bound(self.outputs, results)


@dataclass(frozen=True, slots=True)
class Loop:
    """``while_loop``, with the condition and the body compiled."""

    variables: tuple[str, ...]
    condition: Chain
    body: Chain
    outputs: tuple[str, ...]
    uses: frozenset[str]

    @property
    def in_numpy(self) -> frozenset[str]:
        """The types of the operations that numpy executes, in condition or body."""
        return self.condition.in_numpy | self.body.in_numpy

    @property
    def arithmetic(self) -> tuple[str, ...]:
        """What the compiled operations are computed with, in condition or body."""
        return _arithmetic((self.condition, self.body))

    def run(self, values: Values) -> Values:
        """The body, for as long as the condition holds."""
        current = tuple(values[name] for name in self.variables)
        for count in itertools.count(1):
            if not self._inside(self.condition, current, values)[0].item():
                break
            self._check(count)
            current = self._inside(self.body, current, values)
        return _bound(self.outputs, current)

    def _check(self, count: int) -> None:
        try:
            check_iterations(count)
        except ValueError as error:
            names = ", ".join(self.outputs)
            raise PackageError(f"expected the while_loop of {names!r} to end, got {error}") from error

    def _inside(self, block: Chain, current: tuple[Any, ...], values: Values) -> tuple[Any, ...]:
        return block.run({**values, **_bound(block.inputs, current)})


def _arithmetic(parts: Iterable[Part | Chain]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one for part in parts for one in part.arithmetic))


def _bound(names: tuple[str, ...], values: tuple[Any, ...]) -> Values:
    if len(names) != len(values):
        raise PackageError(f"expected {len(names)} values for {', '.join(names)}, got {len(values)}")
    return dict(zip(names, values, strict=True))

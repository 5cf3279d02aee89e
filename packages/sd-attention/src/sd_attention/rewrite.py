"""Replace modules inside a model by others that compute the same thing.

A rule looks at one module's shape, never at its class or its model's name. It answers with a
:class:`Replacement`, a :class:`Refusal` with the reason, or ``None`` where the module is not its business.
Rules are tried in order; the first that answers with a replacement wins.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from .errors import NothingReplacedError


@dataclass(frozen=True, slots=True)
class Replacement:
    """The module to put in the place of the one that was looked at."""

    module: nn.Module


@dataclass(frozen=True, slots=True)
class Refusal:
    """The module is of the rule's kind, but something about it would change the result."""

    reason: str


Rule: TypeAlias = Callable[[nn.Module], Replacement | Refusal | None]


@dataclass(frozen=True, slots=True)
class Report:
    """The rewritten model and what was done to it; names are module paths (``blocks.0.attn``)."""

    module: nn.Module
    replaced: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]
    """Modules that a rule considered and refused, with the reason."""

    def __str__(self) -> str:
        """Counts, then one line for each module that was kept."""
        lines = [f"replaced {len(self.replaced)}, kept {len(self.kept)}"]
        lines += [f"  kept {name or '(the model itself)'}: {reason}" for name, reason in self.kept]
        return "\n".join(lines)


def rewrite(module: nn.Module, rules: Sequence[Rule], *, in_place: bool = False) -> Report:
    """Apply ``rules`` to every module inside ``module``; a replaced one is not entered.

    ``in_place=False`` leaves ``module`` as it was and works on a copy that shares its parameters and buffers.

    Raises:
        NothingReplacedError: no rule took any module; says what was refused and why.
    """
    target = module if in_place else _copy_structure(module)
    replaced: list[str] = []
    kept: list[tuple[str, str]] = []
    for parent, child_name, path, child in _walk(target):
        answer = _first_answer(child, rules)
        if isinstance(answer, Replacement):
            setattr(parent, child_name, answer.module.train(child.training))
            replaced.append(path)
        elif isinstance(answer, Refusal):
            kept.append((path, answer.reason))
    report = Report(target, tuple(replaced), tuple(kept))
    if not replaced:
        raise NothingReplacedError(f"expected a module that one of {len(rules)} rules takes: {report}")
    return report


def _walk(module: nn.Module, prefix: str = "") -> Iterator[tuple[nn.Module, str, str, nn.Module]]:
    """(parent, name in the parent, path, module), parents before children; replaced ones are not entered."""
    for name, child in list(module.named_children()):
        path = f"{prefix}{name}"
        yield module, name, path, child
        if getattr(module, name) is child:
            yield from _walk(child, f"{path}.")


def _first_answer(module: nn.Module, rules: Sequence[Rule]) -> Replacement | Refusal | None:
    """The first replacement; without one, the first refusal."""
    answers = [answer for rule in rules if (answer := rule(module)) is not None]
    return next((answer for answer in answers if isinstance(answer, Replacement)), next(iter(answers), None))


def _copy_structure(module: nn.Module) -> nn.Module:
    """A deep copy of the modules around the same parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})

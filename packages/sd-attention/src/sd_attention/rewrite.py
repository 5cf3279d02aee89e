"""Replace modules inside a model by others that compute the same thing.

A rule looks at one module and answers with a :class:`Replacement`, a :class:`Refusal` with the reason, or
``None`` where the module is not its business. Rules are tried in order; the first that answers with a
replacement wins.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import nn

from .errors import NothingReplacedError


@dataclass(frozen=True, slots=True)
class Replacement:
    """The module to put in the place of the one that was looked at.

    ``enter``: whether the rules go on to the modules inside it.
    """

    module: nn.Module
    enter: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """The module is of the rule's kind, but something about it would change the result."""

    reason: str


Rule: TypeAlias = Callable[[nn.Module], Replacement | Refusal | None]


@dataclass(frozen=True, slots=True)
class Report:
    """The rewritten model and what was done to it; names are module paths, "" that of the model itself."""

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
    """Apply ``rules`` to ``module`` and every module inside it; a replaced one is entered only if it says so.

    ``in_place=False`` leaves ``module`` as it was and works on a copy that shares its parameters and
    buffers. A module that is used in several places is replaced by one module in all of them. If a rule
    takes ``module`` itself, the report holds its replacement, in place or not.

    Raises:
        NothingReplacedError: no rule took any module; says what was refused and why.
    """
    target = module if in_place else copy_structure(module)
    walk = _Walk(rules)
    report = Report(walk.visit(target, ""), tuple(walk.replaced), tuple(walk.kept))
    if not report.replaced:
        raise NothingReplacedError(f"expected a module that one of {len(rules)} rules takes: {report}")
    return report


def copy_structure(module: nn.Module) -> nn.Module:
    """A deep copy of the modules around the same parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


@dataclass(slots=True)
class _Walk:
    """One pass over a model, parents before children."""

    rules: Sequence[Rule]
    replaced: list[str] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    results: dict[int, tuple[nn.Module, nn.Module]] = field(default_factory=dict)
    """By identity: a module that was met, which must stay alive for that, and what stands for it now."""

    def visit(self, module: nn.Module, path: str) -> nn.Module:
        """What stands in the place of ``module`` from now on."""
        known = self.results.get(id(module))
        answer = None if known else _first_answer(module, self.rules)
        result, enter = (known[1], False) if known else (module, True)
        if isinstance(answer, Replacement):
            result, enter = answer.module.train(module.training), answer.enter
        elif isinstance(answer, Refusal):
            self.kept.append((path, answer.reason))
        if result is not module:
            self.replaced.append(path)
        self.results[id(module)] = module, result
        if enter:
            self._visit_children(result, path)
        return result

    def _visit_children(self, module: nn.Module, path: str) -> None:
        for name, child in list(module._modules.items()):
            if child is not None:
                result = self.visit(child, f"{path}.{name}" if path else name)
                if result is not child:
                    setattr(module, name, result)


def _first_answer(module: nn.Module, rules: Sequence[Rule]) -> Replacement | Refusal | None:
    """The first replacement; without one, the first refusal."""
    answers = [answer for rule in rules if (answer := rule(module)) is not None]
    first = next((answer for answer in answers if isinstance(answer, Replacement)), None)
    if first is not None and _hooks(module) != _hooks(first.module):
        return Refusal("it has hooks, which its replacement would not run")
    return first or next(iter(answers), None)


def _hooks(module: nn.Module) -> list[object]:
    """Everything that torch calls around a module's forward and backward."""
    return [
        list(hooks.values())
        for hooks in (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    ]

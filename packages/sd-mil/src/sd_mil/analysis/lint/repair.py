"""Findings mended by rewriting: which pass is for which rule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from sd_mil.analysis.lint.report import Finding
from sd_mil.ir.program import Package, Program
from sd_mil.ir.targets import OPSETS
from sd_mil.rewriting.attention_pieces import split_attention_batch, split_softmax
from sd_mil.rewriting.attention_rank import lift_attention
from sd_mil.rewriting.cast_pairs import drop_cast_pairs
from sd_mil.rewriting.palette_form import lower_palettes, palette_obstacles
from sd_mil.rewriting.passes import Pass
from sd_mil.rewriting.scores import attentions, batch_of, is_reshaped

#: Files of several functions, or with states, are of this version at least.
_FUNCTIONS: Final = 9


@dataclass(frozen=True, slots=True)
class Repair:
    """A pass, and why it may have to leave a program as it is, each reason as half a sentence."""

    rewrite: Pass[...]
    obstacles: Callable[[Program], list[str]] = lambda _: []


def _reshaped(program: Program) -> list[str]:
    found = attentions(program.main.body)
    is_stuck = any(is_reshaped(one) and batch_of(one) > 1 for one in found)
    return ["a reshape stands between its products"] if is_stuck else []


#: By the id of the rule, in the order in which they run: attention of rank 3 is a batch of 1 once it is
#: lifted, and pieces of a batch have smaller softmaxes.
REPAIRS: Final[Mapping[str, Repair]] = MappingProxyType(
    {
        "needless-cast": Repair(drop_cast_pairs),
        "gpu-attention-rank-3": Repair(lift_attention),
        "gpu-attention-batch": Repair(split_attention_batch, _reshaped),
        "ane-softmax-size": Repair(split_softmax, _reshaped),
        "ane-table-ios18": Repair(lower_palettes, palette_obstacles),
    }
)


def repaired(package: Package, findings: Collection[Finding]) -> Package:
    """The package with what can be mended of the findings; the same object where that is nothing.

    Each function is rewritten for the findings in it alone.
    """
    program = package.program
    wanted = {(finding.function, finding.rule.id) for finding in findings}
    for rule_id, repair in REPAIRS.items():
        for name in program.functions:
            if (name, rule_id) in wanted:
                rewritten = repair.rewrite(replace(program, default_function=name))
                if rewritten.functions[name] is not program.functions[name]:
                    program = replace(rewritten, default_function=program.default_function)
    if program is package.program:
        return package
    return replace(package, program=program, specification_version=_version(package, program))


def obstacles(package: Package, finding: Finding) -> list[str]:
    """Why a finding was not mended."""
    repair = REPAIRS.get(finding.rule.id)
    if repair is None:
        return ["it is no matter of rewriting"]
    return repair.obstacles(replace(package.program, default_function=finding.function))


def _version(package: Package, program: Program) -> int:
    """Of the file: lower where every function now is, unless the file has what older ones have not."""
    before, after = _newest(package.program), _newest(program)
    if after == before or len(program.functions) > 1 or package.description.states:
        return package.specification_version
    is_plain = package.specification_version == before and before <= _FUNCTIONS
    return after if is_plain else package.specification_version


def _newest(program: Program) -> int:
    return max(
        OPSETS[one.opset].specification if one.opset in OPSETS else 0 for one in program.functions.values()
    )

"""Known limits of the Neural Engine, of GPUs and of Core ML versions, put to a model without running it.

A rule says what the limit is, where it is published and of what date that is, and what to change; ``RULES``
has those that are known. One from outside is a function with the decorator ``rule``::

    @rule("my-limit", "warning", says="…", change="…", source=Source("…", "https://…", "2026-11-01"))
    def my_limit(scope):
        for operation in scope.operations:
            if operation.type == "topk":
                yield Hit("a topk", operation)

    lint("model.mlpackage", "mac", rules=(*RULES, my_limit))
"""

from sd_mil.analysis.lint.repair import REPAIRS, Repair, obstacles, repaired
from sd_mil.analysis.lint.report import SYSTEMS, Finding, LintReport, Place, joined, lint
from sd_mil.analysis.lint.rule import SEVERITIES, Hit, Rule, Severity, Source, rule
from sd_mil.analysis.lint.rules import RULES
from sd_mil.analysis.lint.sarif import sarif
from sd_mil.analysis.lint.scope import DEVICES, Device, DeviceName, Scope

__all__ = [
    "DEVICES",
    "REPAIRS",
    "RULES",
    "SEVERITIES",
    "SYSTEMS",
    "Device",
    "DeviceName",
    "Finding",
    "Hit",
    "LintReport",
    "Place",
    "Repair",
    "Rule",
    "Scope",
    "Severity",
    "Source",
    "joined",
    "lint",
    "obstacles",
    "repaired",
    "rule",
    "sarif",
]

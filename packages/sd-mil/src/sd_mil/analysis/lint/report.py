"""The rules put to a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sd_mil.analysis.lint.modules import module_of
from sd_mil.analysis.lint.rule import SEVERITIES, Hit, Rule, Severity
from sd_mil.analysis.lint.rules import RULES
from sd_mil.analysis.lint.scope import DEVICES, Device, DeviceName, Scope
from sd_mil.errors import LintError
from sd_mil.format import read_model
from sd_mil.ir.pipelines import programs_in
from sd_mil.ir.program import Operation, Package, Pipeline

#: The systems that ``--os`` knows; without one it is the newest, under which every limit holds.
SYSTEMS = (16, 17, 18, 26, 27)


@dataclass(frozen=True, slots=True)
class Place:
    """An operation: its name, its kind, its first output, and the module that it came from (or empty)."""

    name: str
    kind: str
    output: str
    module: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What is beyond a limit in one function of a model, and everywhere that it is.

    ``model`` is a path, or within a pipeline that and the model's name. ``places`` are empty where it is the
    model that is beyond the limit, and no operation.
    """

    rule: Rule
    model: str
    function: str
    said: str
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class LintReport:
    """All findings, the gravest first, and the rules that were put."""

    device: Device
    os: int
    findings: tuple[Finding, ...]
    rules: tuple[Rule, ...]

    @property
    def worst(self) -> Severity | None:
        """The gravest severity that was found."""
        found = {finding.rule.severity for finding in self.findings}
        return next((severity for severity in SEVERITIES if severity in found), None)

    def count(self, severity: Severity) -> int:
        """How many findings are of a severity."""
        return sum(finding.rule.severity == severity for finding in self.findings)


def lint(
    model: str | os.PathLike[str] | Package | Pipeline,
    device: DeviceName,
    os: int = SYSTEMS[-1],
    *,
    rules: Sequence[Rule] = RULES,
) -> LintReport:
    """Put every rule that holds for a device and a system to each function of a model.

    Nothing is executed, and weights stay on the disk, but for the shapes of tables.

    Raises:
        LintError: no such device or system, or two rules of one id.
        SdMilError: the model cannot be read.
    """
    if device not in DEVICES:
        raise LintError(f"expected a device out of {', '.join(DEVICES)}, got {device!r}")
    if os not in SYSTEMS:
        raise LintError(f"expected a system out of {', '.join(map(str, SYSTEMS))}, got {os}")
    if len({rule.id for rule in rules}) != len(rules):
        raise LintError("expected rules with an id each, got two of one id")
    read = model if isinstance(model, Package | Pipeline) else read_model(model)
    found = [
        finding
        for name, package in programs_in(read, read.path)
        for scope in _scopes(package, DEVICES[device], os)
        for finding in _findings(scope, name, rules)
    ]
    found.sort(key=lambda finding: SEVERITIES.index(finding.rule.severity))
    return LintReport(DEVICES[device], os, tuple(found), tuple(rules))


def joined(reports: Iterable[LintReport]) -> LintReport:
    """Several models' reports, of one device and system, as one."""
    first, *others = reports
    findings = [finding for report in (first, *others) for finding in report.findings]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.rule.severity))
    return replace(first, findings=tuple(findings))


def _scopes(package: Package, device: Device, system: int) -> Iterator[Scope]:
    descriptions = {package.program.default_function: package.description, **package.descriptions}
    for name, function in package.program.functions.items():
        yield Scope(package, function, descriptions.get(name, package.description), device, system)


def _findings(scope: Scope, model: str, rules: Sequence[Rule]) -> Iterator[Finding]:
    for rule in rules:
        if not rule.applies(scope):
            continue
        groups: dict[tuple[str, str], dict[int, Hit]] = {}
        for hit in rule.find(scope):
            kind = "" if hit.operation is None else hit.operation.type
            groups.setdefault((hit.said, kind), {})[id(hit.operation)] = hit  # once, of several outputs
        for (said, _), hits in groups.items():
            places = tuple(_place(hit.operation, scope) for hit in hits.values() if hit.operation is not None)
            yield Finding(rule, model, scope.function.name, said, places)


def _place(operation: Operation, scope: Scope) -> Place:
    output = operation.outputs[0].name if operation.outputs else ""
    return Place(operation.name, operation.type, output, module_of(operation, scope.definitions))

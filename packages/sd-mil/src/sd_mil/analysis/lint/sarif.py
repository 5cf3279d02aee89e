"""Findings in the Static Analysis Results Interchange Format, which code hosts and editors show.

Source: SARIF version 2.1.0 plus errata 01, OASIS, 2023-08-28.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import quote

from sd_mil.analysis.lint.report import Finding, LintReport, Place
from sd_mil.analysis.lint.rule import Rule

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
#: Locations of one result, at most: code hosts show no more.
_PLACES: Final = 100


def sarif(report: LintReport) -> dict[str, Any]:
    """The log of one run, for ``json.dumps``: a result for each finding, with its operations as locations."""
    from importlib.metadata import version  # brings email and socket

    driver = {
        "name": "sdc lint",
        "version": version("sd-mil"),
        "rules": [_rule(rule) for rule in report.rules],
    }
    indices = {rule.id: index for index, rule in enumerate(report.rules)}
    run = {
        "tool": {"driver": driver},
        "results": [_result(finding, indices[finding.rule.id]) for finding in report.findings],
        "properties": {"device": report.device.name, "os": report.os},
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.says},
        "fullDescription": {"text": f"{rule.says} Source: {rule.source.title} ({rule.source.date})."},
        "help": {"text": f"What to do: {rule.change}."},
        "helpUri": rule.source.url,
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(finding: Finding, index: int) -> dict[str, Any]:
    names = (one.name for one in finding.places)
    words = "\0".join((finding.rule.id, finding.function, finding.said, *names))
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": finding.rule.severity,
        "message": {"text": f"{finding.said}: {finding.rule.says} What to do: {finding.rule.change}."},
        "locations": list(_locations(finding)),
        "partialFingerprints": {"finding/v1": hashlib.sha256(words.encode()).hexdigest()},
    }


def _locations(finding: Finding) -> Iterator[dict[str, Any]]:
    uri = quote(PurePath(finding.model).as_posix())
    function = {"name": finding.function, "kind": "function"}
    physical = {"artifactLocation": {"uri": uri}}
    if not finding.places:
        yield {"physicalLocation": physical, "logicalLocations": [function]}
    for place in finding.places[:_PLACES]:
        yield {"physicalLocation": physical, "logicalLocations": [_logical(place, finding.function)]}


def _logical(place: Place, function: str) -> dict[str, str]:
    said = {"name": place.name, "fullyQualifiedName": f"{function}/{place.module or place.name}"}
    return {**said, "kind": place.kind}

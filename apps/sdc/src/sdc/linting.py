"""What ``sdc lint`` and ``sdc repair`` share: options, the packages of a model, findings as lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from sd_bundle import Bundle
    from sd_mil.analysis.lint import Finding, LintReport

F = TypeVar("F", bound=Callable[..., Any])

#: Operations of one finding that are named.
_NAMED: Final = 3
_COLOURS: Final = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_SUFFIXES: Final = (".mlpackage", ".mlmodelc", ".mlmodel")
_SYSTEM: Final = re.compile(r"(iOS|iPadOS|macOS)?(\d+)", re.IGNORECASE)


class System(click.ParamType):  # type: ignore[type-arg] # generic in some releases of click only
    """A number (26) or a name (macOS15) of a system, as the number of the iOS of its year."""

    name = "system"

    def get_metavar(self, *_: Any, **__: Any) -> str:
        """What the help shows."""
        return "16|17|18|26|27|macOS15|…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Refuse what is no system."""
        from sd_mil.analysis.lint import SYSTEMS
        from sd_mil.ir import TARGETS

        numbers = {name.lower(): target.number for name, target in TARGETS.items()}
        number = numbers.get(str(value).lower())
        matched = _SYSTEM.fullmatch(str(value))
        if number is None and matched and (not matched[1] or int(matched[2]) > max(numbers.values())):
            number = int(matched[2])
        if number not in SYSTEMS:
            known = ", ".join(map(str, SYSTEMS))
            said = f"expected one of {known}, or a name such as iOS18 or macOS15, got {value!r}"
            self.fail(said, param, ctx)
        return number


def lint_options(command: F) -> F:
    """The two options that say where a model is to run."""
    target = click.option(
        "--target",
        "device",
        type=click.Choice(["iphone", "ipad", "mac"]),
        required=True,
        help="The class of devices that is to run it.",
    )
    system = click.option(
        "--os",
        "system",
        type=System(),
        default="27",
        show_default=True,
        help="The system on it: what broke up to then counts, and nothing newer is there.",
    )
    result: F = target(system(command))
    return result


def bundle_at(path: Path) -> Bundle | None:
    """The bundle at a path, or None where a model is."""
    if not (path / "manifest.json").is_file():
        return None
    from sd_bundle import open_bundle

    return open_bundle(path)


def models_in(path: Path) -> list[Path]:
    """The models in a folder of them, such as apps read, and in the folders in it; none of what is a model.

    Nothing below a model is one.
    """
    if path.suffix in _SUFFIXES or not path.is_dir():
        return []
    found = [one for pattern in ("*", "*/*") for one in path.glob(pattern) if one.suffix in _SUFFIXES]
    return sorted(one for one in found if one.parent.suffix not in _SUFFIXES)


def linted(path: Path, device: Any, system: int) -> LintReport:
    """The findings in a model, in all packages of a bundle, or in all models of a folder."""
    from sd_mil.analysis.lint import joined, lint

    bundle = bundle_at(path)
    if bundle is None:
        return joined(lint(one, device, system) for one in models_in(path) or [path])
    names = [name for component in bundle.manifest.components for name in component.packages]
    return joined(lint(bundle.checked_folder(name), device, system) for name in dict.fromkeys(names))


def print_findings(findings: tuple[Finding, ...]) -> None:
    """A paragraph for each: what, where, the limit, what to do, and who says so."""
    from sdc.console import console, styled

    out = console()
    for finding in findings:
        rule = finding.rule
        head = styled(rule.severity, _COLOURS[rule.severity])
        head.append(f" {rule.id}: {finding.said}")
        out.print(head, soft_wrap=True)
        where = f"{Path(finding.model).name}, function {finding.function}{_places(finding)}"
        out.print(f"  in {where}", soft_wrap=True)
        out.print(f"  {rule.says}", soft_wrap=True)
        out.print(f"  to do: {rule.change}{'; sdc repair does it' * rule.repair}", soft_wrap=True)
        out.print(f"  source: {rule.source.title}, {rule.source.date}, {rule.source.url}", soft_wrap=True)


def _places(finding: Finding) -> str:
    if not finding.places:
        return ""
    named = [
        f"{place.name} (of {place.module})" if place.module else place.name
        for place in finding.places[:_NAMED]
    ]
    more = len(finding.places) - _NAMED
    tail = f" and {more} more" if more > 0 else ""
    return f", {len(finding.places)} × {finding.places[0].kind}: {', '.join(named)}{tail}"


def finding_facts(finding: Finding) -> dict[str, Any]:
    """A finding for JSON."""
    rule = finding.rule
    return {
        "rule": rule.id,
        "severity": rule.severity,
        "model": finding.model,
        "function": finding.function,
        "said": finding.said,
        "limit": rule.says,
        "change": rule.change,
        "repair": rule.repair,
        "source": {"title": rule.source.title, "url": rule.source.url, "date": rule.source.date},
        "operations": [
            {"name": one.name, "kind": one.kind, "output": one.output, "module": one.module}
            for one in finding.places
        ],
    }


def counted(report: LintReport) -> str:
    """``1 error, 2 warnings, no notes``."""
    words = []
    for severity in ("error", "warning", "note"):
        count = report.count(severity)
        words.append(f"{count or 'no'} {severity}{'s' * (count != 1)}")
    return ", ".join(words)

"""``sdc lint``: known limits of devices and systems, found in a model without running it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sdc.json_output import json_option, print_json
from sdc.linting import lint_options

if TYPE_CHECKING:
    from sd_mil.analysis.lint import LintReport

#: Exit statuses, which are not those of an error (1) or of wrong usage (2).
_STATUS: Final = {"warning": 3, "error": 4}


@click.command("lint", short_help="Find what a device or a system is known not to run.")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@lint_options
@json_option
@click.option(
    "--sarif",
    "sarif_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the findings to this file, as SARIF 2.1.0 for code hosts and editors.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["warning", "error", "never"]),
    default="error",
    show_default=True,
    help="The least severity that the exit status tells.",
)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    model: Path,
    device: str,
    system: int,
    as_json: bool,
    sarif_file: Path | None,
    fail_on: str,
) -> None:
    """Find what is known to break or to be slow in MODEL: a bundle, an .mlpackage, .mlmodelc or .mlmodel.

    Or in a folder of these, as apps read it. Nothing is executed. Each finding has the source of the limit
    and its date.

    \b
    sdc lint Unet.mlmodelc --target iphone
    sdc lint Resources --target iphone
    sdc lint bundle --target mac --os 26 --sarif lint.sarif --fail-on warning

    Exit status: 0 without findings of the severity asked for, 3 if the gravest is a warning, 4 if it is an
    error; 1 if the model cannot be read.
    """
    from sdc.linting import linted

    began = time.perf_counter()
    report = linted(model, device, system)
    if sarif_file is not None:
        _write_sarif(report, sarif_file)
    if as_json:
        _print_json(report)
    else:
        _print(report, time.perf_counter() - began)
    ctx.exit(_status(report, fail_on))


def _status(report: LintReport, fail_on: str) -> int:
    if fail_on == "never" or report.worst is None:
        return 0
    told = ("error",) if fail_on == "error" else ("error", "warning")
    return _STATUS[report.worst] if report.worst in told else 0


def _write_sarif(report: LintReport, file: Path) -> None:
    from sd_bundle.drafts import replacing
    from sd_mil.analysis.lint import sarif

    text = json.dumps(sarif(report), indent=2) + "\n"
    with replacing(file) as draft:
        draft.write_text(text, encoding="utf-8")


def _print_json(report: LintReport) -> None:
    from sdc.linting import finding_facts

    facts = {
        "device": report.device.name,
        "os": report.os,
        "worst": report.worst,
        "findings": [finding_facts(finding) for finding in report.findings],
    }
    print_json(facts)


def _print(report: LintReport, seconds: float) -> None:
    from sdc.console import console, peak_memory, size
    from sdc.linting import counted, print_findings

    print_findings(report.findings)
    console().print(
        f"{counted(report)} for {report.device.name} on {report.os}: {len(report.rules)} rules, "
        f"{seconds:.1f} s, peak memory {size(peak_memory())}",
        soft_wrap=True,
    )

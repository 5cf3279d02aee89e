"""``sdc doctor``: what is here, and what would fail and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sdc.json_output import json_option, print_json

if TYPE_CHECKING:
    from sdc.doctor import Finding


@click.command("doctor", short_help="What is installed, what would fail, and why.")
@click.option("--imports", is_flag=True, help="Also import what conversion needs; half a minute.")
@json_option
@click.pass_context
def command(ctx: click.Context, *, imports: bool, as_json: bool) -> None:
    """Look at releases, engines, memory, disk and caches, on one page to paste into an issue.

    Each engine computes something. No network is asked, and the home folder's name is left out. The exit
    status is 1 if something fails; notes do not count.
    """
    from sdc.doctor import examine, facts, healthy

    findings = list(examine(imports=imports))
    if as_json:
        print_json(facts(findings))
    else:
        _print(findings)
    ctx.exit(0 if healthy(findings) else 1)


def _print(findings: list[Finding]) -> None:
    from sdc.console import console

    out, section = console(), ""
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        if finding.section != section:
            section = finding.section
            out.print(section)
        mark = {"ok": " ", "note": "-", "fails": "!"}[finding.verdict]
        out.print(f"{mark} {finding.name:{width}}  {finding.value}", soft_wrap=True)
        if finding.consequence:
            out.print(f"  {'':{width}}  {finding.consequence}", soft_wrap=True)
    failing = sum(finding.verdict == "fails" for finding in findings)
    out.print(f"{failing} marked ! will fail" if failing else "nothing fails")

"""``sdc completion``: commands, options and files, completed by the shell."""

from __future__ import annotations

import os
from pathlib import Path

import click

_VARIABLE = "_SDC_COMPLETE"


@click.command("completion", short_help="Complete sdc in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option("--install", is_flag=True, help="Write it where SHELL finds it, instead of printing it.")
def command(shell: str, *, install: bool) -> None:
    """Print what completes sdc in SHELL, or install it for the next shell that starts.

    sdc completion bash --install
    """
    script = source(shell)
    if not install:
        click.echo(script)
        return
    from sdc.console import console

    for path in installed(shell, script):
        console().print(f"wrote {path}", soft_wrap=True)
    console().print(f"start a new {shell}, and press Tab after `sdc `")


def source(shell: str) -> str:
    """The script, click's own."""
    from click.shell_completion import get_completion_class

    from sdc.cli import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"expected a shell that click completes, got {shell}")
    made = kind(cli, {}, "sdc", _VARIABLE)
    # not made.source(): for bash that starts one, to ask how old it is
    return made.source_template % made.source_vars()


def installed(shell: str, script: str) -> list[Path]:
    """Write the script, and for bash and zsh one line in the start-up file that reads it, if it is not there.

    Returns:
        The files that were written.

    Raises:
        OSError: a folder cannot be written.
    """
    home = Path.home()
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    if shell == "fish":
        path = configuration / "fish" / "completions" / "sdc.fish"
        _write(path, script)
        return [path]
    path = configuration / "sdc" / f"completion.{shell}"
    _write(path, script)
    startup = home / ".bashrc" if shell == "bash" else Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    line = f'[ -r "{path}" ] && . "{path}"  # sdc completion {shell} --install'
    before = startup.read_text(encoding="utf-8") if startup.exists() else ""
    if line in before.splitlines():
        return [path]
    with startup.open("a", encoding="utf-8") as file:  # a link to somebody's dotfiles stays a link
        file.write(("" if before.endswith("\n") or not before else "\n") + line + "\n")
    return [path, startup]


def _write(path: Path, text: str) -> None:
    from sd_bundle.drafts import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")

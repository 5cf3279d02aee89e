"""The entry point: subcommands by name, errors as one line.

Nothing heavy is imported here or at the top of a command's module, so that ``sdc --help`` answers at once.
"""

from __future__ import annotations

import errno
import gc
import importlib
import io
import keyword
import sys
import traceback
import warnings
from typing import Any

import click

from sdc.console import printable
from sdc.interrupts import SAID, interrupts

_COMMANDS = (
    "analyze",
    "benchmark",
    "bundle",
    "cache",
    "chunk",
    "compile",
    "completion",
    "compress",
    "convert",
    "demo",
    "doctor",
    "generate",
    "hint",
    "import",
    "inspect",
    "lint",
    "repair",
    "run",
    "serve",
    "verify",
)
_OUR_PACKAGES = frozenset(
    (
        "sdc",
        "sd_attention",
        "sd_bundle",
        "sd_compress",
        "sd_controlnet",
        "sd_convert",
        "sd_mil",
        "sd_runtime",
        "sd_schedulers",
        "sd_tokenize",
    )
)


class _Commands(click.Group):
    """Finds ``sdc NAME`` in ``sdc.commands.NAME``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"sdc.commands.{name}")
        command: click.Command = module.command
        return command


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="stable-diffusion-coreml")
@click.option("--traceback", "show_traceback", is_flag=True, help="Show Python's traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, *, show_traceback: bool) -> None:
    """Stable Diffusion for Core ML, from any machine: convert, prove, draw.

    \b
    Exit status:
      0         done, and what was to be proved is proved
      1         an error, or something is not proved
      2         the command line is wrong
      3, 4      lint: the gravest finding is a warning, an error
      130, 143  interrupted, or asked to end
    """
    ctx.obj = {"traceback": show_traceback}


def main() -> None:
    """Run the command line; an error is one line on standard error and a non-zero exit status."""
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):  # a redirect may be in an encoding without arrows or accents
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            status = cli.main(args=arguments, prog_name="sdc", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        status = exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = _report(SAID, interrupts.status)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        click.echo(printable(said.getvalue()), err=True, nl=False)
        status = error.exit_code
    except Exception as error:
        if "--traceback" in arguments:
            click.echo(printable(traceback.format_exc()), err=True, nl=False)
        status = _report(SAID, interrupts.status) if interrupts.came else _report(_one_line(error), 1)
    gc.freeze()  # or Python's last collection walks everything that torch and coremltools made: 0.7 s
    sys.exit(status if isinstance(status, int) else 0)


def _report(line: str, status: int) -> int:
    click.echo(printable(f"sdc: {line}"), err=True)
    return status


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    if any(kind.__module__.partition(".")[0] in _OUR_PACKAGES for kind in type(error).__mro__):
        return f"error: {message}"
    if isinstance(error, MemoryError):
        return "error: out of memory"
    if isinstance(error, OSError):
        return f"error: {_of_the_system(error, message)}"
    return f"unexpected {type(error).__name__}: {message} (a bug: run `sdc --traceback …` and report it)"


def _of_the_system(error: OSError, message: str) -> str:
    """Which file, and what was wrong; where the disk is full Python names no file."""
    what = error.strerror or message
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"{what}: free some or write elsewhere; `sdc doctor` says what there is"
    named = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return " ".join(f"{' to '.join(named)}: {what}".split()) if named else what


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Our own warnings are for the person at the terminal; those of libraries are not."""
    if category.__module__.partition(".")[0] in _OUR_PACKAGES:
        click.echo(printable(f"sdc: warning: {' '.join(str(message).split())}"), err=True)


if __name__ == "__main__":
    main()

"""Options that take several values, as Apple's command lines have them: ``--controlnet A B``."""

from __future__ import annotations

from collections.abc import Iterator

import click


class SeveralValues(click.Option):
    """An option that may be repeated, or followed by several values once the arguments were given."""


class TakesSeveral(click.Command):
    """A command some of whose options are :class:`SeveralValues`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click, with ``--name A B`` for ``--name A --name B``."""
        return super().parse_args(ctx, list(self._repeated(args)))

    def missing_arguments(self, args: list[str]) -> int:  # noqa: ARG002
        """How many arguments are to be found among ``args``."""
        return sum(isinstance(param, click.Argument) and param.required for param in self.params)

    def _repeated(self, args: list[str]) -> Iterator[str]:
        options = {name: p for p in self.params if isinstance(p, click.Option) for name in p.opts}
        missing = self.missing_arguments(args)
        several: str | None = None  # the option that goes on taking values
        rest = iter(args)
        for token in rest:
            if token == "--":  # noqa: S105
                yield token
                yield from rest
                return
            if not token.startswith("-") or token == "-":  # noqa: S105
                if several is not None and missing <= 0:
                    yield from (several, token)
                else:
                    missing -= 1
                    yield token
                continue
            option, yields = options.get(token.partition("=")[0]), [token]
            if option is not None and not option.is_flag and "=" not in token:
                yields += [value for value in [next(rest, None)] if value is not None]
            several = token.partition("=")[0] if isinstance(option, SeveralValues) else None
            yield from yields

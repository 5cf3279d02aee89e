"""``sdc cache``: what earlier conversions found out, and how to forget it."""

from __future__ import annotations

import click


@click.command("cache", short_help="Show or clear what conversions keep.")
@click.option("--clear", is_flag=True, help="Remove everything in it.")
def command(*, clear: bool) -> None:
    """Show the cache that makes a second conversion quick, or clear it.

    It holds everything about packages but their weights: less than a megabyte for each.
    """
    from sd_convert import ConversionCache

    from sdc.console import console, size

    cache = ConversionCache()
    usage = cache.clear() if clear else cache.usage()
    verb = "removed" if clear else "has"
    console().print(
        f"{cache.folder}: {verb} {usage.entries} entries, {size(usage.bytes)}"
        + ("" if clear else f" of at most {size(cache.limit)}"),
        soft_wrap=True,
    )

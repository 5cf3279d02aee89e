"""``sdc cache``: the decoded weights of compressed models, and how to be rid of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sd_mil import Cache


@click.command("cache", short_help="Show or clear the decoded weights of compressed models.")
@click.argument("action", type=click.Choice(["show", "clear"]), default="show")
def command(action: str) -> None:
    """Show the cache's folder, bound and entries, or CLEAR it; it fills again by itself.

    SD_MIL_CACHE moves it to another folder, or disables it ("off"); SD_MIL_CACHE_BYTES bounds it.
    """
    from sd_mil import default_cache

    from sdc.console import console, size

    cache = default_cache()
    if cache is None:
        console().print("the cache is off (SD_MIL_CACHE=off)")
    elif action == "clear":
        console().print(f"cleared {size(cache.clear())} from {cache.folder}", soft_wrap=True)
    else:
        _show(cache)


def _show(cache: Cache) -> None:
    from datetime import datetime

    from sdc.console import console, size, table

    entries = cache.entries()
    console().print(f"{cache.folder}: {size(cache.size)} of at most {size(cache.limit)}", soft_wrap=True)
    if not entries:
        return
    rows = table("entry", "size", "last used")
    for path in reversed(entries):
        status = path.stat()
        used = datetime.fromtimestamp(status.st_mtime).astimezone()
        rows.add_row(path.stem[:16], size(status.st_size), f"{used:%Y-%m-%d %H:%M}")
    console().print(rows)

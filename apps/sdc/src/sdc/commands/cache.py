"""``sdc cache``: what conversions and engines keep for the next time, and how to be rid of it."""

from __future__ import annotations

import click


@click.command("cache", short_help="Show or clear what is kept for the next time.")
@click.argument("action", type=click.Choice(["show", "clear"]), default="show")
def command(action: str) -> None:
    """Show the two caches, or CLEAR them; they fill again by themselves.

    Conversions keep everything about a package but its weights. The portable engine keeps the decoded
    weights of compressed models: SD_MIL_CACHE moves them to another folder, or disables that ("off"), and
    SD_MIL_CACHE_BYTES bounds them.
    """
    _conversions(clear=action == "clear")
    _decoded_weights(clear=action == "clear")


def _conversions(*, clear: bool) -> None:
    from sd_convert import ConversionCache

    cache = ConversionCache()
    usage = cache.clear() if clear else cache.usage()
    _tell("conversions", cache.folder, usage.entries, usage.bytes, None if clear else cache.limit)


def _decoded_weights(*, clear: bool) -> None:
    from sd_mil import default_cache

    from sdc.console import console

    cache = default_cache()
    if cache is None:
        console().print("decoded weights: the cache is off (SD_MIL_CACHE=off)")
        return
    entries = len(cache.entries())
    held = cache.clear() if clear else cache.size
    _tell("decoded weights", cache.folder, entries, held, None if clear else cache.limit)


def _tell(kind: str, folder: object, entries: int, held: int, limit: int | None) -> None:
    from sdc.console import console, size

    plural = "entry" if entries == 1 else "entries"
    amount = f"{entries} {plural}, {size(held)}"
    what = f"removed {amount} from {folder}" if limit is None else f"{amount} of {size(limit)} in {folder}"
    console().print(f"{kind}: {what}", soft_wrap=True)

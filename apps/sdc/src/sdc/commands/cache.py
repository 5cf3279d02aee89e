"""``sdc cache``: what conversions and engines keep for the next time, and how to be rid of it."""

from __future__ import annotations

from typing import Any

import click

from sdc.json_output import json_option, print_json


@click.command("cache", short_help="Show or clear what is kept for the next time.")
@click.argument("action", type=click.Choice(["show", "clear"]), default="show")
@json_option
def command(action: str, *, as_json: bool) -> None:
    """Show the two caches, or CLEAR them; they fill again by themselves.

    Conversions keep everything about a package but its weights. The portable engine keeps the decoded
    weights of compressed models: SD_MIL_CACHE moves them to another folder, or disables that ("off"), and
    SD_MIL_CACHE_BYTES bounds them.
    """
    clear = action == "clear"
    caches = [_conversions(clear=clear), _decoded_weights(clear=clear)]
    if as_json:
        print_json({"action": action, "caches": caches})
        return
    for facts in caches:
        _tell(facts, clear=clear)


def _conversions(*, clear: bool) -> dict[str, Any]:
    from sd_convert import ConversionCache

    cache = ConversionCache()
    usage = cache.clear() if clear else cache.usage()
    return _facts("conversions", cache.folder, usage.entries, usage.bytes, cache.limit)


def _decoded_weights(*, clear: bool) -> dict[str, Any]:
    from sd_mil import default_cache

    cache = default_cache()
    if cache is None:
        return {"cache": "decoded weights", "folder": None}
    entries = len(cache.entries())
    held = cache.clear() if clear else cache.size
    return _facts("decoded weights", cache.folder, entries, held, cache.limit)


def _facts(cache: str, folder: object, entries: int, held: int, limit: int) -> dict[str, Any]:
    """Of what is there, or was before it was cleared; a cache that is off has no folder."""
    return {"cache": cache, "folder": str(folder), "entries": entries, "bytes": held, "limit": limit}


def _tell(facts: dict[str, Any], *, clear: bool) -> None:
    from sdc.console import console, size

    kind, folder = facts["cache"], facts["folder"]
    if folder is None:
        console().print(f"{kind}: the cache is off (SD_MIL_CACHE=off)")
        return
    plural = "entry" if facts["entries"] == 1 else "entries"
    amount = f"{facts['entries']} {plural}, {size(facts['bytes'])}"
    what = f"removed {amount} from {folder}" if clear else f"{amount} of {size(facts['limit'])} in {folder}"
    console().print(f"{kind}: {what}", soft_wrap=True)

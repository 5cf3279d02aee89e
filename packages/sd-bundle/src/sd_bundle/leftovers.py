"""What a killed process left beside a bundle: cleared away by the next one that writes there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from sd_bundle.drafts import remove_abandoned, siblings

OLD: Final = "old"


def clear_leftovers(target: Path) -> None:
    """Remove the drafts of ``target`` whose processes are gone, and finish what one left between two renames.

    A bundle that was moved aside, with nothing in its place, comes back; with a new one there, it goes.
    """
    if not remove_abandoned(target):
        return  # somebody is at work, and may be just between the two renames
    for aside in siblings(target, OLD):
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(target)

"""Holding a network against the model that it is to steer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sd_convert
from sd_convert import Facts

from sd_controlnet.errors import BaseModelError

#: sd_convert's kinds by name: what a ControlNet has in common with its UNet is taken from there.
KINDS: Final = {kind.name: kind for kind in sd_convert.KINDS}


def check_base(facts: Facts, where: str, dimensions: Mapping[str, tuple[Any, Any]]) -> None:
    """Hold ``dimensions``, name -> (the network's, the model's), against each other.

    Raises:
        BaseModelError: all that differ.
    """
    other = [f"{name} {got} instead of {due}" for name, (got, due) in dimensions.items() if got != due]
    if other:
        raise BaseModelError(
            f"{where}: expected a network made for {facts.family.title} as in {facts.name}, got "
            f"{', '.join(other)}: it was made for another model"
        )

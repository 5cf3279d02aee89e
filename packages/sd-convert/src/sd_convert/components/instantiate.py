"""Build a network from its config without memory for its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sd_convert.errors import UnsupportedArchitectureError

T = TypeVar("T")


def on_meta_device(build: Callable[[], T], *, where: str) -> T:
    """The result of ``build`` with torch's meta device as the default.

    Raises:
        UnsupportedArchitectureError: the class that the config is for refuses its values.
    """
    import torch

    try:
        with torch.device("meta"):
            return build()
    except (
        Exception
    ) as error:  # a config is data from outside: its values can lead to any error of the libraries
        reason = " ".join(str(error).split())
        raise UnsupportedArchitectureError(
            f"{where}: expected a config that its class accepts, got {type(error).__name__}: {reason:.300}"
        ) from error

"""The ports through which a ControlNet speaks to a UNet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sd_controlnet.errors import ControlNetError

_RESIDUAL = re.compile(r"additional_residual_(\d+)")


class Port(Protocol):
    """A named input; a manifest's ``PortSpec`` and sd-mil's ``Port`` both are one."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, batch included."""
        ...

    @property
    def dtype(self) -> str:
        """numpy's name of its dtype."""
        ...


def zero_residuals(ports: Iterable[Port]) -> dict[str, npt.NDArray[Any]]:
    """Zeros for every ``additional_residual_i`` of ``ports``: the UNet then draws as without a ControlNet.

    A UNet converted for ControlNet adds ``additional_residual_0 ... n`` to its skip connections and its
    middle block, and cannot run without them. The other ports are left out of the result.

    Raises:
        ControlNetError: no such port, or a gap in their numbers: not a UNet that takes residuals.
    """
    residuals = {port.name: port for port in ports if _RESIDUAL.fullmatch(port.name)}
    expected = {f"additional_residual_{index}" for index in range(len(residuals))}
    if not residuals or set(residuals) != expected:
        raise ControlNetError(
            "expected the input ports of a UNet converted for ControlNet (additional_residual_0, _1, ...), "
            f"got {', '.join(sorted(residuals)) or 'none of them'}"
        )
    return {name: np.zeros(port.shape, dtype=port.dtype) for name, port in residuals.items()}

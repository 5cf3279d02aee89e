"""What ControlNets and adapters give a UNet beside the rest, or zeros where nobody steers it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

#: How the names of a ControlNet's residuals begin, and of those of a T2I-Adapter.
RESIDUAL = "additional_residual_"
ADAPTER_RESIDUAL = "adapter_res_samples_"

#: How the names of an IP-Adapter's image tokens begin, a number follows; and the name of the scales of all.
IMAGE_TOKENS = "ip_hidden_states_"
IMAGE_SCALE = "ip_adapter_scale"


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
    """Zeros for each of ``ports`` that steers: with them, the UNet draws what a plain one draws."""
    return {
        port.name: np.zeros(port.shape, dtype=port.dtype)
        for port in ports
        if port.name.startswith((RESIDUAL, ADAPTER_RESIDUAL, IMAGE_TOKENS, IMAGE_SCALE))
    }

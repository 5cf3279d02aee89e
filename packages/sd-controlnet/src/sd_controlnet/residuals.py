"""The ports through which a ControlNet speaks to a UNet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt
import sd_runtime
from sd_runtime import Port

from sd_controlnet.errors import ControlNetError

_RESIDUAL = re.compile(r"additional_residual_(\d+)")


def zero_residuals(ports: Iterable[Port]) -> dict[str, npt.NDArray[Any]]:
    """Zeros for every ``additional_residual_i`` of ``ports``: the UNet then draws as without a ControlNet.

    A UNet converted for ControlNet adds ``additional_residual_0 ... n`` to its skip connections and its
    middle block, and cannot run without them. The other ports are left out of the result.

    Raises:
        ControlNetError: no such port, or a gap in their numbers: not a UNet that takes residuals.
    """
    residuals = sd_runtime.zero_residuals(port for port in ports if _RESIDUAL.fullmatch(port.name))
    expected = {f"additional_residual_{index}" for index in range(len(residuals))}
    if not residuals or set(residuals) != expected:
        raise ControlNetError(
            "expected the input ports of a UNet converted for ControlNet (additional_residual_0, _1, ...), "
            f"got {', '.join(sorted(residuals)) or 'none of them'}"
        )
    return residuals

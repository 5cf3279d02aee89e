"""Whether a ControlNet and a UNet fit: by the names and shapes of what one adds to the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdc.resources.names import RESIDUAL, Resource, ResourcesError


def check_controlnet(package: Path, unets: Sequence[Resource]) -> None:
    """Refuse a package that is no ControlNet, or one for another UNet or another picture size.

    Raises:
        ResourcesError: so.
        SdMilError: it cannot be read.
    """
    from sd_mil import read_package

    described = read_package(package).description
    if "controlnet_cond" not in {port.name for port in described.inputs}:
        raise ResourcesError(f"{package}: expected a ControlNet with an input 'controlnet_cond', got none")
    adds = {port.name: port.shape for port in described.outputs}
    takes = {port.name: port.shape for one in unets for port in one.bundle.only("denoiser").inputs}
    takes = {name: shape for name, shape in takes.items() if name.startswith(RESIDUAL)}
    for name in sorted({*adds, *takes}):
        if adds.get(name) != takes.get(name):
            raise ResourcesError(
                f"{package}: expected {name} of shape {takes.get(name)}, as the UNet takes it, "
                f"got {adds.get(name)}: convert both for the same picture size and batch"
            )

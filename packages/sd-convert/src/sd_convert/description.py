"""What a package says about itself: ports, and metadata that apps read."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib.metadata import version

from sd_mil import Description, Port

from .component import Component, PortSpec


def describe(component: Component) -> Description:
    """The description of the component's package."""
    return Description(
        inputs=tuple(map(_port, component.inputs)),
        outputs=tuple(map(_port, component.outputs)),
        short_description=component.short_description,
        version=component.version,
        author=component.author,
        license=component.license,
        user_defined={**_tools(), **component.user_defined},
    )


def _port(port: PortSpec) -> Port:
    return Port(port.name, port.shape, port.dtype, port.description)


def _tools() -> dict[str, str]:
    """The keys that coremltools itself writes into every package it converts."""
    facts = {
        "version": version("coremltools"),
        "source": f"torch=={version('torch')}",
        "source_dialect": "TorchExport::ATEN",
        "conversion_date": conversion_date(),
    }
    return {f"com.github.apple.coremltools.{name}": fact for name, fact in facts.items()}


def conversion_date() -> str:
    """Today in UTC, ``2026-01-31``; the day of ``SOURCE_DATE_EPOCH`` where that is set.

    Source: https://reproducible-builds.org/specs/source-date-epoch
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.date().isoformat()

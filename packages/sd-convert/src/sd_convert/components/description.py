"""What a package says about itself: ports, and metadata that apps read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from sd_mil import Description, Port

from .component import Component, PortSpec
from .metadata import Metadata


def describe(component: Component) -> Description:
    """The description of the component's package."""
    metadata: Metadata = {
        "short_description": component.short_description,
        "version": component.version,
        "author": component.author,
        "license": component.license,
        "user_defined": dict(component.user_defined),
    }
    return described(component.inputs, component.outputs, metadata)


def described(inputs: Iterable[PortSpec], outputs: Iterable[PortSpec], metadata: Metadata) -> Description:
    """The description of a package with these ports."""
    return Description(
        inputs=tuple(map(_port, inputs)),
        outputs=tuple(map(_port, outputs)),
        short_description=metadata["short_description"],
        version=metadata["version"],
        author=metadata["author"],
        license=metadata["license"],
        user_defined={**_tools(), **metadata["user_defined"]},
    )


def _port(port: PortSpec) -> Port:
    return Port(port.name, port.shape, port.dtype, port.description)


def _tools() -> dict[str, str]:
    """The keys that coremltools itself writes into every package it converts; of what is not here, none."""
    coremltools, torch = installed("coremltools"), installed("torch")
    facts = {
        **({} if coremltools is None else {"version": coremltools}),
        **({} if torch is None else {"source": f"torch=={torch}"}),
        "source_dialect": "TorchExport::ATEN",
        "conversion_date": conversion_date(),
    }
    return {f"com.github.apple.coremltools.{name}": fact for name, fact in facts.items()}


def installed(package: str) -> str | None:
    """The version of a package, None if there is none: what was kept needs no torch."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def conversion_date() -> str:
    """Today in UTC, ``2026-01-31``; the day of ``SOURCE_DATE_EPOCH`` where that is set.

    Source: https://reproducible-builds.org/specs/source-date-epoch
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.date().isoformat()

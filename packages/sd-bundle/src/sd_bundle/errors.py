"""What can go wrong between a folder and a bundle.

BundleError             a folder that cannot be read, written or used as a bundle
├── ManifestError         manifest.json breaks a rule of FORMAT.md: where, expected, got
├── IntegrityError        a file is missing, or is not the one that the manifest lists
├── PortsError            a package's own ports are not those of the manifest
├── MissingComponentError the bundle is sound, but lacks a component or a size that the task needs
├── UnsupportedBundleError the bundle is sound, but what is asked does not fit several packages or sizes
└── OutputExistsError     the folder to write to is taken
"""

from __future__ import annotations


class BundleError(ValueError):
    """A folder that cannot be read, written or used as a bundle."""


class ManifestError(BundleError):
    """``manifest.json`` breaks a rule.

    ``where`` is the JSON path of the offending value (``$.components[0].role``).
    """

    def __init__(self, where: str, expected: str, got: object) -> None:
        """Keep the three parts apart, so that an outer reader can prefix ``where``."""
        self.where, self.expected, self.got = where, expected, got
        place = _shortened(Literally(where))
        super().__init__(f"manifest.json at {place}: expected {expected}, got {_shortened(got)}")


class IntegrityError(BundleError):
    """A file is missing, or its size or sha256 is not the manifest's."""


class PortsError(BundleError):
    """A package's own ports are not those that the manifest states."""


class MissingComponentError(BundleError):
    """The bundle lacks a component, or a picture size, that the task needs."""


class UnsupportedBundleError(BundleError):
    """A sound bundle with more packages or picture sizes than whoever reads it can deal with."""


class OutputExistsError(BundleError):
    """The folder to write to is taken."""


def _shortened(value: object, limit: int = 120) -> str:
    """``value`` on one line of printable characters: what a file holds may be anything."""
    text = value if isinstance(value, Literally) and value.isprintable() else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Literally(str):
    """Text to show in a message as it stands, without quotes."""

    __slots__ = ()

"""What can go wrong between a bundle and an image.

SdRuntimeError
├── EngineError             the engine asked for does not exist, or cannot run here
├── SettingsError           an argument of a generation makes no sense: which, expected, got
├── UserImageError          a file given as a picture cannot be read as one
├── NumericsError           a network returned NaN or infinity: which one
└── ImageTextError          a picture without readable settings

PromptTruncatedWarning      (UserWarning) the prompt was longer than the text encoder's window

What is wrong with the bundle itself is a sd_bundle.BundleError.
"""

from __future__ import annotations


class SdRuntimeError(ValueError):
    """Base of the errors on bad input that are sd-runtime's own; those of bundles are ``BundleError``."""


class EngineError(SdRuntimeError):
    """The engine asked for does not exist, or cannot run on this platform."""


class SettingsError(SdRuntimeError):
    """An argument of a generation makes no sense."""


class UserImageError(SdRuntimeError):
    """A file given as a picture cannot be read as one."""


class NumericsError(SdRuntimeError):
    """A network returned NaN or infinity."""


class ImageTextError(SdRuntimeError):
    """A picture without readable settings, or one that has no room for them."""


class PromptTruncatedWarning(UserWarning):
    """The prompt was longer than the text encoder's window; the message names what was cut."""

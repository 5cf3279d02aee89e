"""What packages say about themselves, in the words that apps and Apple's converter use.

Source: apple/ml-stable-diffusion ``torch2coreml.py`` for the standard fields; the user-defined keys are those
that GuernikaModelConverter writes and apps read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Final, TypedDict

from sd_convert.conversion.options import ConversionOptions
from sd_convert.facts import Facts

SUMMARY: Final = (
    "Stable Diffusion generates images conditioned on text and/or other images as input through the "
    "diffusion process. Please refer to https://arxiv.org/abs/2112.10752 for details."
)


#: What no file name has on every system; a bundle's manifest refuses it.
_UNPORTABLE: Final = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


class Metadata(TypedDict):
    """The fields of a :class:`~sd_convert.Component` that say what it is."""

    short_description: str
    version: str
    author: str
    license: str
    user_defined: dict[str, str]


def describe(
    facts: Facts,
    options: ConversionOptions,
    *,
    summary: str,
    notes: Mapping[str, str],
    identifier: str | None = None,
) -> Metadata:
    """The metadata of a component: ``summary`` is a sentence, ``notes`` are what is said of it alone.

    ``identifier``: of a network from elsewhere; None is the model version.
    """
    identifier = identifier or model_version(facts, options)
    return Metadata(
        short_description=summary,
        version=identifier,
        author=f"Please refer to the Model Card available at huggingface.co/{identifier}",
        license=facts.family.license,
        user_defined={
            "identifier": identifier,
            "converter_version": version("sd-convert"),
            "attention_implementation": options.attention_implementation,
            "compute_unit": options.resolved_compute_unit,
            **notes,
        },
    )


def package_name(version: str, component: str) -> str:
    """``Stable_Diffusion_version_<version>_<component>.mlpackage``, the name that the ecosystem knows."""
    return f"Stable_Diffusion_version_{portable(version)}_{component}.mlpackage"


def portable(name: str) -> str:
    """``name`` as part of a file name on every system: ``org/model`` is ``org_model``."""
    return _UNPORTABLE.sub("_", name)


def model_version(facts: Facts, options: ConversionOptions) -> str:
    """The name that files and metadata carry."""
    return options.model_version or facts.name

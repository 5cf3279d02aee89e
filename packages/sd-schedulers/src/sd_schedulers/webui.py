"""What AUTOMATIC1111's web UI calls schedulers and spacings in the texts of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

#: ``Sampler``. Source: modules/sd_samplers_kdiffusion.py, sd_samplers_timesteps.py there.
SAMPLER_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pndm": "PLMS",
        "ddim": "DDIM",
        "euler": "Euler",
        "euler_ancestral": "Euler a",
        "heun": "Heun",
        "lms": "LMS",
        "dpm_2": "DPM2",
        "dpm_2_ancestral": "DPM2 a",
        "dpmpp_2m": "DPM++ 2M",
        "dpmpp_2m_sde": "DPM++ 2M SDE",
        "dpmpp_sde": "DPM++ SDE",
        "unipc": "UniPC",
        "lcm": "LCM",
    }
)

#: ``Schedule type``, by the config key that is true. Source: modules/sd_schedulers.py there.
SCHEDULE_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "use_karras_sigmas": "Karras",
        "use_exponential_sigmas": "Exponential",
        "use_beta_sigmas": "Beta",
    }
)
#: The schedulers that it has without a choice of ``Schedule type``.
_WITHOUT_TYPE: Final = frozenset(("pndm", "ddim", "unipc"))


def sampler_name(scheduler: str) -> str | None:
    """``Sampler`` for a scheduler's name here; None where the web UI has no such sampler."""
    return SAMPLER_NAMES.get(scheduler)


def schedule_type(scheduler: str, config: Mapping[str, object]) -> str | None:
    """``Schedule type`` for a scheduler and its config; None where the web UI has no name for it.

    Example:
        >>> schedule_type("dpmpp_2m", {"use_karras_sigmas": True})
        'Karras'
    """
    if scheduler not in SAMPLER_NAMES or scheduler in _WITHOUT_TYPE:
        return None
    return next((name for key, name in SCHEDULE_TYPES.items() if config.get(key) is True), None)

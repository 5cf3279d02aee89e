"""What AUTOMATIC1111's web UI calls schedulers and spacings in the texts of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sd_schedulers.named_spacings import SPACINGS
from sd_schedulers.registry import SCHEDULERS

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

#: The schedulers that it has without a choice of ``Schedule type``.
_WITHOUT_TYPE: Final = frozenset(("pndm", "ddim", "unipc"))
#: Those that leave the last of evenly spaced timesteps out, which is what the web UI calls SGM Uniform.
_WITHOUT_LAST: Final = frozenset(("dpmpp_2m", "dpmpp_2m_sde"))


def sampler_name(scheduler: str) -> str | None:
    """``Sampler`` for a scheduler's name here; None where the web UI has no such sampler."""
    return SAMPLER_NAMES.get(scheduler)


def schedule_type(scheduler: str, config: Mapping[str, object], *, spacing: str | None = None) -> str | None:
    """``Schedule type`` for a scheduler and its config; None where the web UI has no name for it.

    ``spacing`` is what was asked for in place of the config's. A spacing that neither states is the
    scheduler's own, and has no name.

    Example:
        >>> schedule_type("dpmpp_2m", {"use_karras_sigmas": True})
        'Karras'
    """
    if scheduler not in SAMPLER_NAMES or scheduler in _WITHOUT_TYPE:
        return None
    name = spacing or _stated(scheduler, config)
    if name == "linspace" and scheduler in _WITHOUT_LAST:
        name = "trailing"
    return None if name is None else SPACINGS[name].webui


def _stated(scheduler: str, config: Mapping[str, object]) -> str | None:
    """What the config asks for and the scheduler honours; chosen noise levels before chosen timesteps."""
    stated = [
        spacing.name
        for spacing in SPACINGS.values()
        if spacing.key is not None
        and config.get(spacing.key) == spacing.value
        and spacing.is_honoured_by(SCHEDULERS[scheduler])
    ]
    return stated[-1] if stated else None

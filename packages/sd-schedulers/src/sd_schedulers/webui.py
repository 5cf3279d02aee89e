"""What AUTOMATIC1111's web UI calls schedulers and spacings in the texts of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sd_schedulers.errors import ScheduleError
from sd_schedulers.named_spacings import SPACINGS, spacing_named
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
#: What ``Automatic`` means where it is not ``Uniform``. Source: ``scheduler`` in the options of each, there.
_AUTOMATIC: Final[Mapping[str, str]] = MappingProxyType(
    {
        "dpm_2": "karras",
        "dpm_2_ancestral": "karras",
        "dpmpp_2m": "karras",
        "dpmpp_2m_sde": "exponential",
        "dpmpp_sde": "karras",
    }
)
#: LCM has timesteps of its own, here and there.
_WITH_OWN_TIMESTEPS: Final = frozenset((*_WITHOUT_TYPE, "lcm"))


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


def sampler_named(sampler: str, schedule_type: str | None = None) -> tuple[str, str | None]:
    """The scheduler and the spacing that the web UI means; None for a scheduler that has no choice of one.

    In any case. Its texts before version 1.9 have both in one: ``DPM++ 2M Karras``.

    Raises:
        ScheduleError: it has no such sampler or schedule type, or nothing here is the same.

    Example:
        >>> sampler_named("Euler a")
        ('euler_ancestral', 'linspace')
        >>> sampler_named("DPM++ 2M Karras")
        ('dpmpp_2m', 'karras')
    """
    scheduler, rest = _scheduler_and_rest(sampler)
    stated = schedule_type or rest or "Automatic"
    if stated.lower() == "automatic":
        own = None if scheduler in _WITH_OWN_TIMESTEPS else "linspace"
        return scheduler, _AUTOMATIC.get(scheduler, own)
    spacing = spacing_named(stated).name
    if spacing == "linspace" and scheduler in _WITHOUT_LAST:
        raise ScheduleError(f"expected another schedule type than Uniform with {sampler}: nothing here is it")
    if spacing == "trailing" and scheduler in _WITHOUT_LAST:
        spacing = "linspace"
    return scheduler, spacing


def _scheduler_and_rest(sampler: str) -> tuple[str, str]:
    """By the longest name that ``sampler`` begins with; what follows it is a schedule type."""
    types = {"", *(spacing.webui.lower() for spacing in SPACINGS.values() if spacing.webui)}
    for scheduler, name in SAMPLER_NAMES.items():
        begins, rest = sampler[: len(name)].lower() == name.lower(), sampler[len(name) :].strip()
        if begins and rest.lower() in types:
            return scheduler, rest
    raise ScheduleError(f"expected a sampler of {', '.join(SAMPLER_NAMES.values())}; got {sampler!r}")

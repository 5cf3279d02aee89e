"""The web UI's hires fix, in the fields of ``txt2img``.

Source: AUTOMATIC1111's web UI, modules/processing.py (``StableDiffusionProcessingTxt2Img``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sdc.serve.webui_values import flag, integer, real, refused, shown

#: What is left out there: its default values.
_SCALE: Final = 2.0
_STRENGTH: Final = 0.75
#: Fields with which the second pass would be of another kind, and with which values it is not.
_SAME: Final = (
    "hr_resize_x",
    "hr_resize_y",
    "hr_checkpoint_name",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_prompt",
    "hr_negative_prompt",
    "hr_additional_modules",
    "hr_cfg",
)
#: Every field of it.
HIRES: Final = frozenset(
    (
        "enable_hr",
        "hr_scale",
        "hr_upscaler",
        "hr_second_pass_steps",
        "denoising_strength",
        *_SAME,
    )
)


def hires_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a request for the second pass that ``fields`` ask for; none where they do not.

    Raises:
        Refused: a value makes no sense, or a field asks for what is not here.
    """
    if not flag("enable_hr", fields.get("enable_hr") or False):
        return {}
    for name in _SAME:
        if fields.get(name) not in (None, "", 0, []):
            raise refused(
                name, f"expected no {name}, got {shown(fields[name])}: the second pass is as the first"
            )
    strength, steps = fields.get("denoising_strength"), fields.get("hr_second_pass_steps")
    scale = fields.get("hr_scale")
    return {
        "hires_scale": _SCALE if scale is None else real("hr_scale", scale),
        "hires_strength": _STRENGTH if strength is None else real("denoising_strength", strength),
        "hires_steps": integer("hr_second_pass_steps", steps) or None if steps is not None else None,
        "hires_upscaler": _upscaler(fields.get("hr_upscaler")),
    }


def _upscaler(name: object) -> str:
    """Ours of that name; the web UI's default is the latent."""
    from sd_runtime import UPSCALERS

    for own, theirs in UPSCALERS.items():
        if name in (own, theirs) or name is None:
            return own
    raise refused(
        "hr_upscaler", f"expected an hr_upscaler of {', '.join(UPSCALERS.values())}, got {shown(name)}"
    )


def upscalers() -> list[dict[str, Any]]:
    """Those of pixels, as the web UI lists them."""
    from sd_runtime import UPSCALERS

    none = {"model_name": None, "model_path": None, "model_url": None, "scale": 4}
    return [{"name": name, **none} for own, name in UPSCALERS.items() if own != "latent"]


def latent_upscale_modes() -> list[dict[str, str]]:
    """Those of latents."""
    from sd_runtime import UPSCALERS

    return [{"name": UPSCALERS["latent"]}]

"""The web UI's inpainting, in the fields of ``img2img``.

Source: AUTOMATIC1111's web UI, modules/processing.py (``StableDiffusionProcessingImg2Img``,
``create_binary_mask``) and modules/api/models.py, whose defaults these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sdc.serve.webui_values import flag, integer, picture_of, real, refused, shown

if TYPE_CHECKING:
    from PIL.Image import Image

_BLUR: Final = 4.0
#: By the number of ``inpainting_fill``; the first is what is left out.
_CONTENTS: Final = ("fill", "original", "latent_noise", "latent_nothing")
#: Every field of it but the mask.
MASKS: Final = frozenset(
    (
        "mask_blur",
        "mask_blur_x",
        "mask_blur_y",
        "inpainting_fill",
        "inpaint_full_res",
        "inpaint_full_res_padding",
        "inpainting_mask_invert",
        "mask_round",
    )
)


def masks_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a request for the mask in ``fields``; none without one.

    Raises:
        Refused: a value makes no sense.
    """
    if fields.get("mask") is None:
        return {}
    from PIL import ImageOps

    if not _flag(fields, "mask_round", default=True):
        raise refused(
            "mask_round", "expected mask_round to be true, got false: masks with shades paint nothing"
        )
    mask = binary(picture_of(fields["mask"], "mask"))
    if _flag(fields, "inpainting_mask_invert", default=False):
        mask = ImageOps.invert(mask)
    options = {"mask": mask, "mask_blur": _blur(fields), "mask_content": _content(fields)}
    if _flag(fields, "inpaint_full_res", default=True):
        padding = fields.get("inpaint_full_res_padding")
        options["padding_mask_crop"] = 0 if padding is None else integer("inpaint_full_res_padding", padding)
    return options


def binary(mask: Image) -> Image:
    """``mask`` in grey; of one with clear parts, white where it is not clear, whatever its colours."""
    if mask.mode == "RGBA" and (alpha := mask.getchannel("A")).getextrema() != (255, 255):
        return alpha.point([255 * (value > 128) for value in range(256)])
    return mask.convert("L")


def _flag(fields: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = fields.get(name)
    return default if value is None else flag(name, value)


def _blur(fields: Mapping[str, Any]) -> float:
    """One number for both directions; ``mask_blur`` stands for the other two."""
    both = fields.get("mask_blur")
    if both is not None:
        return real("mask_blur", both)
    sides = []
    for name in ("mask_blur_x", "mask_blur_y"):
        value = fields.get(name)
        sides.append(_BLUR if value is None else real(name, value))
    if sides[0] != sides[1]:
        raise refused(
            "mask_blur_y", f"expected one mask_blur for both directions, got {sides[0]:g} and {sides[1]:g}"
        )
    return sides[0]


def _content(fields: Mapping[str, Any]) -> str:
    value = fields.get("inpainting_fill")
    number = 0 if value is None else integer("inpainting_fill", value)
    if number not in range(len(_CONTENTS)):
        raise refused("inpainting_fill", f"expected an inpainting_fill from 0 to 3, got {shown(value)}")
    return _CONTENTS[number]

"""The fields of the web UI's ``txt2img`` and ``img2img``: what each means here, or why it is refused.

Source: AUTOMATIC1111's web UI, modules/api/models.py and modules/processing.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sdc.serve.webui_hires import HIRES, hires_of
from sdc.serve.webui_masks import MASKS, masks_of
from sdc.serve.webui_values import Read, integer, number, picture_of, real, refused, shown, text, whole

if TYPE_CHECKING:
    from sd_runtime import ImageSize

#: Pictures of one request.
MOST: Final = 64
#: A random seed is asked for by -1, and drawn from 32 bits, which every generator takes.
_RANDOM: Final = -1

#: Fields that say nothing about a picture.
_INERT: Final = frozenset(
    (
        "send_images",
        "save_images",
        "do_not_save_samples",
        "do_not_save_grid",
        "override_settings_restore_afterwards",
        "include_init_images",
        "force_task_id",
        "disable_extra_networks",
        "comments",
        "infotext",
        "sampler_index",
    )
)
#: Values with which a field that is not honoured changes nothing.
_NOTHING: Final[Mapping[str, tuple[object, ...]]] = {
    **dict.fromkeys(("restore_faces", "tiling"), (None, False)),
    **dict.fromkeys(("s_churn", "s_tmin", "resize_mode"), (None, 0)),
    **dict.fromkeys(("seed_resize_from_h", "seed_resize_from_w"), (None, 0, -1)),
    **dict.fromkeys(("firstphase_width", "firstphase_height"), (None, 0)),
    **dict.fromkeys(("script_name", "refiner_checkpoint", "firstpass_image", "latent_mask"), (None, "")),
    **{name: (None, [], {}) for name in ("styles", "script_args", "alwayson_scripts")},
    "s_noise": (None, 1),
    "initial_noise_multiplier": (None, 1),
    "s_tmax": (None, 0),
    "s_min_uncond": (None, 0),
}
#: Without effect while what they belong to is off.
_BELONGS: Final = {"refiner_switch_at": "refiner_checkpoint"}
_OF_HIRES: Final = ("enable_hr", "hr_", "denoising_strength")
_OF_MASKS: Final = ("mask_", "inpaint", "latent_mask")
_ONLY_OF_IMAGES: Final = MASKS | {"init_images", "mask", "denoising_strength"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Pictures: their size, ``options`` of the first (its seed among them), and how many."""

    size: ImageSize
    options: dict[str, Any]
    count: int


def wanted(
    fields: Mapping[str, Any], sizes: list[ImageSize], *, from_image: bool, title: str, clip_skip: int = 1
) -> Wanted:
    """What ``fields`` ask for; what they leave out is the model's own default.

    Raises:
        Refused: a field has a wrong type or value, or would change the picture and is not honoured here.
    """
    options: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _READ and value is not None:
            options |= _READ[name](name, value)
        elif value is not None and not _changes_nothing(name, value, fields, from_image=from_image):
            raise refused(name, f"expected no {name}, got {shown(value)}: it would change the picture")
    options |= _sampling(fields) | _overrides(fields, title, clip_skip)
    options |= _pictures(fields) if from_image else hires_of(fields)
    options |= _variation(fields)
    options.setdefault("prompt", "")
    options["prompt_syntax"] = "a1111"  # weights, escapes and BREAK, as its clients write them
    options["seed"] = _seed(options.get("seed", _RANDOM))
    return Wanted(_size(fields, sizes), options, _count(fields))


def _changes_nothing(name: str, value: object, fields: Mapping[str, Any], *, from_image: bool) -> bool:
    if name in _INERT or (from_image and name in _ONLY_OF_IMAGES) or name in _OWN:
        return True
    for begins, switch in _BELONGS.items():
        if name.startswith(begins) and name != switch:
            return fields.get(switch) in _NOTHING[switch]
    if name.startswith(_OF_MASKS) and fields.get("mask") is None:
        return True
    if name.startswith(_OF_HIRES):  # of txt2img; without its switch, nothing of it matters
        return fields.get("enable_hr") in (None, False) or (not from_image and name in HIRES)
    return name in _NOTHING and any(
        value == each and isinstance(value, bool) is isinstance(each, bool) for each in _NOTHING[name]
    )


#: By the field: what reads its value into an option of a request.
_READ: Final[Mapping[str, Read]] = {
    "prompt": text("prompt"),
    "negative_prompt": text("negative_prompt"),
    "seed": whole("seed"),
    "steps": whole("num_inference_steps"),
    "cfg_scale": number("guidance_scale"),
    "eta": number("eta"),
    "image_cfg_scale": number("image_guidance_scale"),
}
#: Read elsewhere, since each means something together with others.
_OWN: Final = frozenset(
    (
        "width",
        "height",
        "n_iter",
        "batch_size",
        "sampler_name",
        "scheduler",
        "override_settings",
        "subseed",
        "subseed_strength",
    )
)


def _size(fields: Mapping[str, Any], sizes: list[ImageSize]) -> ImageSize:
    """One of the bundle's: the first that fits what is said of it."""
    stated = {name: fields[name] for name in ("width", "height") if fields.get(name) is not None}
    for size in sizes:
        if all(getattr(size, name) == integer(name, value) for name, value in stated.items()):
            return size
    have, name = ", ".join(map(str, sizes)), next(iter(stated))
    raise refused(name, f"expected a picture size of {have}, got {stated}")


def _count(fields: Mapping[str, Any]) -> int:
    count = 1
    for name in ("n_iter", "batch_size"):
        given = fields.get(name)
        factor = 1 if given is None else integer(name, given)
        count *= factor
        if factor < 1 or count > MOST:
            raise refused(name, f"expected 1 to {MOST} pictures, got {name} {factor}")
    return count


def _sampling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The web UI's samplers and schedule types, or the names of ours."""
    from sd_schedulers import SCHEDULERS, ScheduleError, resolve, sampler_named, spacing_named

    sampler = fields.get("sampler_name") or fields.get("sampler_index") or None
    kind = fields.get("scheduler") or None
    for name, value in (("sampler_name", sampler), ("scheduler", kind)):
        text(name)(name, "" if value is None else value)
    try:
        if sampler in SCHEDULERS or sampler is None:
            own = {} if sampler is None else {"scheduler": resolve(sampler)}
            automatic = kind is None or kind.lower() == "automatic"
            return own if automatic else {**own, "spacing": spacing_named(kind or "").name}
        scheduler, spacing = sampler_named(sampler, kind)
    except ScheduleError as error:
        is_of_kind = "schedule type" in str(error) or "spacing" in str(error)
        raise refused("scheduler" if is_of_kind else "sampler_name", str(error)) from None
    return {"scheduler": scheduler} if spacing is None else {"scheduler": scheduler, "spacing": spacing}


def _seed(stated: int) -> int:
    """The one that is stated, or a random one."""
    return secrets.randbelow(2**32 - MOST) if stated == _RANDOM else stated


def _variation(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Another seed, and how much of its noise; without a strength it plays no part."""
    strength, other = fields.get("subseed_strength"), fields.get("subseed")
    if strength is None or not (share := real("subseed_strength", strength)):
        return {}
    seed = _RANDOM if other is None else integer("subseed", other)
    return {"variation_seed": _seed(seed), "variation_strength": share}


def _overrides(fields: Mapping[str, Any], title: str, clip_skip: int) -> dict[str, Any]:
    """``override_settings``: the generator of noise; others only as they are."""
    from sd_runtime import RNGS, SEEDS

    given = fields.get("override_settings") or {}
    if not isinstance(given, dict):
        raise refused("override_settings", f"expected an object, got {shown(given)}")
    options: dict[str, Any] = {}
    as_it_is = {
        "sd_model_checkpoint": (title,),
        "CLIP_stop_at_last_layers": (clip_skip,),
        "eta_noise_seed_delta": (0,),
    }
    for name, value in given.items():
        rng = RNGS.get(str(value), str(value).lower())
        if name == "randn_source" and rng in SEEDS:
            options["rng"] = rng
        elif value not in as_it_is.get(name, ()):
            raise refused(
                f"override_settings.{name}",
                f"expected no override of {name}, got {shown(value)}: not honoured",
            )
    return options


def _pictures(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Of ``img2img``: the picture to start from, strength, and a mask."""
    images = fields.get("init_images")
    if not isinstance(images, list) or len(images) != 1:
        raise refused("init_images", f"expected a list of one picture, got {shown(images)}")
    options: dict[str, Any] = {"image": picture_of(images[0], "init_images")}
    if fields.get("denoising_strength") is not None:
        options |= number("strength")("denoising_strength", fields["denoising_strength"])
    return options | masks_of(fields)

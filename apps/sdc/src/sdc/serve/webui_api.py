"""The web UI's HTTP API over a studio, for the programs that speak it.

Source: AUTOMATIC1111's web UI, modules/api/api.py.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from sdc.serve.messages import Refused
from sdc.serve.webui_fields import wanted
from sdc.serve.webui_hires import latent_upscale_modes, upscalers
from sdc.serve.webui_values import picture_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from sd_runtime import GeneratedImage

    from sdc.serve.gallery import Gallery
    from sdc.serve.studio import Drawn, Studio

Json = Any
#: What is there at the web UI and not here: lists that clients ask for and find empty.
_EMPTY: Final = (
    "face-restorers",
    "hypernetworks",
    "loras",
    "prompt-styles",
    "realesrgan-models",
    "sd-vae",
)


@dataclass(frozen=True, slots=True)
class WebuiApi:
    """``get`` and ``post`` are what can be asked, by the last part of ``/sdapi/v1/…``."""

    studio: Studio
    gallery: Gallery

    @property
    def get(self) -> Mapping[str, Callable[[Mapping[str, str]], Json]]:
        """Functions of the query."""
        return {
            "progress": self._progress,
            "samplers": lambda _: samplers(),
            "schedulers": lambda _: schedule_types(),
            "sd-models": lambda _: [self._model()],
            "options": lambda _: self._options(),
            "upscalers": lambda _: upscalers(),
            "latent-upscale-modes": lambda _: latent_upscale_modes(),
            "embeddings": lambda _: {
                "loaded": {name: {} for name in self.studio.embeddings},
                "skipped": {},
            },
            "cmd-flags": lambda _: {},
            "scripts": lambda _: {"txt2img": [], "img2img": []},
            **{name: lambda _: [] for name in _EMPTY},
        }

    @property
    def post(self) -> Mapping[str, Callable[[Mapping[str, Any]], Json]]:
        """Functions of the fields in the body."""
        return {
            "txt2img": lambda fields: self._draw(fields, from_image=False),
            "img2img": lambda fields: self._draw(fields, from_image=True),
            "interrupt": self._interrupt,
            "skip": self._interrupt,
            "options": self._set_options,
            "png-info": _png_info,
        }

    @property
    def _title(self) -> str:
        return self.studio.bundle.manifest.model.identifier

    def _draw(self, fields: Mapping[str, Any], *, from_image: bool) -> Json:
        from sd_bundle import BundleError
        from sd_runtime import SdRuntimeError
        from sd_schedulers import ScheduleError

        asked = wanted(
            fields,
            self.studio.sizes,
            from_image=from_image,
            title=self._title,
            clip_skip=self.studio.clip_skip,
        )
        kept: list[str] = []

        def keep(drawn: GeneratedImage) -> None:
            kept.append(self.gallery.add(drawn))

        try:
            drawn = self.studio.draw(asked.size, asked.options, asked.count, keep)
        except (BundleError, SdRuntimeError, ScheduleError) as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        images = [
            *(_saved(picture) for picture in drawn.pictures),
            *([_bare(drawn.cut)] if drawn.cut else []),
        ]
        shown = {name: value for name, value in fields.items() if name not in ("init_images", "mask")}
        sent = images if fields.get("send_images") is not False else []
        return {"images": sent, "parameters": shown, "info": json.dumps(_info(drawn, kept))}

    def _progress(self, query: Mapping[str, str]) -> Json:
        now = self.studio.progress
        preview = None
        if query.get("skip_current_image", "").lower() != "true":
            preview = self.studio.preview()
        state = {
            "skipped": False,
            "interrupted": False,
            "stopping_generation": False,
            "job": "scripts_txt2img" if now.count else "",
            "job_count": now.count,
            "job_timestamp": "0",
            "job_no": now.index,
            "sampling_step": now.done,
            "sampling_steps": now.steps,
        }
        return {
            "progress": now.share,
            "eta_relative": now.seconds_left,
            "state": state,
            "current_image": None if preview is None else _bare(preview),
            "textinfo": None,
        }

    def _interrupt(self, _: Mapping[str, Any]) -> Json:
        self.studio.interrupt()
        return {}

    def _model(self) -> Json:
        name = self._title
        return {
            "title": name,
            "model_name": name,
            "hash": None,
            "sha256": None,
            "filename": self.studio.bundle.path.name,
            "config": None,
        }

    def _options(self) -> Json:
        return {
            "sd_model_checkpoint": self._title,
            "CLIP_stop_at_last_layers": self.studio.clip_skip,
            "samples_format": "png",
        }

    def _set_options(self, fields: Mapping[str, Any]) -> Json:
        """As they are; a server draws with one bundle."""
        have = self._options()
        for name, value in fields.items():
            if value != have.get(name, object()):
                detail = f"expected {name} to stay {have.get(name)!r}, got {str(value)[:80]!r}"
                raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field=name)
        return None


def samplers() -> Json:
    """Every scheduler, under the web UI's name where it has one."""
    from sd_schedulers import SCHEDULERS, sampler_name

    named = [(sampler_name(scheduler) or scheduler, scheduler) for scheduler in SCHEDULERS]
    return [{"name": name, "aliases": [own], "options": {}} for name, own in named]


def schedule_types() -> Json:
    """Every spacing, under the web UI's name where it has one."""
    from sd_schedulers import SPACINGS

    rows = [("automatic", "Automatic"), *((each.name, each.webui or each.name) for each in SPACINGS.values())]
    common = {"aliases": None, "default_rho": -1.0, "need_inner_model": False}
    return [{"name": name, "label": label, **common} for name, label in rows]


def _png_info(fields: Mapping[str, Any]) -> Json:
    """The text inside a picture, which is no setting of anything."""
    from sd_runtime import ImageTextError, read_texts

    text = fields.get("image")
    picture_of(text, "image")
    content = base64.b64decode(str(text).partition(",")[2] if str(text).startswith("data:") else str(text))
    try:
        found = read_texts(io.BytesIO(content)).parameters
    except ImageTextError:
        found = None
    return {"info": found or "", "items": {"parameters": found} if found else {}, "parameters": {}}


def _saved(drawn: GeneratedImage) -> str:
    """A PNG with its settings, in base64."""
    return base64.b64encode(drawn.png()).decode()


def _bare(image: Image) -> str:
    """A PNG without settings, in base64."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


def _info(drawn: Drawn, kept: list[str]) -> Json:
    """What the web UI calls ``info``: settings of the first, seeds and texts of each."""
    from sd_runtime import webui_text
    from sd_schedulers import sampler_name

    first, all_of = drawn.settings[0], drawn.settings
    return {
        "prompt": first.prompt,
        "all_prompts": [each.prompt for each in all_of],
        "negative_prompt": first.negative_prompt,
        "seed": first.seed,
        "all_seeds": [each.seed for each in all_of],
        "subseed": -1 if first.variation_seed is None else first.variation_seed,
        "all_subseeds": [-1 if each.variation_seed is None else each.variation_seed for each in all_of],
        "subseed_strength": first.variation_strength or 0,
        "clip_skip": first.clip_skip or 1,
        "width": first.width,
        "height": first.height,
        "sampler_name": sampler_name(first.scheduler) or first.scheduler,
        "cfg_scale": first.guidance_scale,
        "steps": first.num_inference_steps,
        "denoising_strength": first.strength or first.hires_strength,
        "sd_model_name": first.model,
        "infotexts": [webui_text(each) for each in all_of],
        "interrupted": len(drawn.pictures) < len(all_of),
        "flagged": [picture.flagged for picture in drawn.pictures],
        "files": kept,
        "warnings": list(drawn.warnings),
    }

"""From a request to an answer: who may ask, which page, which function. No socket is known here."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from sdc.serve.guard import check_sender
from sdc.serve.messages import Answer, Asked, Refused, fields_of, in_json, refusal
from sdc.serve.webui_api import WebuiApi, samplers, schedule_types

if TYPE_CHECKING:
    from sdc.serve.gallery import Gallery
    from sdc.serve.studio import Studio

_LOG: Final = logging.getLogger(__name__)
_API: Final = "/sdapi/v1/"
_GALLERY: Final = "/gallery/"
#: The page and its parts.
_PAGE: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


@dataclass(frozen=True, slots=True)
class App:
    """Answers requests to a server that is called one of ``hosts``."""

    studio: Studio
    gallery: Gallery
    hosts: Collection[str]

    def answer(self, asked: Asked) -> Answer:
        """The answer; every failure is one, too."""
        try:
            check_sender(asked.headers, self.hosts)
            return self._routed(asked)
        except Refused as refused:
            return refusal(refused)
        except Exception:
            _LOG.exception("%s %s", asked.method, asked.path)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            return refusal(Refused(status, "the server failed; its terminal says how"))

    def _routed(self, asked: Asked) -> Answer:
        try:
            address = urlsplit(asked.path)
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "expected a path") from None
        path = unquote(address.path)
        api = WebuiApi(self.studio, self.gallery)
        if path.startswith(_API):
            known = api.get if asked.method == "GET" else api.post
            if (name := path.removeprefix(_API)) in known:
                given: Any = dict(parse_qsl(address.query)) if asked.method == "GET" else fields_of(asked)
                return in_json(known[name](given))
        elif asked.method == "GET":
            return self._page(path)
        raise _nothing(asked.method, path)

    def _page(self, path: str) -> Answer:
        if path in _PAGE:
            name, kind = _PAGE[path]
            return Answer(HTTPStatus.OK, kind, files("sdc.serve").joinpath("page", name).read_bytes())
        if path == "/bundle":
            return in_json(self._bundle())
        if path == "/gallery":
            return in_json(self.gallery.listed())
        if path.startswith(_GALLERY):
            return self.gallery.file(path.removeprefix(_GALLERY))
        raise _nothing("GET", path)

    def _bundle(self) -> dict[str, Any]:
        """What the page has to know before it asks for a picture."""
        from sd_runtime import SEEDS

        model = self.studio.bundle.manifest.model
        roles = {component.role for component in self.studio.bundle.manifest.components}
        return {
            "model": model.identifier,
            "task": model.task,
            "takes_images": "image_encoder" in roles,
            "sizes": [{"width": size.width, "height": size.height} for size in self.studio.sizes],
            "samplers": [each["name"] for each in samplers()],
            "schedule_types": [each["label"] for each in schedule_types()],
            "rngs": list(SEEDS),
        }


def _nothing(method: str, path: str) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, f"expected something that is here, got {method} {path[:200]!r}")

"""What comes in and what goes out, whatever carries it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from sd_bundle import ManifestError, parse_json


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: ``path`` with its query, ``headers`` by their names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):  # noqa: N818 - an answer, and no failure of the program
    """A request that is answered with ``status`` and one sentence; ``field`` names what is wrong in it."""

    def __init__(self, status: HTTPStatus, detail: str, *, field: str | None = None) -> None:
        """``detail`` says what was expected and what came."""
        super().__init__(detail)
        self.status, self.detail, self.field = status, detail, field


def in_json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """``value`` as JSON."""
    return Answer(status, "application/json", json.dumps(value, allow_nan=False).encode())


def refusal(refused: Refused) -> Answer:
    """In the form of the web UI's errors, with the field beside."""
    detail = refused.detail
    facts = {"error": refused.status.phrase, "detail": detail, "body": "", "errors": detail}
    return in_json({**facts, "field": refused.field}, refused.status)


def fields_of(asked: Asked) -> dict[str, Any]:
    """The JSON object in the body; nothing is an empty one.

    Raises:
        Refused: another type of content, no JSON, or JSON of something else.
    """
    if not asked.body:
        return {}
    kind = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected application/json, got {kind or 'no type'}"
        )
    try:
        found = parse_json(asked.body.decode())
    except (UnicodeDecodeError, ManifestError) as error:
        raise Refused(HTTPStatus.BAD_REQUEST, f"expected JSON, got {error}") from None
    if not isinstance(found, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, f"expected a JSON object, got {type(found).__name__}")
    return found

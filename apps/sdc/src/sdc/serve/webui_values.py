"""Values of the web UI's fields, checked: each as an option of a request, or refused by the field's name."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sdc.serve.messages import Refused

if TYPE_CHECKING:
    from PIL.Image import Image

#: From a field and its value to options of a request.
Read: TypeAlias = Callable[[str, object], dict[str, Any]]

_BAD: Final = HTTPStatus.UNPROCESSABLE_ENTITY


def refused(field: str, detail: str) -> Refused:
    """What is wrong with a field."""
    return Refused(_BAD, detail, field=field)


def shown(value: object) -> str:
    """A value in a message, cut."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def text(option: str) -> Read:
    """A text."""

    def read(name: str, value: object) -> dict[str, Any]:
        if not isinstance(value, str):
            raise refused(name, f"expected a text for {name}, got {shown(value)}")
        return {option: value}

    return read


def whole(option: str) -> Read:
    """A whole number."""

    def read(name: str, value: object) -> dict[str, Any]:
        return {option: integer(name, value)}

    return read


def number(option: str) -> Read:
    """Any number."""

    def read(name: str, value: object) -> dict[str, Any]:
        return {option: real(name, value)}

    return read


def integer(name: str, value: object) -> int:
    """A whole number; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise refused(name, f"expected a whole number for {name}, got {shown(value)}")
    return value


def real(name: str, value: object) -> float:
    """Any number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(name, f"expected a number for {name}, got {shown(value)}")
    return float(value)


def flag(name: str, value: object) -> bool:
    """A bool, or the 0 and 1 that stand for it in some fields."""
    if not isinstance(value, bool) and (isinstance(value, float) or value not in (0, 1)):
        raise refused(name, f"expected true or false for {name}, got {shown(value)}")
    return bool(value)


def picture_of(value: object, field: str) -> Image:
    """A picture in base64, with or without ``data:image/png;base64,`` in front.

    Raises:
        Refused: no base64, or no picture in it.
    """
    from sd_runtime import UserImageError, read_image

    if not isinstance(value, str):
        raise refused(field, f"expected a picture in base64 for {field}, got {type(value).__name__}")
    content = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return read_image(io.BytesIO(base64.b64decode(content, validate=True)))
    except binascii.Error as error:
        raise refused(field, f"expected a picture in base64 for {field}, got {error}") from None
    except UserImageError as error:
        raise refused(field, str(error).replace("the picture:", f"{field}:")) from None

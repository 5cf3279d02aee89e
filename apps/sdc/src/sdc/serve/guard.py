"""Who may ask: pages of this server and programs on this machine, no page from elsewhere.

A browser lets any page send requests to 127.0.0.1, and lets a page whose name was made to lead there (DNS
rebinding) read the answers. The first says where it comes from (``Origin``, ``Sec-Fetch-Site``), the second
calls the server by its own name (``Host``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Final

from sdc.serve.messages import Refused

#: Bytes of a body: a picture of 4096x4096 in base64, as PNG, and its mask.
LARGEST: Final = 64 << 20

#: What every answer says to browsers: nothing from elsewhere, in no frame, kept nowhere.
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def hosts(port: int) -> frozenset[str]:
    """What this server is called on this machine."""
    names = ("127.0.0.1", "localhost")
    return frozenset(f"{name}:{port}" for name in names) | (frozenset(names) if port == 80 else frozenset())


def check_sender(headers: Mapping[str, str], allowed: Collection[str]) -> None:
    """Refuse whoever calls the server by another name, or comes from another page.

    Raises:
        Refused: such a one.
    """
    host = headers.get("host", "").lower()
    if host not in allowed:
        raise Refused(HTTPStatus.FORBIDDEN, f"expected the host {_listed(allowed)}, got {host or 'none'!r}")
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in {f"http://{name}" for name in allowed}:
        raise Refused(HTTPStatus.FORBIDDEN, f"expected a page of this server, got one of {origin!r}")
    site = headers.get("sec-fetch-site", "none").lower()
    is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if site not in ("none", "same-origin") and not is_link:
        raise Refused(HTTPStatus.FORBIDDEN, f"expected a page of this server, got a {site} one")


def body_length(headers: Mapping[str, str]) -> int:
    """How many bytes follow.

    Raises:
        Refused: their number is not said, makes no sense, or is too large.
    """
    if "transfer-encoding" in headers:
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "expected Content-Length, got Transfer-Encoding")
    stated = headers.get("content-length", "0")
    if not (stated.isascii() and stated.isdigit() and len(stated) < 20):
        raise Refused(HTTPStatus.BAD_REQUEST, f"expected a number for Content-Length, got {stated[:40]!r}")
    if int(stated) > LARGEST:
        raise Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {LARGEST} bytes, got {int(stated)}"
        )
    return int(stated)


def _listed(names: Collection[str]) -> str:
    return " or ".join(sorted(names))

"""The server: sockets and HTTP, by the standard library; what is answered is ``app``'s."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final

from sdc.serve.app import App
from sdc.serve.guard import HEADERS, body_length
from sdc.serve.messages import Answer, Asked, Refused, refusal

#: This machine, and no other.
ADDRESS: Final = "127.0.0.1"
#: Seconds in which a request has to come in.
_PATIENCE: Final = 30.0


class Server(ThreadingHTTPServer):
    """Listens from construction on; port 0 takes a free one, which ``server_port`` tells."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, make_app: Callable[[int], App]) -> None:
        """``make_app`` is told the port.

        Raises:
            OSError: the port is taken.
        """
        super().__init__((ADDRESS, port), _Handler)
        self.app = make_app(self.server_port)

    def server_bind(self) -> None:
        """As the library's, without asking the network for this machine's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, int(self.server_address[1])

    def run(self) -> None:
        """Answer until interrupted; then end the picture at work after its step, and come back."""
        loop = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        loop.start()
        try:
            while loop.is_alive():
                loop.join(0.5)
        except KeyboardInterrupt:
            self.shutdown()
        finally:
            self.server_close()
            self.app.studio.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "sdc", ""
    timeout = _PATIENCE
    server: Server

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def do_POST(self) -> None:
        """Answer."""
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the library
        """Say nothing: the terminal is for pictures and errors."""

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            length = body_length(headers)
        except Refused as refused:
            self.close_connection = True  # what follows is not read
            self._send(refusal(refused))
            return
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        self._send(self.server.app.answer(Asked(self.command, self.path, headers, body)))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        own = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
        for name, value in {**HEADERS, **own, **answer.headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Other methods and malformed lines, in the form of the other errors."""
        self.close_connection = True
        status = HTTPStatus(code)
        if not hasattr(self, "headers"):
            self.request_version = self.protocol_version
        self._send(refusal(Refused(status, message or explain or status.phrase)))

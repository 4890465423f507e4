"""The wire under a stand-in: a threaded HTTP/1.1 server on loopback that keeps connections, and breaks them on order.

Werkzeug's own request handler closes every connection after one answer. Vendors keep them open, and a client that keeps
its connections is only tested by a server that does too; so the handler here knows where a request body ends.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Protocol, cast

from werkzeug.serving import WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import WSGIApplication

HOST = "127.0.0.1"
"""A stand-in is never reachable from another machine."""

_DISCARD_BYTES = 1 << 20
_POLL_S = 0.02


class Dropped(Exception):
    """Raised in an application to end its connection at once, with no more bytes.

    With *reset* the client sees a connection reset; without, it sees the stream end early.
    """

    def __init__(self, *, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class ClientBrokeOff(ConnectionError):
    """Raised when the client went away before it had sent the body that it announced."""


class RequestBody(io.RawIOBase):
    """A request's body of known length, read from the connection and never past its end."""

    def __init__(self, source: io.BufferedIOBase, length: int) -> None:
        super().__init__()
        self._source = source
        self.remaining = length

    def readable(self) -> bool:
        """Tell `io` that `read` works."""
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override] # Buffer needs Python 3.12
        """Fill *buffer*, or what the body still has for it."""
        view = memoryview(buffer).cast("B")[: self.remaining]
        if not view:
            return 0
        size = self._source.readinto(view)
        self.remaining -= size
        if size < len(view):
            raise ClientBrokeOff(f"{self.remaining} bytes of the request body never came")
        return size


class KeepAliveHandler(WSGIRequestHandler):
    """One connection: answers request after request, until one side ends it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Note the connection, so that the server can end it when it stops."""
        super().setup()
        cast("_Server", self.server).connections.add(self.connection)

    def finish(self) -> None:
        """Forget the connection, and close it."""
        cast("_Server", self.server).connections.discard(self.connection)
        super().finish()

    def run_wsgi(self) -> None:
        """Answer one request."""
        environ = self.environ = self.make_environ()
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal():
            self.send_error(400)
            self.close_connection = True
            return
        if not environ.get("wsgi.input_terminated"):  # not chunked: the length says where the body ends
            environ["wsgi.input"] = RequestBody(self.rfile, int(length))
            environ["wsgi.input_terminated"] = True
        try:
            self._answer()
        except Dropped as drop:
            self.close_connection = True
            if drop.reset:
                _reset(environ["werkzeug.socket"])
        except OSError:  # the client is gone; what the application itself fails at, it answers with a 500
            self.close_connection = True

    def _answer(self) -> None:
        head: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> None:
            lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
            if ("Connection", "close") in headers:
                self.close_connection = True
            head.append(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

        answer: Iterable[bytes] = self.server.app(self.environ, start_response)  # type: ignore[arg-type] # no write()
        try:
            self._discard(self.environ["wsgi.input"])
            self._send(head[0], answer)
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()

    def _send(self, head: bytes, answer: Iterable[bytes]) -> None:
        """Head and first chunk go out in one write, so that a small answer is one packet."""
        pending = head
        for chunk in answer:
            self.wfile.write(pending + chunk)
            pending = b""
        if pending:
            self.wfile.write(pending)

    @staticmethod
    def _discard(body: io.RawIOBase) -> None:
        """Read what the application left of the body: the next request begins behind it."""
        while body.read(_DISCARD_BYTES):
            pass


class _Server(Protocol):
    connections: set[socket.socket]


def _reset(connection: socket.socket) -> None:
    """Close with a reset: the descriptor itself, because the handler's file objects would keep the socket open."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())


class LoopbackServer:
    """Serves one WSGI application on loopback from a thread of its own.

    Args:
        app: The application.
        port: The port, or 0 for a free one.
    """

    def __init__(self, app: WSGIApplication, port: int) -> None:
        self._server = make_server(HOST, port, app, threaded=True, request_handler=KeepAliveHandler)
        self._connections: set[socket.socket] = set()
        cast("_Server", self._server).connections = self._connections  # where the handler looks for it
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="standin", daemon=True)

    @property
    def url(self) -> str:
        """The server's address, without a path."""
        return f"http://{HOST}:{self._server.server_port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering, and end the connections that clients keep open."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # the client may have ended it by now
                connection.shutdown(socket.SHUT_RDWR)

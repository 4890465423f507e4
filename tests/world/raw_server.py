"""A server that answers with exact bytes, at its own pace, one connection after the other."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TLS_HANDSHAKE = b"\x16"
Handler = Callable[[socket.socket, bytes], None]
"""Takes the connection and the request as read up to the end of its announced body."""


class RawServer:
    """What the tests ask of it afterwards."""

    def __init__(self, listener: socket.socket) -> None:
        self.requests: list[bytes] = []
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def raw_server(*handlers: Handler, tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    """Serve: the n-th request is answered by the n-th handler, further ones by the last; over TLS if *tls* is given."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        server = RawServer(listener)
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with contextlib.suppress(OSError), connection:
                    connection.settimeout(5)
                    connection = tls.wrap_socket(connection, server_side=True) if tls else connection
                    request = _request(connection)
                    server.requests.append(request)
                    handlers[min(len(server.requests), len(handlers)) - 1](connection, request)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server
        finally:
            stopping.set()
            thread.join()


def _request(connection: socket.socket) -> bytes:
    """Read one request."""
    got = b""
    while b"\r\n\r\n" not in got and got[:1] != TLS_HANDSHAKE and (more := connection.recv(65_536)):
        got += more
    head, _, body = got.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length and (more := connection.recv(65_536)):
        body += more
    return head + b"\r\n\r\n" + body


def answering(*pieces: bytes, pause_s: float = 0.0) -> Handler:
    """Send *pieces* with a pause between them, then close."""

    def handle(connection: socket.socket, _request: bytes) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)

    return handle


def resetting(connection: socket.socket, _request: bytes) -> None:
    """Reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()

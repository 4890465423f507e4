"""The connections below the client: pooled, without redirects, and held to the deadline of the try that uses them.

httpx bounds one read; a server that sends a byte now and then would hold a function for as long as it likes. Here a
time-out may carry the deadline of its try, and every single read and write is cut to what is left of it.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterable
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Self

import httpcore
import httpx

for _library in ("httpx", "httpcore"):
    # They write whole addresses at INFO, and a pre-signed one is a credential; our own line names the path's template.
    logging.getLogger(_library).setLevel(logging.WARNING)

ONE_SHOT = "finops_relay.one_shot"
"""Extension of a request that must not be sent twice."""
KEPT_IDLE_S = 50.0
"""Load balancers end a connection that was idle for 60 s (AWS's default)."""
RECENT_IDLE_S = 5.0
WRITE_BYTES = 65_536


class Until(float):
    """A time-out in seconds that also ends at a deadline of the monotonic clock."""

    deadline: float

    def __new__(cls, seconds: float, deadline: float) -> Self:
        """Return *seconds* with its deadline."""
        made = super().__new__(cls, seconds)
        made.deadline = deadline
        return made

    def left(self) -> float:
        """Return the seconds that one operation may take from now on; none at the deadline."""
        return min(float(self), self.deadline - time.monotonic())


def _cut(timeout: float | None, late: type[httpcore.TimeoutException]) -> float | None:
    """Return what is left of *timeout*. Raises *late* at its deadline."""
    if not isinstance(timeout, Until):
        return timeout
    left = timeout.left()
    if left <= 0:
        msg = "the time for this try is over"
        raise late(msg)
    return left


class _Stream(httpcore.NetworkStream):
    """A connection whose every operation ends in time."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _cut(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), WRITE_BYTES):  # the library grants the whole time to each part of a write
            self._stream.write(buffer[start : start + WRITE_BYTES], _cut(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _cut(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 -- as httpcore declares it
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    """Opens connections."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of *host* that answers; the time-out is for all of them together."""
        end = None if timeout is None else time.monotonic() + (_cut(timeout, httpcore.ConnectTimeout) or 0.0)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: Exception = httpcore.ConnectError("the name has no address")
        for address in dict.fromkeys(str(info[4][0]) for info in found):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            try:
                return _Stream(super().connect_tcp(address, port, left, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Pool(httpx.HTTPTransport):
    """httpx's transport over such connections.

    Args:
        context: for TLS.
        idle_s: seconds after which an unused connection is not used again.
    """

    def __init__(self, context: ssl.SSLContext, idle_s: float) -> None:
        super().__init__(verify=context)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, max_connections=10, keepalive_expiry=idle_s, network_backend=_Backend()
        )


class _Transport(httpx.BaseTransport):
    """Two pools: calls that are safe to repeat may take a connection that idled between two invocations.

    A connection that its other side dropped while the function was frozen is found out by sending on it, and then
    nobody knows whether the request arrived. A safe call is sent again; an unsafe one takes no such connection.
    """

    def __init__(self) -> None:
        context = httpx.create_ssl_context()
        self._kept, self._recent = _Pool(context, KEPT_IDLE_S), _Pool(context, RECENT_IDLE_S)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        pool = self._recent if request.extensions.get(ONE_SHOT) else self._kept
        return pool.handle_request(request)

    def close(self) -> None:
        self._kept.close()
        self._recent.close()


def new_wire() -> httpx.Client:
    """Return a connection pool; kept by whoever lives longest, so that connections stay alive across invocations.

    Proxies of the environment are not used: nobody but the vendor sees the token.
    """
    client = httpx.Client(follow_redirects=False, transport=_Transport())
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # tokens share the wire; a session must not
    return client

"""An AWS endpoint in front of the stack's that holds one call up, so that a process can be killed in the middle of it.

>>> with HoldingEndpoint(stack.endpoint) as aws:
...     held = aws.hold(lambda call: call.method == "PUT" and b"secret" in call.body, arrives=False)
...     ...  # a function calls aws.url
...     held.let_go()
"""

from __future__ import annotations

import http.client
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from werkzeug.wrappers import Request, Response

from local.standins.serving import Dropped, LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIEnvironment

HELD_S = 60.0
"""After which a call that nobody lets go is dropped: its test has failed by then."""
HOP_BY_HOP = frozenset({"connection", "expect", "keep-alive", "transfer-encoding"})
"""Headers that are about one connection only (RFC 9110, section 7.6.1), and one that our own server has answered."""


@dataclass(frozen=True)
class AwsCall:
    """What of a call to AWS tells which one it is."""

    method: str
    path: str
    """For S3 bucket and key; for the other services ``/``."""
    action: str
    """Of the services that speak JSON, such as ``PutItem``; empty for S3."""
    body: bytes = field(repr=False)


@dataclass
class HeldCall:
    """The first call that is wanted; later ones pass."""

    wanted: Callable[[AwsCall], bool]
    arrives: bool
    """Whether AWS acts on it once it is let go; else the call is lost on its way."""
    _reached: threading.Event = field(default_factory=threading.Event)
    _free: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def reached(self) -> bool:
        """Whether the call was made, and is held up."""
        return self._reached.is_set()

    def let_go(self) -> None:
        """Let the call go on, and return when AWS has acted on it, or it is lost."""
        self._free.set()
        assert self._over.wait(HELD_S), "AWS has not answered"

    def pass_through(self, forward: Callable[[], Response]) -> Response:
        """Hold the call up until it is let go."""
        self._reached.set()
        try:
            if not (self._free.wait(HELD_S) and self.arrives):
                raise Dropped(reset=True)
            return forward()
        finally:
            self._over.set()


class HoldingEndpoint:
    """Hands every call on as it is, signature included; use it as a context manager.

    Args:
        upstream: address of the endpoint behind it.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._server = LoopbackServer(self, 0)
        self._lock = threading.Lock()
        self._holding: HeldCall | None = None

    @property
    def url(self) -> str:
        """The address to call."""
        return self._server.url

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    def hold(self, wanted: Callable[[AwsCall], bool], *, arrives: bool) -> HeldCall:
        """Hold up the next call that is *wanted*; whether it *arrives* afterwards is told now."""
        self._holding = HeldCall(wanted, arrives)
        return self._holding

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (WSGI)."""
        request = Request(environ)
        body = request.get_data()
        action = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        held = self._struck(AwsCall(request.method, request.path, action, body))
        response = held.pass_through(lambda: self._forward(request, body)) if held else self._forward(request, body)
        return response(environ, start_response)

    def _struck(self, call: AwsCall) -> HeldCall | None:
        with self._lock:
            held = self._holding
            if held is None or not held.wanted(call):
                return None
            self._holding = None
            return held

    def _forward(self, request: Request, body: bytes) -> Response:
        upstream = http.client.HTTPConnection(self._upstream, timeout=HELD_S)
        try:
            # The path as it was signed, and the host that it was signed for.
            path: str = request.environ["REQUEST_URI"]
            upstream.request(request.method, path, body, _end_to_end(request.headers.items()))
            answer = upstream.getresponse()
            text = answer.read()
            response = Response(text, answer.status)
            response.headers.clear()
            response.headers.extend(_end_to_end(answer.getheaders()))
            response.headers.setdefault("Content-Length", str(len(text)))
        finally:
            upstream.close()
        return response


def _end_to_end(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in HOP_BY_HOP}

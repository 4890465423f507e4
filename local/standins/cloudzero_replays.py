"""Idempotency keys of the live contract: the first answer to a key is the answer to it for ever."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from local.standins.cloudzero_account import IDEMPOTENCY_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from werkzeug.wrappers import Request

REPLAYED = "cloudzero-idempotency-replayed"
_BASE = "/v2/"
"""Only the V2 API knows the header."""

Scope = tuple[str, str, str]
"""Method, path and key; not the body."""


@dataclass(frozen=True)
class _Kept:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Replays:
    """The answers that were given to idempotency keys. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._kept: dict[Scope, _Kept] = {}
            self._under_way: set[Scope] = set()
            self.count = 0

    @staticmethod
    def scope(request: Request) -> Scope | None:
        """Say what the key of a request stands for; None when it has none that counts."""
        key = request.headers.get(IDEMPOTENCY_KEY)
        if not key or request.method == "GET" or not request.path.startswith(_BASE):
            return None
        return request.method, request.path, key

    def again(self, scope: Scope | None) -> Response | None:
        """Give the first answer once more, and count that; None when there is none yet."""
        with self._lock:
            kept = self._kept.get(scope) if scope else None
            if kept is None:
                return None
            self.count += 1
        return Response(kept.body, kept.status, Headers([*kept.headers, (REPLAYED, "true")]))

    def keep(self, scope: Scope, response: Response) -> None:
        """Keep an answer, if it is the first."""
        kept = _Kept(response.status_code, tuple(response.headers.to_wsgi_list()), response.get_data())
        with self._lock:
            self._kept.setdefault(scope, kept)

    @contextmanager
    def first(self, scope: Scope | None) -> Iterator[bool]:
        """Say whether this is the first request of its key, and note that it is under way."""
        if scope is None:
            yield False
            return
        with self._lock:
            first = scope not in self._kept and scope not in self._under_way
            if first:
                self._under_way.add(scope)
        try:
            yield first
        finally:
            if first:
                with self._lock:
                    self._under_way.discard(scope)

"""A source that answers from a function or a list, and the core over it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from finops_relay.http.answers import Advice
from finops_relay.http.auth import Credential, fixed
from finops_relay.http.client import HttpClient, Timeouts
from finops_relay.http.retry import RetryPolicy
from pydantic import SecretStr

BASE = "https://source.example"
TOKEN = "a-token-for-the-source-only"
FOUR_TRIES = RetryPolicy(attempts=4, base_s=0.0, cap_s=0.0)

Handler = Callable[[httpx.Request], httpx.Response]


def answer(said: object, status: int = 200, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Return an answer: bytes as they are, anything else as JSON."""
    content = said if isinstance(said, bytes) else json.dumps(said).encode()
    return httpx.Response(status, content=content, headers={"content-type": "application/json", **(headers or {})})


@dataclass
class Source:
    """Answers from a list, the last one again and again; an exception is raised instead."""

    answers: list[object]
    seen: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        said = self.answers[min(len(self.seen), len(self.answers)) - 1]
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, httpx.Response) else answer(said)

    @property
    def params(self) -> list[dict[str, str]]:
        """The query of each request."""
        return [dict(request.url.params) for request in self.seen]


def source(*answers: object) -> Source:
    """Return a source that gives *answers*."""
    return Source(list(answers))


def http(wire: Handler | httpx.Client, base_url: str = BASE, advice: Advice = lambda _: "", **more: Any) -> HttpClient:  # noqa: ANN401 -- whatever the original takes
    """Return the core over a fake wire, or a real one; it waits next to nothing."""
    return HttpClient(
        **{
            "base_url": base_url,
            "auth": Credential(fixed(SecretStr(TOKEN)), "source"),
            "advice": advice,
            "retry": FOUR_TRIES,
            "timeouts": Timeouts(connect_s=2, read_s=5, total_s=10),
            "sleep": lambda _: None,
            "wire": wire if isinstance(wire, httpx.Client) else httpx.Client(transport=httpx.MockTransport(wire)),
            **more,
        }
    )

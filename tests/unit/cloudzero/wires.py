"""A fake CloudZero that answers from a list, and the client over it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from finops_relay.cloudzero.advice import advice
from finops_relay.cloudzero.client import CloudZero
from finops_relay.cloudzero.connect import CLIENTS, credential
from finops_relay.cloudzero.records import ContractName
from finops_relay.http.auth import fixed
from finops_relay.http.client import HttpClient, Timeouts
from finops_relay.http.retry import RetryPolicy
from pydantic import SecretStr

BASE = "https://api.vendor.example"
KEY = "a-key-for-cloudzero-only"
FOUR_TRIES = RetryPolicy(attempts=4, base_s=0.0, cap_s=0.0)
ONE_TRY = RetryPolicy(attempts=1)

Handler = Callable[[httpx.Request], httpx.Response]


def answer(said: object, status: int = 200) -> httpx.Response:
    """Return an answer: bytes as they are, anything else as JSON."""
    content = said if isinstance(said, bytes) else json.dumps(said).encode()
    return httpx.Response(status, content=content, headers={"content-type": "application/json"})


@dataclass
class Vendor:
    """Answers from a list, the last one again and again; an exception is raised instead."""

    answers: list[object]
    seen: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.seen.append(request)
        said = self.answers[min(len(self.seen), len(self.answers)) - 1]
        if isinstance(said, Exception):
            raise said
        if isinstance(said, httpx.Response):
            return httpx.Response(said.status_code, headers=said.headers, content=said.content)
        return answer(said)

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Method and path of each request."""
        return [(request.method, request.url.path) for request in self.seen]

    @property
    def bodies(self) -> list[Any]:
        """The body of each request."""
        return [json.loads(request.content) if request.content else None for request in self.seen]


def vendor(*answers: object) -> Vendor:
    """Return a vendor that gives *answers*."""
    return Vendor(list(answers))


def nobody() -> Vendor:
    """Return a vendor that must not be asked."""
    return Vendor([AssertionError("nothing is sent")])


def client(contract: str, wire: Handler, retry: RetryPolicy = FOUR_TRIES) -> CloudZero:
    """Return a client over a fake wire."""
    return client_over(contract, BASE, httpx.Client(transport=httpx.MockTransport(wire)), KEY, retry)


def client_over(contract: str, url: str, wire: httpx.Client, key: str, retry: RetryPolicy = FOUR_TRIES) -> CloudZero:
    """Return a client that waits next to nothing."""
    http = HttpClient(
        url,
        credential(fixed(SecretStr(key)), "cloudzero"),
        advice,
        retry=retry,
        timeouts=Timeouts(connect_s=2, read_s=2, total_s=4),
        sleep=lambda _: None,
        wire=wire,
    )
    return CLIENTS[ContractName(contract)](http)

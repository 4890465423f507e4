"""A plain client of the CloudZero stand-in, for its tests: each method is one request, and gives what came back."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from local.standins.cloudzero import CONNECTION, KEY, CloudZeroStandIn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from local.standins.cloudzero_account import Contract

FEBRUARY = "2026-02-01T00:00:00Z"


@dataclass(frozen=True)
class Api:
    """A stand-in, and a client that has its key."""

    server: CloudZeroStandIn
    http: httpx.Client
    """Without a key."""

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own arguments
        headers = {"Authorization": KEY, **more.pop("headers", {})}
        return self.http.request(method, f"{self.server.api_url}{path}", headers=headers, **more)

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return self.call("POST", path, json=body, headers=headers or {})

    def get(self, path: str, **params: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own arguments
        return self.call("GET", path, params=params)

    def control(self, method: str, path: str, body: object = None) -> httpx.Response:
        return self.http.request(method, f"{self.server.url}{path}", json=body)

    def fault(self, operation: str, fault: dict[str, Any], **more: int) -> None:
        self.control("POST", "/_faults", [{"operation": operation, "fault": fault, **more}]).raise_for_status()

    def configure(self, **config: Any) -> None:  # noqa: ANN401 - whatever the stand-in knows
        self.control("POST", "/_config", config).raise_for_status()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.control("GET", "/_state").raise_for_status().json()
        return state

    # What several tests do.

    def drop(self, *rows: dict[str, Any], headers: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:  # noqa: ANN401 - members of the body
        """Send rows under live."""
        return self.post(DROPS, {"month": FEBRUARY, "data": [*rows], **more}, headers)

    def month(self, name: str = "2026-02") -> list[dict[str, str]]:
        """Read a month back under live."""
        rows: list[dict[str, str]] = self.get(f"{DROPS}/{name}").raise_for_status().json()["billing_drop"]
        return rows

    def held(self, month: str = "2026-02") -> dict[str, Any]:
        """Look into the stand-in for what it holds of a month."""
        held: dict[str, Any] = self.state()["drops"][CONNECTION][month]
        return held


DROPS = f"/v2/connections/billing/anycost/{CONNECTION}/billing_drops"


def row(hour: str = "2026-02-01T00", cost: str = "1.5", **more: str) -> dict[str, str]:
    """Make a row of the Common Bill Format; further columns with a double underscore for the slash."""
    columns = {name.replace("__", "/"): value for name, value in more.items()}
    return {"time/usage_start": f"{hour}:00:00Z", "cost/cost": cost} | columns


@contextmanager
def running(contract: Contract, http: httpx.Client, **config: Any) -> Iterator[Api]:  # noqa: ANN401 - the stand-in's own arguments
    """Run a stand-in; at the end, say so if it has broken its own document."""
    with CloudZeroStandIn(contract, **config) as server:
        yield Api(server, http)
        assert server.state()["response_violations"] == []

"""Both stand-ins, started once for a module and emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from finops_relay.cloudzero.client import CloudZero
from finops_relay.http.wire import new_wire

from local.standins.cloudzero import CONNECTION, KEY, CloudZeroStandIn
from tests.unit.cloudzero.wires import client_over


@dataclass
class Tenant:
    """A tenant at the stand-in, and a client for it."""

    vendor: CloudZeroStandIn
    client: CloudZero

    @property
    def live(self) -> bool:
        """Whether it speaks the vendor's own contract."""
        return self.vendor.contract == "live"

    def configure(self, **wanted: Any) -> None:  # noqa: ANN401 -- whatever the stand-in knows
        """Change how the vendor behaves."""
        self.vendor.configure(wanted)

    def fault(self, operation: str, kind: str, times: int = 1, **more: Any) -> None:  # noqa: ANN401 -- as above
        """Let the next calls of an operation go wrong."""
        self.vendor.faults.add([{"operation": operation, "times": times, "fault": {"kind": kind, **more}}])

    def state(self) -> dict[str, Any]:
        """Return what the vendor holds, after seeing that its document was kept."""
        state = self.vendor.state()
        assert state["violations"] == []
        return state

    def month(self, name: str = "2026-02") -> dict[str, Any]:
        """Return what the connection holds of a month."""
        held: dict[str, Any] = self.state()["drops"][CONNECTION][name]
        return held

    def records(self, stream: str) -> dict[str, str]:
        """Return the records of a telemetry stream."""
        held: dict[str, str] = self.state()["telemetry"][stream]["records"]
        return held

    def count(self, operation: str) -> int:
        """Return how often an operation was called."""
        return int(self.state()["counts"].get(operation, 0))


@pytest.fixture(scope="module")
def wire() -> Iterator[httpx.Client]:
    with new_wire() as made:
        yield made


@pytest.fixture(scope="module")
def vendors() -> Iterator[dict[str, CloudZeroStandIn]]:
    with CloudZeroStandIn("openapi") as openapi, CloudZeroStandIn("live") as live:
        yield {"openapi": openapi, "live": live}


def _tenant(vendor: CloudZeroStandIn, wire: httpx.Client) -> Iterator[Tenant]:
    vendor.reset()
    yield Tenant(vendor, client_over(vendor.contract, vendor.api_url, wire, KEY))
    assert vendor.state()["response_violations"] == []


@pytest.fixture
def openapi(vendors: dict[str, CloudZeroStandIn], wire: httpx.Client) -> Iterator[Tenant]:
    yield from _tenant(vendors["openapi"], wire)


@pytest.fixture
def live(vendors: dict[str, CloudZeroStandIn], wire: httpx.Client) -> Iterator[Tenant]:
    yield from _tenant(vendors["live"], wire)


@pytest.fixture(params=["openapi", "live"])
def tenant(
    request: pytest.FixtureRequest, vendors: dict[str, CloudZeroStandIn], wire: httpx.Client
) -> Iterator[Tenant]:
    yield from _tenant(vendors[request.param], wire)

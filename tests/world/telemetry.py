"""A whole relay for telemetry in one process: as `billing`, for files of records and for the application queue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from finops_relay.cloudzero.client import CloudZero
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports, Queue
from finops_relay.delivery.waits import Looks
from finops_relay.jobs.contract import Tenant
from finops_relay.jobs.telemetry.deliver import deliver
from finops_relay.jobs.telemetry.prepare import name_rejected, prepare
from finops_relay.jobs.telemetry.remembered import Stream, stream_name

from local.standins.cloudzero import CloudZeroStandIn
from local.standins.cloudzero_account import Contract
from tests.world.billing import Asked, Billing
from tests.world.relay import aws

SUMS = {
    "live": ("postMetricTelemetrySum", "postAllocationTelemetrySum"),
    "openapi": ("postMetricTelemetry", "postAllocationTelemetrySum"),
}
"""The operations that add, by contract: of metrics, of allocations."""
REPLACES = {"live": "postMetricTelemetryReplace", "openapi": "postMetricTelemetry"}
"""The operation that carries a metric's records when they replace."""


@dataclass(kw_only=True)
class Telemetry(Billing):
    """What the tests of telemetry hold in their hands."""

    vanishing: Looks = field(default_factory=lambda: Looks(10, 300, 3600))

    # --- what the functions do ----------------------------------------------------------------------------------------

    def tenant(self) -> Tenant:
        """Return whom the relay talks to."""
        return Tenant(self.vendor.api_url, self.contract, self.body_bytes)

    def prepare(self, source: ObjectVersion, ports: Ports | None = None) -> Delivery | None:
        """Run the preparing job once."""
        return prepare(source, ports or self.ports, self.defaults, self.waits, self.tenant())

    def step(
        self,
        delivery_id: str,
        ports: Ports | None = None,
        vendor: Callable[[], CloudZero] | None = None,
        asked: Queue | None = None,
    ) -> Delivery:
        """Run the delivering job once, as one message would. Raises Wait."""
        ports = ports or self.ports
        delivery = ports.ledger.delivery(delivery_id)
        assert delivery is not None
        asked = asked or self.asked
        return deliver(delivery, ports, vendor or self.client, asked, self.waits, self.vanishing, self.body_bytes)

    def name_rejected(self, ports: Ports | None = None) -> None:
        """Run the preparing job for those deliveries whose refused rows are to be named."""
        while self.asked.deliveries:
            name_rejected(self.asked.deliveries.pop(0), ports or self.ports, self.waits)

    # --- whole lives --------------------------------------------------------------------------------------------------

    def deliver_records(
        self, stream: str, body: bytes, verb: str = "replace", kind: str = "metric", name: str = "a.csv"
    ) -> Delivery:
        """Drop a file of records and take it to its end, or to where a person must decide."""
        return self.deliver_file(folder(stream, verb, kind) + name, body)

    def dropped(
        self, stream: str, body: bytes, verb: str = "replace", kind: str = "metric", name: str = "a.csv"
    ) -> Delivery:
        """Drop and prepare a file that can be delivered."""
        found = self.prepare(self.drop(folder(stream, verb, kind) + name, body))
        assert found is not None
        assert found.stage == "queued", found.reason
        return found

    # --- looking ------------------------------------------------------------------------------------------------------

    def streams(self) -> dict[str, Any]:
        """Return the streams that the vendor holds."""
        found: dict[str, Any] = self.state()["telemetry"]
        return found

    def values(self, stream: str) -> dict[str, Decimal]:
        """Return what a stream holds: day or hour, element and the values of its dimensions -> value."""
        holding = self.streams().get(stream)
        found = {}
        for key, value in (holding["records"] if holding else {}).items():
            timestamp, _, labels, element = json.loads(key)
            named = (labels[name] for name in sorted(labels))
            words = [*([element] if element else []), *(v if isinstance(v, str) else "|".join(v) for v in named)]
            found[" ".join([timestamp[8:13], *words])] = Decimal(value)
        return found

    def remembered(self, stream: str) -> Stream:
        """Return what the ledger has of a stream."""
        return Stream.model_validate(self.ledger.record(stream_name(stream)).content)


def folder(stream: str, verb: str = "replace", kind: str = "metric", root: str = "incoming") -> str:
    """Return where records of a stream are dropped."""
    return f"{root}/telemetry/{kind}/{stream}/{verb}/"


def metric(*rows: tuple[str, ...], granularity: str = "DAILY", keys: tuple[str, ...] = ("team",)) -> bytes:
    """Return a file of records: day and hour such as ``01T05``, value, and the values of the dimensions."""
    header = ",".join(("timestamp", "value", "granularity", *(f"filter.{key}" for key in keys)))
    lines = [
        f"2026-03-{start}:00:00Z,{value},{granularity},{','.join(labels)}".rstrip(",") for start, value, *labels in rows
    ]
    return "\n".join([header, *lines, ""]).encode()


def allocation(contract: str, *rows: tuple[str, str, str, str]) -> bytes:
    """Return a file of allocation records: start, value, element, service."""
    element = "element_name" if contract == "live" else "element.team"
    lines = [f"2026-03-{start}:00:00Z,{value},DAILY,{name},{service}" for start, value, name, service in rows]
    return "\n".join([f"timestamp,value,granularity,{element},filter.service", *lines, ""]).encode()


@contextmanager
def telemetry(
    contract: Contract,
    running: CloudZeroStandIn | None = None,
    **behaviour: Any,  # noqa: ANN401 -- checked by the stand-in
) -> Iterator[Telemetry]:
    """Make a world; *behaviour* is the stand-in's, unless one is *running* already, which forgets all that it holds."""
    if running is not None:
        running.reset()
    with aws() as parts, CloudZeroStandIn(contract, **behaviour) if running is None else nullcontext(running) as vendor:
        found = Telemetry(vendor=vendor, contract=contract, asked=Asked(), **parts)
        try:
            yield found
        finally:
            found.wire.close()

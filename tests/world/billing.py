"""A whole relay for billing drops in one process: as `relay`, with CloudZero's strict stand-in in either contract."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from finops_relay.cloudzero.advice import advice
from finops_relay.cloudzero.client import CloudZero
from finops_relay.cloudzero.connect import CLIENTS, credential
from finops_relay.cloudzero.records import ContractName
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.packer import MAX_BODY_BYTES
from finops_relay.delivery.ports import Ports, Queue
from finops_relay.delivery.waits import Looks
from finops_relay.errors import Wait
from finops_relay.http.client import HttpClient
from finops_relay.http.retry import RetryPolicy
from finops_relay.jobs.billing.deliver import deliver
from finops_relay.jobs.billing.prepare import name_rejected, prepare
from finops_relay.jobs.contract import Tenant
from finops_relay.jobs.release import release
from pydantic import SecretStr
from werkzeug.wrappers import Response

from local.standins.cloudzero import CONNECTION, KEY, CloudZeroStandIn
from local.standins.cloudzero_account import Contract
from local.standins.standin import Call, Refusal, answer
from tests.world.relay import DROPS, Aws, aws

POISON = "poison"
"""The service whose rows the world's vendor refuses, one by one."""
MONTH = "2026-03"
"""The month of the world's clock, which begins on its first day."""
FOLDER = f"incoming/billing/{CONNECTION}/{MONTH}"
SEND = "createAnyCostBillingDrop"
"""The operation that takes a body, in either contract."""


class Asked:
    """The queue of the function that prepares; its messages are kept until they are taken."""

    def __init__(self) -> None:
        self.deliveries: list[str] = []

    def send(self, delivery: Delivery, *, nonce: str) -> None:
        assert nonce
        self.deliveries.append(delivery.id)


@dataclass(kw_only=True)
class Billing(Aws):
    """What the tests of billing drops hold in their hands."""

    vendor: CloudZeroStandIn
    contract: str
    body_bytes: int = MAX_BODY_BYTES
    asked: Asked = field(default_factory=Asked)
    read_back: Looks = field(default_factory=lambda: Looks(10, 300, 3600))
    key: list[str] = field(default_factory=lambda: [KEY])

    # --- what the functions do ----------------------------------------------------------------------------------------

    def prepare(self, source: ObjectVersion, ports: Ports | None = None) -> Delivery | None:
        """Run the preparing job once."""
        tenant = Tenant(self.vendor.api_url, self.contract, self.body_bytes)
        return prepare(source, ports or self.ports, self.defaults, self.waits, tenant)

    def release(self, source: ObjectVersion, ports: Ports | None = None) -> Delivery | None:
        """Run the job that takes decisions once."""
        return release(source, ports or self.ports, self.waits, Asked())

    def client(self, wrap: Callable[[HttpClient], HttpClient] = lambda http: http) -> CloudZero:
        """Return a client of the stand-in, as a function would build it, with short time-outs.

        Args:
            wrap: put around the core that makes the calls, so that a test can end the process before any of them.
        """

        def source(fresh: bool) -> SecretStr | None:  # noqa: FBT001 -- TokenSource is called by position
            self.token_reads.append(fresh)
            return SecretStr(self.key[0]) if self.key[0] else None

        http = HttpClient(
            base_url=self.vendor.api_url,
            auth=credential(source, "cloudzero"),
            advice=advice,
            retry=RetryPolicy(attempts=2, base_s=0.001, cap_s=0.01, budget_s=1),
            timeouts=self.timeouts,
            wire=self.wire,
        )
        return CLIENTS[ContractName(self.contract)](wrap(http))

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
        return deliver(delivery, ports, vendor or self.client, asked or self.asked, self.waits, self.read_back)

    def name_rejected(self, ports: Ports | None = None) -> None:
        """Run the preparing job for those deliveries whose refused rows are to be named."""
        while self.asked.deliveries:
            name_rejected(self.asked.deliveries.pop(0), ports or self.ports, self.waits)

    # --- whole lives --------------------------------------------------------------------------------------------------

    def finish(self, delivery_id: str, tries: int = 200) -> Delivery:
        """Run the delivering job until the delivery is over or held, turning the clock over its waits."""
        for _ in range(tries):
            try:
                found = self.step(delivery_id)
            except Wait as wait:
                self.waited.append(wait)
                self.time[0] += timedelta(seconds=wait.seconds)
                continue
            if self.asked.deliveries:
                self.name_rejected()
                continue
            return found
        raise AssertionError(f"not over after {tries} tries: {self.waited[-3:]}")

    def deliver_file(self, key: str, body: bytes) -> Delivery:
        """Drop a file and take it to its end, or to where a person must decide."""
        prepared = self.prepare(self.drop(key, body))
        assert prepared is not None
        return prepared if prepared.outcome.final else self.finish(prepared.id)

    def decide(self, delivery: Delivery, decision: str) -> Delivery:
        """Drop a decision about a held delivery and take it to its end."""
        key = f"incoming/release/{delivery.id}.json"
        told = self.release(self.drop(key, json.dumps({"decision": decision}).encode()))
        assert told is not None
        assert told.outcome == "delivered", told.reason
        return self.finish(delivery.id)

    # --- the vendor ---------------------------------------------------------------------------------------------------

    def fault(self, kind: str, times: int = 1, operation: str = SEND, after: int = 0, **facts: Any) -> None:  # noqa: ANN401 -- the fault's
        """Order a fault at the stand-in; where no operation is named, at the sending of a body."""
        order = {"operation": operation, "times": times, "after": after, "fault": {"kind": kind, **facts}}
        self.vendor.faults.add([order])

    def posts(self) -> list[dict[str, Any]]:
        """Return the bodies that the vendor has taken, in order."""
        found: list[dict[str, Any]] = self.state()["posts"]
        return found

    def modes(self) -> list[str]:
        """Return what each of them did to what was there."""
        return [post["mode"] for post in self.posts()]

    @property
    def live(self) -> bool:
        """Whether the tenant speaks the vendor's own contract."""
        return self.contract == "live"

    # --- looking ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what the vendor holds, and check that nothing broke its contract."""
        state: dict[str, Any] = self.vendor.state()
        assert state["violations"] == []
        assert state["response_violations"] == []
        assert state["overlaps"] == []
        return state

    def held(self, connection: str = CONNECTION, month: str = MONTH) -> dict[str, Any]:
        """Return what the vendor holds of a month of a connection."""
        found: dict[str, Any] = self.state()["drops"].get(connection, {}).get(month, {"count": 0, "totals": {}})
        return found

    def total(self, connection: str = CONNECTION, month: str = MONTH) -> Decimal:
        """Return the money that the vendor holds of a month of a connection."""
        totals = self.held(connection, month)["totals"]
        return Decimal(totals.get("cost/cost", totals.get("cost", "0")))

    def rejected(self, delivery: Delivery) -> str:
        """Return the file of rejected rows."""
        return self.text(delivery.rejected_rows.removeprefix(f"s3://{DROPS}/")).decode()


class PickyStandIn(CloudZeroStandIn):
    """A stand-in that refuses single rows: those of the service `POISON`, which is nothing that a file could say."""

    def handlers(self) -> Mapping[str, Callable[[Call], Response]]:
        """Give the handler of each operation."""
        found = dict(super().handlers())
        found["createAnyCostBillingDrop"] = _refusing(found["createAnyCostBillingDrop"])
        if self.contract == "live":
            found["validateAnyCostBillingDrop"] = _judging(found["validateAnyCostBillingDrop"])
        return found


def _refusing(handler: Callable[[Call], Response]) -> Callable[[Call], Response]:
    def refused(call: Call) -> Response:
        if _poisoned(call):
            raise Refusal(400, f"nobody knows the service {POISON}")
        return handler(call)

    return refused


def _judging(handler: Callable[[Call], Response]) -> Callable[[Call], Response]:
    def judged(call: Call) -> Response:
        if _poisoned(call):
            return answer({"connection": {"is_valid": False, "errors": [f"nobody knows the service {POISON}"]}})
        return handler(call)

    return judged


def _poisoned(call: Call) -> bool:
    """Return whether a row of either contract's body is of the service that is refused."""
    items = [item for drop in call.body.get("billing_drops", []) for item in drop["line_items"]]
    rows = [*items, *call.body.get("data", [])]
    return any(POISON in {row.get("service"), row.get("resource/service")} for row in rows)


@contextmanager
def billing(
    contract: Contract,
    running: PickyStandIn | None = None,
    **behaviour: Any,  # noqa: ANN401 -- checked by the stand-in
) -> Iterator[Billing]:
    """Make a world; *behaviour* is the stand-in's, unless one is *running* already, which forgets all that it holds."""
    if running is not None:
        running.reset()
    with aws() as parts, PickyStandIn(contract, **behaviour) if running is None else nullcontext(running) as vendor:
        found = Billing(vendor=vendor, contract=contract, **parts)
        try:
            yield found
        finally:
            found.wire.close()


def cbf(*rows: tuple[str, str, str]) -> bytes:
    """Return a CBF file: start, cost and service of each row. The start is day and hour, such as ``01T05``."""
    lines = [f"{MONTH}-{start}:00:00Z,{cost},{service}" for start, cost, service in rows]
    return "\n".join(["time/usage_start,cost/cost,resource/service", *lines, ""]).encode()

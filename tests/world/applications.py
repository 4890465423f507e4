"""Applications, their queue and the inbox: what they send is collected and counted over ports in memory.

The vendor is left out: a life ends with the deliveries that are handed over, and with what they say in the end.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Clock, Ports
from finops_relay.formats.telemetry import Ident
from finops_relay.jobs.contract import Tenant
from finops_relay.jobs.telemetry.collect import INBOX, Sent, collect
from finops_relay.jobs.telemetry.content import lines_of
from finops_relay.jobs.telemetry.merge import Bounds, merge
from finops_relay.jobs.telemetry.remembered import KIND, target_name
from finops_relay.jobs.telemetry.totals import Collected, collected_name
from finops_relay.jobs.turns import Turns, Waiting

from tests.world.memory import Fifo, MemoryBucket, MemoryLedger, Told
from tests.world.relay import DROPS, SPOOL, START, Metrics

PORTS = ("ledger", "drops", "spool", "queue", "bus", "metrics")


def record(
    id: str | None = None,  # noqa: A002 -- as the member is called
    value: object = 1,
    stream: str = "orders",
    timestamp: str = "2026-03-01T05:10:00Z",
    team: object = "search",
    **more: object,
) -> dict[str, Any]:
    """Return a good record of a metric, as an application sends it."""
    found: dict[str, Any] = {
        "stream": stream,
        "kind": "metric",
        "timestamp": timestamp,
        "granularity": "DAILY",
        "value": value,
        "dimensions": {"team": team},
        **more,
    }
    return found if id is None else {**found, "id": id}


@dataclass
class Broken:
    """A port that fails some of its calls."""

    inner: Any
    trouble: Callable[..., Exception | None]
    """Takes the name of a call and its arguments; returns what it raises, if it does."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- anything
        found = getattr(self.inner, name)

        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- anything
            error = self.trouble(name, *arguments)
            if error is not None:
                raise error
            return found(*arguments, **named)

        return call if callable(found) else found


@dataclass
class Applications:
    """What the tests of the application queue hold in their hands."""

    contract: str = "live"
    time: list[datetime] = field(default_factory=lambda: [START])
    remaining: list[float] = field(default_factory=lambda: [900.0])
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    drops: MemoryBucket = field(default_factory=lambda: MemoryBucket(DROPS))
    spool: MemoryBucket = field(default_factory=lambda: MemoryBucket(SPOOL))
    told: Told = field(default_factory=Told)
    metrics: Metrics = field(default_factory=Metrics)
    messages: int = 0

    def __post_init__(self) -> None:
        self.queue = Fifo(lambda: self.time[0])
        clock = Clock(lambda: self.time[0], lambda: self.remaining[0])
        self.ports = Ports(self.ledger, self.drops, self.spool, self.queue, self.told, self.metrics, clock)

    @property
    def tenant(self) -> Tenant:
        """Whom the totals go to."""
        return Tenant("https://api.example.com", self.contract)

    def with_ports(self, wrap: Callable[[str, Any], Any]) -> Ports:
        """Return the ports with each one but the clock wrapped."""
        return replace(self.ports, **{name: wrap(name, getattr(self.ports, name)) for name in PORTS})

    # --- what is done -------------------------------------------------------------------------------------------------

    def sent(self, *bodies: object) -> list[Sent]:
        """Send messages; return them as the queue has them."""
        found = []
        for body in bodies:
            self.messages += 1
            self.time[0] += timedelta(milliseconds=7)
            text = body if isinstance(body, str) else json.dumps(body)
            found.append(Sent(f"message-{self.messages}", text, int(self.time[0].timestamp() * 1000)))
        return found

    def collect(self, messages: Iterable[Sent], ports: Ports | None = None) -> str:
        """Run the collecting job once, for one batch."""
        return collect(messages, ports or self.ports)

    def merge(self, ports: Ports | None = None, bounds: Bounds | None = None) -> list[Delivery]:
        """Run the counting job once, some minutes later."""
        self.time[0] += timedelta(minutes=5)
        return merge(ports or self.ports, DROPS, self.tenant, bounds or Bounds())

    def run(self, *bodies: object) -> list[Delivery]:
        """Send some messages in one batch, and count them."""
        self.collect(self.sent(*bodies))
        return self.merge()

    def delete(self, erases: str = "periods", stream: str = "orders") -> None:
        """Let a deletion of a stream wait for its turn, as one that was dropped now and prepared does."""
        waiting = {"a deletion": Waiting(order=self.time[0].isoformat(), erases=erases)}
        self._turns(stream, Turns(waiting=waiting))

    def deleted(self, stream: str = "orders") -> None:
        """Let it give its turn away; what it has done is remembered before."""
        self._turns(stream, Turns())

    def _turns(self, stream: str, now: Turns) -> None:
        target = self.ledger.target(target_name(stream))
        self.ledger.save_target(target.but(content=now.model_dump(mode="json")))

    # --- what can be seen ---------------------------------------------------------------------------------------------

    def inbox(self) -> list[str]:
        """Return the batches that wait."""
        return [entry.key for entry in self.drops.listing(DROPS, INBOX)]

    def collected(self, stream: str = "orders") -> Collected:
        """Return what is remembered of a stream."""
        return Collected.model_validate(self.ledger.record(collected_name(stream)).content)

    def deliveries(self, stream: str | None = None) -> list[Delivery]:
        """Return every delivery of the ledger, the oldest first."""
        ids = [name.removeprefix("delivery#") for name in self.ledger.items if name.startswith("delivery#")]
        found = [delivery for each in ids if (delivery := self.ledger.delivery(each))]
        return sorted(
            (each for each in found if stream is None or each.work["stream"] == stream), key=lambda each: each.order
        )

    def receipt(self, delivery: Delivery) -> dict[str, Any]:
        """Return the receipt that stands in the bucket."""
        receipt: dict[str, Any] = json.loads(self.drops.latest(delivery.receipt_key))
        return receipt

    def rejected(self, delivery: Delivery) -> list[dict[str, str]]:
        """Return the rows of a delivery's file of rejected messages."""
        text = self.drops.latest(delivery.rejected_rows.removeprefix(f"s3://{DROPS}/")).decode()
        return list(csv.DictReader(io.StringIO(text)))

    def lines(self, delivery: Delivery) -> dict[Ident, tuple[Decimal, int]]:
        """Return the records of a delivery: new total, and the rows that it stands for."""
        days = delivery.work["days"]
        return {line.ident: (line.value, line.rows) for day in days for line in lines_of(self.ports, delivery.id, day)}

    def totals(self, stream: str) -> dict[tuple[str, ...], Decimal]:
        """Return what the deliveries of a stream say in the end, by day and labels; the newest has the last word."""
        found: dict[tuple[str, ...], Decimal] = {}
        for delivery in self.deliveries(stream):
            for ident, (value, _) in self.lines(delivery).items():
                day = datetime.fromtimestamp(ident.period * 3600, UTC).isoformat()[:13]
                found[day, *ident.labels] = value
        return found

    def check(self, stream: str = "orders") -> Counter[str]:
        """Check what must hold of a stream's deliveries once nothing is left to do; return their rows, added up."""
        assert self.inbox() == []
        rows: Counter[str] = Counter()
        orders = []
        for delivery in self.deliveries(stream):
            assert delivery.kind == KIND
            receipt = self.receipt(delivery)
            assert receipt["rows"] == delivery.rows.model_dump(by_alias=True)
            rows.update(receipt["rows"])
            orders.append(delivery.order)
            kept = {f"telemetry/{delivery.id}/{day}.json" for day in delivery.work["days"]}
            assert not kept & self.spool.released
            if delivery.outcome.final:
                assert set(self.told.outcomes[delivery.id]) == {delivery.outcome}
                assert not kept
            else:
                assert delivery.stage == "queued"
                # Perhaps twice, after a crash: whoever delivers it sees in the ledger how far it is.
                assert delivery.id in {message.delivery for message in self.queue.groups[delivery.group]}
                assert sum(rows for _, rows in self.lines(delivery).values()) == delivery.rows.owed
        assert orders == sorted(set(orders))
        pages = set(self.collected(stream).days.values())
        assert not pages & self.spool.released
        assert rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        return rows


def truth(records: Iterable[Mapping[str, Any]], stream: str) -> dict[tuple[str, ...], Decimal]:
    """Return what good records of days add up to, each id once: the rule, written down once more."""
    first: dict[str, Mapping[str, Any]] = {}
    for each in records:
        if each["stream"] == stream:
            first.setdefault(each["id"], each)
    found: dict[tuple[str, ...], Decimal] = {}
    for each in first.values():
        key = (f"{each['timestamp'][:10]}T00", each["dimensions"]["team"])
        found[key] = found.get(key, Decimal(0)) + Decimal(str(each["value"]))
    return found

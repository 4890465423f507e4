"""Random lives of drops: their events come twice, late and in any order; functions die; time passes; people decide."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Generic, TypeVar, cast

from finops_relay.delivery.identity import ObjectVersion, delivery_id
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Clock, Metrics, Ports, Queue
from finops_relay.errors import LedgerConflict, Wait

from tests.world.billing import Asked, Billing
from tests.world.crashes import Fragile, Fuse, SimulatedCrash
from tests.world.memory import Fifo, MemoryBucket, MemoryLedger, Message, Told
from tests.world.relay import DROPS, SPOOL, START

VISIBILITY = timedelta(hours=1.5)
"""After which SQS gives out again what a crashed function had (template: VisibilityTimeout)."""
WorldT = TypeVar("WorldT", bound=Billing)


@dataclass
class Parts:
    """An empty ledger, empty buckets and queues, and a clock."""

    time: list[datetime] = field(default_factory=lambda: [START])
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    drops: MemoryBucket = field(default_factory=lambda: MemoryBucket(DROPS))
    spool: MemoryBucket = field(default_factory=lambda: MemoryBucket(SPOOL))
    bus: Told = field(default_factory=Told)
    asked: Asked = field(default_factory=Asked)

    def __post_init__(self) -> None:
        """Make the vendor's queue, which knows the time."""
        self.queue = Fifo(lambda: self.time[0])

    def ports(self, metrics: Metrics) -> Ports:
        """Return them as the jobs take them; no two moments are the same."""

        def now() -> datetime:
            self.time[0] += timedelta(milliseconds=1)
            return self.time[0]

        return Ports(self.ledger, self.drops, self.spool, self.queue, self.bus, metrics, Clock(now, lambda: 900.0))


@dataclass(kw_only=True)
class RandomLife(ABC, Generic[WorldT]):
    """One random life of several drops."""

    w: WorldT
    random: Random
    parts: Parts
    events: list[ObjectVersion] = field(default_factory=list)
    sequencer: int = 0x1000
    crashes: int = 4
    deciding: dict[str, ObjectVersion] = field(default_factory=dict)
    """The last release file of each held delivery."""
    left: set[str] = field(default_factory=set)
    """Held deliveries that nobody will decide about."""

    def __post_init__(self) -> None:
        """Have the parts at hand."""
        self.drops, self.spool, self.ledger = self.parts.drops, self.parts.spool, self.parts.ledger
        self.queue, self.bus, self.asked = self.parts.queue, self.parts.bus, self.parts.asked

    @abstractmethod
    def lives(self) -> list[Delivery]:
        """Return the deliveries of what was dropped, as far as they have begun."""

    @abstractmethod
    def decide(self, held: Delivery) -> None:
        """Decide about a held delivery, or leave it."""

    @abstractmethod
    def named(self, delivery_id: str, fuse: Fuse) -> None:
        """Run the preparing job that names refused rows."""

    def upload(self, key: str, body: bytes, copies: int = 1) -> ObjectVersion:
        """Drop a file; its event comes once or more often, and out of order."""
        self.sequencer += 0x10
        self.w.time[0] += timedelta(milliseconds=5)
        version = self.drops.upload(key, body)
        source = ObjectVersion(
            DROPS, key, version, f"etag-{version}", len(body), f"{self.sequencer:018X}", self.w.time[0]
        )
        self.events += [source] * copies
        self.random.shuffle(self.events)
        return source

    def something(self) -> bool:
        """Do one thing, or let time pass; False when nothing is left to do."""
        heads = [head for head in self.queue.heads() if not self.behind_left(head)]
        ready = [head for head in heads if head.visible <= self.w.time[0]]
        asked, held = self.asked.deliveries, self.held()
        left = bool(heads or self.events or asked or held)
        if held and (self.random.random() < 0.1 or not (ready or self.events or asked)):
            self.decide(self.random.choice(held))
        elif self.events and (not ready or self.random.random() < 0.5):
            self.event()
        elif asked and self.random.random() < 0.5:
            self.name()
        elif ready:
            self.deliver(self.random.choice(ready))
        elif heads:
            self.w.time[0] = min(head.visible for head in heads)
        return left

    def held(self) -> list[Delivery]:
        """Return the deliveries that somebody may decide about now."""
        found = []
        for delivery in self.lives():
            told = self.deciding.get(delivery.id)
            release = self.ledger.delivery(delivery_id(told)) if told is not None else None
            busy = told is not None and (release is None or not release.outcome.final)
            if delivery.outcome == "held" and delivery.announced and delivery.id not in self.left and not busy:
                found.append(delivery)
        return found

    def behind_left(self, message: Message) -> bool:
        """Return whether a message waits behind a delivery that nobody will decide about."""
        delivery = self.ledger.delivery(message.delivery)
        assert delivery is not None
        busy = self.ledger.target(delivery.target).content.get("busy", "")
        return busy in self.left and busy != delivery.id and not delivery.dry_run and not self.replaces(delivery, busy)

    def replaces(self, delivery: Delivery, busy: str) -> bool:
        """Return whether the delivery may still end the one that is in its way, or has not looked yet."""
        return not delivery.reason.startswith(f"waits: behind delivery {busy}") or delivery.waits == 0

    def fuse(self) -> Fuse:
        """Return a fuse that blows now and then, rarely enough that nothing is taken for poison."""
        if self.crashes and self.random.random() < 0.15:
            self.crashes -= 1
            return Fuse(self.random.randrange(1, 60))
        return Fuse()

    def event(self) -> None:
        """Take an event of S3."""
        source = self.events.pop()
        fuse = self.fuse()
        try:
            if source.key.startswith("incoming/release/"):
                self.w.release(source, fuse.ports(self.w))
            else:
                self.w.prepare(source, fuse.ports(self.w))
        except (SimulatedCrash, LedgerConflict, Wait):
            self.w.time[0] += VISIBILITY
            self.events.insert(self.random.randrange(len(self.events) + 1), source)

    def name(self) -> None:
        """Take a message that asks for the names of refused rows; it may come twice."""
        place = self.random.randrange(len(self.asked.deliveries))
        asked = self.asked.deliveries.pop(place)
        fuse = self.fuse()
        try:
            self.named(asked, fuse)
        except (SimulatedCrash, LedgerConflict, Wait):
            self.w.time[0] += VISIBILITY
            self.asked.deliveries.append(asked)
        else:
            if self.random.random() < 0.1:
                self.asked.deliveries.append(asked)

    def deliver(self, message: Message) -> None:
        """Take a message of the FIFO queue."""
        fuse = self.fuse()
        asked = cast("Queue", Fragile(fuse, "asked", self.asked))
        try:
            self.w.step(message.delivery, fuse.ports(self.w), fuse.cloudzero(self.w), asked)
        except Wait as wait:
            message.visible = self.w.time[0] + timedelta(seconds=wait.seconds)
        except LedgerConflict:
            message.visible = self.w.time[0] + timedelta(seconds=30)
        except SimulatedCrash:
            message.visible = self.w.time[0] + VISIBILITY
        else:
            self.queue.done(message)

    def receipt(self, delivery: Delivery) -> dict[str, Any]:
        """Return the receipt that stands in the bucket."""
        found: dict[str, Any] = json.loads(self.drops.latest(delivery.receipt_key))
        return found

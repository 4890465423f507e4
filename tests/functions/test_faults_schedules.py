"""Everything at once: random schedules of duplicates, reorderings, overwrites, crashes and the vendor's faults."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any

import boto3
import pytest
from finops_relay.aws.tables import DynamoLedger
from finops_relay.delivery.identity import ObjectVersion, delivery_id
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports
from finops_relay.errors import Wait

from local.standins.infracost import AWS_ORGANIZATION, AZURE_ORGANIZATION
from tests.world.crashes import Fuse, SimulatedCrash
from tests.world.relay import REGION, World, world
from tests.world.sheets import aws_sheet, azure_sheet, zipped

SCHEDULES = 500 if os.environ.get("RELAY_CHAOS") == "full" else 40
KEYS = ("aws/a.csv", "aws/b.csv", "azure/c.csv", "azure/d.zip")
ORGANIZATIONS = {"aws": AWS_ORGANIZATION, "azure": AZURE_ORGANIZATION}
OPERATIONS = (
    "createPriceBook",
    "createPriceBookFile",
    "uploadPriceBookFile",
    "ingestPriceBook",
    "getPriceBook",
    "listPriceBooks",
    "updateOrganization",
)
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "90"}},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 500, "body": "oops"},
    {"kind": "reset"},
    {"kind": "half_read"},
    {"kind": "lost_answer"},
    {"kind": "lost_answer_status", "status": 502},
    {"kind": "half_body"},
    {"kind": "html"},
    {"kind": "empty"},
    {"kind": "delay", "seconds": 0.02},
)


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    with world(polls_needed=2) as found:
        yield found


@dataclass
class Drop:
    """One file that somebody dropped."""

    source: ObjectVersion
    provider: str
    rows: int


@dataclass
class Announced:
    """A bus that remembers what it was told, over the real one."""

    inner: Any
    told: dict[str, set[str]] = field(default_factory=dict)

    def announce(self, delivery: Delivery, receipt_uri: str) -> None:
        self.told.setdefault(delivery.id, set()).add(delivery.outcome.value)
        self.inner.announce(delivery, receipt_uri)


@dataclass
class Schedule:
    """One random life of several drops."""

    w: World
    random: Random
    ports: Ports
    bus: Announced
    drops: list[Drop] = field(default_factory=list)
    events: list[ObjectVersion] = field(default_factory=list)
    queues: dict[str, list[str]] = field(default_factory=dict)
    """FIFO groups: pointers in order; only the first of a group can be received."""
    hidden: dict[str, Any] = field(default_factory=dict)
    """Pointer -> when it comes back."""
    crashes: int = 4

    def drop(self) -> None:
        """Drop a file; its event comes once or twice."""
        key = self.random.choice(KEYS)
        provider, rows = key.partition("/")[0], self.random.randrange(1, 6)
        price = f"0.{self.random.randrange(1, 4)}"
        content = aws_sheet(rows, price) if provider == "aws" else azure_sheet(rows, price, reserved=2)
        if key.endswith(".zip"):
            content = zipped(a=content)
        source = self.w.drop(f"incoming/price-books/{key}", content)
        self.drops.append(Drop(source, provider, rows))
        self.events += [source] * self.random.choice((1, 1, 2))
        self.random.shuffle(self.events)

    def run(self) -> None:
        """Do one thing after another, in random order, until nothing is left to do."""
        for _ in range(self.random.randrange(1, 5)):
            self.drop()
        for _ in range(self.random.randrange(0, 7)):
            order = {"operation": self.random.choice(OPERATIONS), "fault": self.random.choice(FAULTS)}
            self.w.vendor.faults.add(
                [{**order, "after": self.random.randrange(3), "times": self.random.choice((1, 2))}]
            )
        late = self.random.randrange(0, 3)
        for _ in range(600):
            if late and self.random.random() < 0.2:
                late -= 1
                self.drop()
            heads = [pointers[0] for pointers in self.queues.values() if pointers]
            ready = [head for head in heads if self.hidden.get(head, self.w.time[0]) <= self.w.time[0]]
            if self.events and (not ready or self.random.random() < 0.5):
                self.prepare()
            elif ready:
                self.deliver(self.random.choice(ready))
            elif heads:
                self.w.time[0] = min(self.hidden[head] for head in heads)
            elif not late:
                return
        raise AssertionError("it does not end")

    def fuse(self) -> Fuse:
        """Return a fuse that blows now and then, rarely enough that nothing is taken for poison."""
        if self.crashes and self.random.random() < 0.2:
            self.crashes -= 1
            return Fuse(self.random.randrange(1, 70))
        return Fuse()

    def prepare(self) -> None:
        source = self.events.pop()
        fuse = self.fuse()
        try:
            self.w.prepare(source, self.behind(fuse))
        except SimulatedCrash:
            self.w.time[0] += timedelta(hours=1.5)
            self.events.insert(self.random.randrange(len(self.events) + 1), source)
        for message in self.w.queued():
            pointer = json.loads(message["Body"])["delivery"]
            self.queues.setdefault(message["Attributes"]["MessageGroupId"], []).append(pointer)

    def deliver(self, pointer: str) -> None:
        fuse = self.fuse()
        try:
            self.w.step(pointer, self.behind(fuse), fuse.client(self.w))
        except Wait as wait:
            self.hidden[pointer] = self.w.time[0] + timedelta(seconds=wait.seconds)
        except SimulatedCrash:
            self.hidden[pointer] = self.w.time[0] + timedelta(hours=1.5)
        else:
            group = next(pointers for pointers in self.queues.values() if pointers[:1] == [pointer])
            group.pop(0)

    def behind(self, fuse: Fuse) -> Ports:
        return fuse.ports(replace(self.w, ports=self.ports))


def fresh(shared: World, seed: int) -> Schedule:
    """Begin a schedule with an empty ledger and an empty vendor."""
    dynamodb = boto3.client("dynamodb", REGION)
    table = f"ledger-{seed}"
    dynamodb.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    shared.vendor.reset()
    shared.queued()
    ledger = DynamoLedger(dynamodb, table, 400, lambda: shared.time[0])
    w = replace(shared, ledger=ledger, ports=replace(shared.ports, ledger=ledger))
    bus = Announced(w.ports.bus)
    return Schedule(w, Random(seed), replace(w.ports, bus=bus), bus)  # noqa: S311 -- a schedule, no secret


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_whatever_happens_the_newest_drop_of_each_target_ends_active(shared: World, seed: int) -> None:
    """Row 2, Row 3, Row 4, Row 8, Row 9, Row 14, Row 15: together, at random; each row counted, each ending final."""
    schedule = fresh(shared, seed)
    schedule.run()
    w = schedule.w
    w.vendor.faults.clear()
    newest: dict[str, tuple[Drop, Delivery]] = {}
    for drop in schedule.drops:
        delivery = w.ledger.delivery(delivery_id(drop.source))
        assert delivery is not None
        receipt = w.receipt(delivery)
        assert delivery.outcome.final
        assert receipt["outcome"] == delivery.outcome.value
        assert schedule.bus.told[delivery.id] == {delivery.outcome.value}
        assert receipt["reason"] or receipt["outcome"] == "delivered"
        assert (receipt["rows"]["owed"] == 0) or receipt["outcome"] in {"superseded", "failed"}
        newest[drop.provider] = (drop, delivery)
    for provider, (drop, delivery) in newest.items():
        assert delivery.outcome in {"delivered", "unchanged"}, delivery.reason
        assert delivery.rows.accepted == drop.rows
        active = w.active(ORGANIZATIONS[provider])
        book = next(book for book in w.state()["price_books"] if book["id"] == active)
        sent = [(unit.rows, unit.sha256) for unit in delivery.units if unit.spool_key]
        assert [(file["rows"], file["sha256"]) for file in book["files"]] == sent

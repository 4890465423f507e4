"""Crashes of telemetry: the process dies at one call of a port or of the vendor's client, at every one there is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from finops_relay.delivery.identity import ObjectVersion, delivery_id
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Queue
from finops_relay.errors import Wait
from finops_relay.jobs.telemetry.prepare import name_rejected

from tests.world.crashes import Fragile, Fuse, SimulatedCrash
from tests.world.relay import DROPS
from tests.world.schedules import VISIBILITY, Parts
from tests.world.telemetry import Telemetry, folder, metric, telemetry

FIRST = metric(("01T00", "1", "a"), ("01T00", "2", "b"), ("02T00", "4", "a"), ("01T00", "3", "c"))
FULL = os.environ.get("RELAY_CHAOS") == "full"
BODY_BYTES = 250
"""Holds two records."""


@pytest.fixture(scope="module", params=["live", "openapi"])
def shared(request: pytest.FixtureRequest) -> Iterator[Telemetry]:
    """One world for all crashes under a contract; each life has a ledger of its own, and an empty vendor."""
    with telemetry(request.param) as found:
        yield replace(found, body_bytes=BODY_BYTES)


@dataclass
class Life:
    """The life of some files, one after the other, with one crash in it."""

    w: Telemetry
    fuse: Fuse
    parts: Parts = field(default_factory=Parts)
    events: list[ObjectVersion] = field(default_factory=list)
    decided: list[str] = field(default_factory=list)
    crashed: bool = False

    def __post_init__(self) -> None:
        self.w.vendor.reset()
        parts = self.parts
        self.w = replace(self.w, ports=parts.ports(self.w.metrics), time=parts.time, asked=parts.asked)

    def drop(self, key: str, body: bytes) -> ObjectVersion:
        """Drop a file."""
        self.w.sequencer += 0x10
        self.w.time[0] += timedelta(milliseconds=5)
        self.parts.drops.put(key, body, "text/plain")
        pinned = self.parts.drops.pin(DROPS, key)
        source = replace(pinned, sequencer=f"{self.w.sequencer:018X}", at=self.w.time[0])
        self.events.append(source)
        return source

    def run(self, key: str, body: bytes) -> dict[str, Any]:
        """Take events and messages until nothing is left; return the receipt."""
        source = self.drop(key, body)
        for _ in range(400):
            heads = [head for head in self.parts.queue.heads() if head.visible <= self.w.time[0]]
            if self.events:
                self.event()
            elif heads:
                message = heads[0]
                asked = cast("Queue", Fragile(self.fuse, "asked", self.parts.asked))
                try:
                    self.w.step(message.delivery, self.fuse.ports(self.w), self.fuse.cloudzero(self.w), asked)
                except Wait as wait:
                    message.visible = self.w.time[0] + timedelta(seconds=wait.seconds)
                except SimulatedCrash:
                    self.crash()
                    message.visible = self.w.time[0]
                else:
                    self.parts.queue.done(message)
            elif self.parts.asked.deliveries:
                self.named()
            elif self.parts.queue.heads():
                self.w.time[0] = min(head.visible for head in self.parts.queue.heads())
            else:
                delivery = self.parts.ledger.delivery(delivery_id(source))
                assert delivery is not None
                if delivery.outcome != "held":
                    found: dict[str, Any] = json.loads(self.parts.drops.latest(delivery.receipt_key))
                    assert found["outcome"] == delivery.outcome.value
                    return found
                self.decide(delivery)
        raise AssertionError("it does not end")

    def event(self) -> None:
        source = self.events.pop(0)
        try:
            if source.key.startswith("incoming/release/"):
                self.w.release(source, self.fuse.ports(self.w))
            else:
                self.w.prepare(source, self.fuse.ports(self.w))
        except SimulatedCrash:
            self.crash()
            self.events.append(source)

    def named(self) -> None:
        asked = self.parts.asked.deliveries.pop(0)
        try:
            name_rejected(asked, self.fuse.ports(self.w), self.w.waits)
        except SimulatedCrash:
            self.crash()
            self.parts.asked.deliveries.append(asked)

    def crash(self) -> None:
        """Begin another process."""
        self.crashed = True
        self.fuse.mend()
        self.w.time[0] += VISIBILITY

    def decide(self, held: Delivery) -> None:
        """Drop the true decision about a body whose outcome is unknown."""
        (doubtful,) = [unit.sha256 for unit in held.units if unit.status == "in doubt"]
        arrived = any(post["sha256"] == doubtful for post in self.w.vendor.state()["posts"])
        self.decided.append("mark as arrived" if arrived else "send")
        self.drop(f"incoming/release/{held.id}.json", json.dumps({"decision": self.decided[-1]}).encode())


def every_crash(  # noqa: PLR0913, PLR0917 -- a life, and how it has to end
    shared: Telemetry, key: str, body: bytes, expected: dict[str, str], outcome: str = "delivered", first: bytes = FIRST
) -> list[Life]:
    """Live a life without a crash, then one for each call that the second file made, with a crash before that call."""
    lives, begun, at = list[Life](), 0, 0
    # In the short form one contract takes every other crash, and the other one the others: they share most of the code.
    step = 1 if FULL else 2
    while not lives or at <= len(lives[0].fuse.calls):
        life = Life(shared, Fuse(at))
        life.run(f"{folder('s')}first.csv", first)
        begun = begun or len(life.fuse.calls)
        receipt = life.run(key, body)
        where = f"crashed before call {at}: {lives[0].fuse.calls[at - 1] if lives else ''}"
        assert life.w.values("s") == {name: Decimal(value) for name, value in expected.items()}, where
        assert receipt["outcome"] == outcome, (where, receipt["reason"])
        assert receipt["rows"]["owed"] == 0
        assert life.crashed == bool(at)
        at = at + step if at else begun + 1 + (step > 1 and shared.contract == "live")
        lives.append(life)
    return lives


def test_a_crash_while_records_are_replaced_leaves_each_record_once(shared: Telemetry) -> None:
    """Row 2, Row 14: what replaces is redone from where it was, also where a period is deleted and told anew."""
    body = metric(("01T00", "10", "a"), ("03T00", "5", "a"), ("01T00", "oops", "b"))
    expected = {"01T00 a": "10", "01T00 b": "2", "01T00 c": "3", "02T00 a": "4", "03T00 a": "5"}
    lives = every_crash(shared, f"{folder('s')}a.csv", body, expected, "partly_delivered")
    assert {"queue.send", "vendor.request", "spool.writer.exit", "bus.announce"} <= set(lives[0].fuse.calls)
    assert not any(life.decided for life in lives)


def test_a_crash_while_records_are_added_adds_them_once_or_asks(shared: Telemetry) -> None:
    """Row 2, Row 10, Row 14: a crash between sending and hearing is the only one that a person has to decide about."""
    body = metric(("01T00", "10", "a"), ("02T00", "20", "a"), ("03T00", "5", "a"))
    expected = {"01T00 a": "11", "01T00 b": "2", "01T00 c": "3", "02T00 a": "24", "03T00 a": "5"}
    lives = every_crash(shared, f"{folder('s', 'sum')}a.csv", body, expected)
    asked = [life.decided for life in lives if life.decided]
    # Two bodies: before the call, and before its answer is kept. The short form meets one of the two.
    assert asked == [["send"], ["mark as arrived"]] * 2 if FULL else 1 <= len(asked) <= 4


def test_a_crash_while_periods_are_deleted_deletes_them(shared: Telemetry) -> None:
    """Row 2, Row 14: a deletion is repeated until it is heard."""
    body = b"timestamp,granularity\n2026-03-01T00:00:00Z,DAILY\n2026-03-05T00:00:00Z,DAILY\n"
    every_crash(shared, f"{folder('s', 'delete')}a.csv", body, {"02T00 a": "4"})


def test_a_crash_while_a_stream_is_deleted_deletes_it_and_frees_its_name(shared: Telemetry) -> None:
    """Row 2, Row 14: the stream is gone, and so is what the ledger has of it."""
    for life in every_crash(shared, f"{folder('s', 'delete')}stream.json", b'{"stream": "s"}', {}):
        assert life.w.streams() == {}
        record = life.parts.ledger.record("stream#s").content
        assert (record["kind"], record["pages"]) == ("", {})


def test_a_crash_while_hours_are_rolled_up_counts_each_hour_once(shared: Telemetry) -> None:
    """Row 2, Row 14: the book's other hours are there whenever a day is told."""
    first = metric(("01T00", "1", "a"), ("01T01", "2", "a"), granularity="HOURLY")
    body = metric(("01T01", "7", "a"), ("01T02", "4", "a"), granularity="HOURLY")
    live = shared.contract == "live"
    expected = {"01T00 a": "12"} if live else {"01T00 a": "1", "01T01 a": "7", "01T02 a": "4"}
    every_crash(shared, f"{folder('s')}a.csv", body, expected, first=first)

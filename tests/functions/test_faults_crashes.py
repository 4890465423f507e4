"""Crashes: the process dies at one call of a port or of the vendor's client, at every one there is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.errors import Wait

from local.standins.infracost import AZURE_ORGANIZATION
from tests.world.crashes import Fuse, SimulatedCrash
from tests.world.relay import World, world
from tests.world.sheets import azure_sheet, zipped

FULL = os.environ.get("RELAY_CHAOS") == "full"
KEY = "incoming/price-books/azure/sheet.zip"
ROWS = {"in": 257, "accepted": 250, "filtered": 5, "rejected": 2, "owed": 0}
VISIBILITY = timedelta(hours=1.5)
"""After which SQS gives out again what a crashed function had (template: VisibilityTimeout)."""


@dataclass
class Case:
    """One delivery's whole life, with one crash in it."""

    world: World
    fuse: Fuse
    source: ObjectVersion
    queue_first: bool
    """What waits in the vendor's queue is taken before the event of a crashed preparation comes back."""
    steps: int = 0

    def live(self) -> str:
        """Take events and messages as SQS would give them, until nothing is left; return the delivery's id."""
        waiting: list[str] = [""]  # "" is the event; others are pointers
        ports, vendor = self.fuse.ports(self.world), self.fuse.client(self.world)
        found = ""
        while waiting:
            self.steps += 1
            assert self.steps < 100
            taken = waiting.pop(0)
            try:
                if taken:
                    self.world.step(taken, ports, vendor)
                else:
                    self.world.prepare(self.source, ports)
            except Wait as wait:
                self.world.time[0] += timedelta(seconds=wait.seconds)
                waiting.append(taken)
            except SimulatedCrash:
                self.fuse.mend()
                self.world.time[0] += VISIBILITY
                waiting.insert(1 if self.queue_first else 0, taken)
            fresh = [json.loads(message["Body"])["delivery"] for message in self.world.queued()]
            waiting = [*fresh, *waiting] if self.queue_first else [*waiting, *fresh]
            found = (fresh or [found])[0]
        return found


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    """One world for all crashes: each delivery replaces the former one's book, so that each is a switch."""
    with world(polls_needed=2) as found:
        found.deliver_file("incoming/price-books/azure/first.csv", azure_sheet(3))
        found.queued()
        yield found


def lived(shared: World, at: int, *, queue_first: bool = False) -> tuple[Fuse, dict[str, Any]]:
    """Run one life with a crash before call *at*, check all that must hold after any crash; return fuse and receipt."""
    before = shared.state()
    known = {book["id"] for book in before["price_books"]}
    switches = activations(before)
    former = shared.active(AZURE_ORGANIZATION)
    price = f"0.{shared.sequencer}"
    part_1 = azure_sheet(150, price, bad=1, reserved=3, name="one")
    part_2 = azure_sheet(100, price, bad=1, reserved=2, name="two")
    case = Case(shared, Fuse(at), shared.drop(KEY, zipped(one=part_1, two=part_2)), queue_first)
    delivery = shared.ledger.delivery(case.live())
    assert delivery is not None
    receipt = shared.receipt(delivery)
    crash = case.fuse.calls[at - 1 : at]

    assert receipt["outcome"] == "partly_delivered", crash  # because of the rejected rows
    assert receipt["rows"] == ROWS, crash
    state = shared.state()
    books = {book["id"]: book for book in state["price_books"] if book["id"] not in known}
    active = shared.active(AZURE_ORGANIZATION)
    files = [unit for unit in receipt["units"] if unit["spool_key"]]
    assert active in books, crash
    assert [(file["rows"], file["sha256"]) for file in books[active]["files"]] == [
        (unit["rows"], unit["sha256"]) for unit in files
    ], crash
    assert [unit["rows"] for unit in files] == [150, 100], crash
    for unit in files:
        puts = sum(f["puts"] for book in books.values() for f in book["files"] if f["sha256"] == unit["sha256"])
        assert 1 <= puts <= 2, crash
    orphans = set(books) - {active}
    assert len(orphans) <= 1, crash
    told = " ".join(receipt["warnings"])
    assert all(orphan in told for orphan in orphans), crash
    # Until the switch nothing else was ever active, and the switch happened once or was said twice.
    switched = activations(state)[len(switches) :]
    assert set(switched) == {active}, crash
    assert len(switched) <= 2, crash
    assert active != former, crash
    rejected = shared.text(receipt["rejected_rows"].removeprefix("s3://drops/"))
    assert len(rejected.splitlines()) == 3, crash
    return case.fuse, receipt


def activations(state: dict[str, Any]) -> list[str]:
    """Return the books that the organization was given, in order."""
    return [
        entry["customPriceBookId"]
        for known in state["organizations"]
        if known["id"] == AZURE_ORGANIZATION
        for entry in known["activations"]
    ]


def test_a_crash_at_any_call_redoes_one_step_and_loses_and_doubles_nothing(shared: World) -> None:
    """Row 2, Row 14: after a crash at any call, the same event or message leads to the end, each row once."""
    whole, receipt = lived(shared, 0)
    assert receipt["warnings"] == []
    assert {"queue.send", "vendor.ingest_price_book", "spool.chunks.next", "bus.announce"} <= set(whole.calls)
    for at in range(1, len(whole.calls) + 1):
        lived(shared, at, queue_first=at % 2 == 0)
        if FULL:
            lived(shared, at, queue_first=at % 2 == 1)


def test_a_finished_delivery_that_is_given_out_again_changes_nothing(shared: World) -> None:
    """Row 2: a crash after the very last call brings event and message back, and both find that all is done."""
    _, receipt = lived(shared, 0)
    before = shared.state()["counts"]
    delivery = shared.ledger.delivery(receipt["id"])
    assert delivery is not None
    source = receipt["source"]
    again = ObjectVersion(
        source["bucket"], source["key"], source["version"], source["etag"], sequencer=source["sequencer"]
    )
    assert shared.prepare(again) == delivery
    assert shared.step(delivery.id) == delivery
    assert shared.queued() == []
    assert shared.state()["counts"] == before

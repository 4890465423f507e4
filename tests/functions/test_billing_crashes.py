"""Crashes of billing drops: the process dies at one call of a port or of the vendor's client, at every one there is.

Each life is that of one file, from its event to its end, through all the functions that it meets; `make chaos` lives
them over AWS's own interfaces (moto), `make test` over ports in memory.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from finops_relay.delivery.identity import ObjectVersion, delivery_id
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Ports, Queue
from finops_relay.delivery.waits import Looks
from finops_relay.errors import Wait
from finops_relay.jobs.billing.prepare import name_rejected

from tests.world.billing import FOLDER, POISON, Asked, Billing, billing, cbf
from tests.world.crashes import Fragile, Fuse, SimulatedCrash
from tests.world.memory import Fifo, MemoryBucket, MemoryLedger, Message, Told
from tests.world.relay import DROPS, SPOOL

FULL = os.environ.get("RELAY_CHAOS") == "full"
VISIBILITY = timedelta(hours=1.5)
"""After which SQS gives out again what a crashed function had (template: VisibilityTimeout)."""
BODY_BYTES = 420
"""Holds two or three rows."""
LATE = ("01T07", "1.25", "late")
OVERSIZED = [("01T05", f"{cost}.10", "large") for cost in range(6)]
Row = tuple[str, Decimal, str]
"""Start, cost and service."""
GOOD = [("01T01", "10.50", "early"), ("01T01", "-0.75", "early"), *OVERSIZED, LATE]


@pytest.fixture(scope="module", params=["live", "openapi"])
def shared(request: pytest.FixtureRequest) -> Iterator[Billing]:
    """One world for all crashes under a contract; each life has a ledger of its own, and an empty vendor."""
    with billing(request.param) as found:
        yield replace(found, body_bytes=BODY_BYTES)


@dataclass
class Life:
    """The life of one file, with one crash in it."""

    w: Billing
    fuse: Fuse
    queue_first: bool = False
    """What waits in the vendor's queue is taken before the event of a crashed function comes back."""
    left: bool = False
    """Nobody decides."""
    asked: Asked = field(default_factory=Asked)
    events: list[ObjectVersion] = field(default_factory=list)
    decided: list[str] = field(default_factory=list)
    crashed: bool = False

    def __post_init__(self) -> None:
        self.w.vendor.reset()
        self.queue = Fifo(lambda: self.w.time[0])
        if FULL:
            self.w = self.w.with_ledger(f"ledger-{self.w.time[0].timestamp()}-{id(self)}")
            ports = replace(self.w.ports, queue=self.queue)
        else:
            ledger, drops, spool = MemoryLedger(), MemoryBucket(DROPS), MemoryBucket(SPOOL)
            ports = Ports(ledger, drops, spool, self.queue, Told(), self.w.metrics, self.w.ports.clock)
        self.w = replace(self.w, ports=ports)

    def drop(self, key: str, body: bytes) -> ObjectVersion:
        """Drop a file."""
        self.w.sequencer += 0x10
        self.w.time[0] += timedelta(milliseconds=5)
        self.w.ports.drops.put(key, body, "text/plain")
        pinned = self.w.ports.drops.pin(DROPS, key)
        source = replace(pinned, sequencer=f"{self.w.sequencer:018X}", at=self.w.time[0])
        self.events.append(source)
        return source

    def run(self, key: str, body: bytes) -> dict[str, Any]:
        """Take events and messages as SQS would give them, until nothing is left; return the receipt."""
        source = self.drop(key, body)
        for _ in range(300):
            heads = [head for head in self.queue.heads() if head.visible <= self.w.time[0]]
            if self.events and not (self.queue_first and heads):
                self.taken_event()
            elif heads:
                self.taken(heads[0])
            elif self.asked.deliveries:
                self.named()
            elif self.queue.heads():
                self.w.time[0] = min(head.visible for head in self.queue.heads())
            else:
                delivery = self.w.ports.ledger.delivery(delivery_id(source))
                assert delivery is not None
                if delivery.outcome != "held" or self.left:
                    return self.receipt(delivery)
                self.decide(delivery)
        raise AssertionError("it does not end")

    def taken_event(self) -> None:
        source = self.events.pop(0)
        ports = self.fuse.ports(self.w)
        try:
            if source.key.startswith("incoming/release/"):
                self.w.release(source, ports)
            else:
                self.w.prepare(source, ports)
        except SimulatedCrash:
            self.crash()
            self.events.append(source)

    def taken(self, message: Message) -> None:
        asked = cast("Queue", Fragile(self.fuse, "asked", self.asked))
        try:
            self.w.step(message.delivery, self.fuse.ports(self.w), self.fuse.cloudzero(self.w), asked)
        except Wait as wait:
            message.visible = self.w.time[0] + timedelta(seconds=wait.seconds)
        except SimulatedCrash:
            self.crash()
            message.visible = self.w.time[0]
        else:
            self.queue.done(message)

    def named(self) -> None:
        asked = self.asked.deliveries.pop(0)
        try:
            name_rejected(asked, self.fuse.ports(self.w), self.w.waits)
        except SimulatedCrash:
            self.crash()
            self.asked.deliveries.append(asked)

    def crash(self) -> None:
        """Begin another process."""
        self.crashed = True
        self.fuse.mend()
        self.w.time[0] += VISIBILITY

    def decide(self, held: Delivery) -> None:
        """Drop the decision about a body whose outcome is unknown."""
        doubtful = [unit.sha256 for unit in held.units if unit.status == "in doubt"]
        assert len(doubtful) == 1, held.reason
        assert len(self.decided) < 2, "held again and again"
        arrived = any(post["sha256"] == doubtful[0] for post in self.w.vendor.state()["posts"])
        said = "mark as arrived" if arrived else "send"
        self.decided.append(said)
        self.drop(f"incoming/release/{held.id}.json", json.dumps({"decision": said}).encode())

    def receipt(self, delivery: Delivery) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text(delivery.receipt_key))
        assert found["outcome"] == delivery.outcome.value
        return found

    def text(self, key: str) -> bytes:
        """Return an object of the drops bucket."""
        with self.w.ports.drops.open(self.w.ports.drops.pin(DROPS, key)) as stream:
            return stream.read()

    def held(self) -> list[Row]:
        """Return what the vendor holds."""
        names = ("timestamp", "cost", "service")
        if self.w.contract == "live":
            names = ("time/usage_start", "cost/cost", "resource/service")
        found = [[row[name] for name in names] for row in self.w.held().get("rows", [])]
        return sorted((start[8:13], Decimal(cost), service) for start, cost, service in found)


def exact(life: Life, receipt: dict[str, Any], good: list[Row], rejected: int) -> None:
    """Check that the vendor holds just the good rows, each once, and that the receipt says so."""
    where = f"crashed before call {len(life.fuse.calls)}"
    assert life.held() == sorted(good), where
    assert receipt["outcome"] == ("partly_delivered" if rejected else "delivered"), where
    rows = {"in": len(good) + rejected, "accepted": len(good), "filtered": 0, "rejected": rejected, "owed": 0}
    assert receipt["rows"] == rows, where
    assert Decimal(receipt["money"]["sent"]) == sum(cost for _, cost, _ in good) == life.w.total(), where
    posts = Counter(post["sha256"] for post in life.w.state()["posts"] if post["mode"] in {"sum", "append"})
    most = 1 + life.decided.count("send") * (life.w.contract == "live")  # there it replaces first
    assert all(count <= most for count in posts.values()), where
    named = life.text(receipt["rejected_rows"].removeprefix(f"s3://{DROPS}/")) if rejected else b"columns"
    assert len(named.splitlines()) == 1 + rejected, where


def every_crash(
    shared: Billing,
    rows: list[tuple[str, str, str]],
    key: str = f"{FOLDER}/costs.csv",
    fault: dict[str, Any] | None = None,
) -> tuple[Life, list[Life]]:
    """Live a life without a crash, then one for each call that it made, with a crash before that call; return them.

    Args:
        shared: the world.
        rows: of the file.
        key: of the file.
        fault: the vendor's, as it is ordered.
    """
    good = [(start, Decimal(cost), service) for start, cost, service in rows if cost != "oops" and service != POISON]
    lives = list[Life]()
    while not lives or len(lives) <= len(lives[0].fuse.calls):
        at = len(lives)
        life = Life(shared, Fuse(at), queue_first=at % 2 == 1)
        life.w.vendor.faults.add([fault] if fault else [])
        receipt = life.run(key, cbf(*rows))
        exact(life, receipt, good, len(rows) - len(good))
        assert life.crashed == bool(at)
        lives.append(life)
    return lives[0], lives[1:]


@pytest.mark.parametrize("folder", ["", "month/"])
def test_a_crash_at_any_call_of_a_billing_drop_loses_and_doubles_nothing(shared: Billing, folder: str) -> None:
    """Row 2, Row 14: after a crash at any call the drop ends exact; only one in a body that adds has to be decided."""
    rows = [*GOOD[:3], ("01T05", "oops", "large"), *GOOD[3:]]
    whole, crashed = every_crash(shared, rows, f"{FOLDER}/{folder}costs.csv")
    assert {"queue.send", "vendor.request", "spool.chunks.next", "bus.announce"} <= set(whole.fuse.calls)
    assert whole.decided == []
    adding = 4 if shared.contract == "openapi" else 2
    asked = [life.decided for life in crashed if life.decided]
    # Of a body that adds: just before it left, and just before its answer was written down.
    assert asked == [["send"], ["mark as arrived"]] * adding if shared.contract == "openapi" else [["send"]] * adding


def test_a_crash_while_refused_rows_are_found_and_named_loses_none_of_them(shared: Billing) -> None:
    """Row 11, Row 14: rows that the vendor refuses are named once, and the others arrive once, wherever it crashes."""
    rows = [GOOD[0], ("01T01", "4.00", POISON), LATE]
    whole, _ = every_crash(replace(shared, body_bytes=5_000_000), rows)
    assert {"asked.send", "drops.writer.write"} <= set(whole.fuse.calls)


@pytest.mark.parametrize(("fault", "decision"), [("lost_answer", "mark as arrived"), ("reset", "send")])
def test_a_crash_while_a_decision_is_taken_takes_it_once(shared: Billing, fault: str, decision: str) -> None:
    """Row 10, Row 14: what a person decides about a body in doubt is done once, wherever the release crashes."""
    live = shared.contract == "live"
    w = replace(shared, read_back=Looks(300, 300, 300))
    after = 2 if live else 0  # of live only the rest of an oversized hour is ever in doubt
    ordered = {"operation": "createAnyCostBillingDrop", "after": after, "fault": {"kind": fault}}
    whole, _ = every_crash(w, GOOD, fault=ordered)
    assert whole.decided == ([] if live and fault == "lost_answer" else [decision])  # there it is read back


@pytest.mark.parametrize("shared", ["openapi"], indirect=True)  # under live it is read back
def test_a_decision_that_was_obeyed_is_not_obeyed_again_when_the_delivery_is_held_once_more(shared: Billing) -> None:
    """Row 10, Row 14: the release dies after it was obeyed; its event comes back when the next body is in doubt."""
    first = Life(shared, Fuse())
    first.w.vendor.faults.add([{"operation": "createAnyCostBillingDrop", "fault": {"kind": "reset"}}])
    first.run(f"{FOLDER}/costs.csv", cbf(*GOOD))
    sent_on = [place for place, call in enumerate(first.fuse.calls, 1) if call == "queue.send"][1]
    life = Life(shared, Fuse(sent_on + 1), queue_first=True)
    faults = [{"kind": "reset"}, {"kind": "lost_answer"}]
    life.w.vendor.faults.add([{"operation": "createAnyCostBillingDrop", "fault": fault} for fault in faults])
    receipt = life.run(f"{FOLDER}/costs.csv", cbf(*GOOD))
    exact(life, receipt, [(start, Decimal(cost), service) for start, cost, service in GOOD], 0)
    assert life.decided == ["send", "mark as arrived"]


def test_a_crash_while_a_newer_file_ends_a_held_one_leaves_neither_without_an_end(shared: Billing) -> None:
    """Row 14, Row 15: the receipt of a held delivery that a newer one replaces says so, wherever that one crashes."""
    old, new = cbf(("01T01", "1.00", "old")), cbf(("01T01", "2.00", "new"))
    key = f"{FOLDER.replace('2026-03', '2026-01')}/costs.csv"  # of a closed month, so that both are held
    old, new = (body.replace(b"2026-03", b"2026-01") for body in (old, new))
    calls, at = 1, 0
    while at <= calls:
        life = Life(shared, Fuse(), left=True)
        first = life.run(key, old)
        assert first["outcome"] == "held"
        life.fuse.at = len(life.fuse.calls) + at if at else 0
        before = len(life.fuse.calls)
        second = life.run(key, new)
        calls = calls if at else len(life.fuse.calls) - before
        assert second["outcome"] == "held"
        former = life.w.ports.ledger.delivery(first["id"])
        assert former is not None
        assert life.receipt(former)["outcome"] == "superseded", life.fuse.calls[before + at - 1 :]
        assert former.announced
        at += 1


@dataclass
class Before(Fuse):
    """A fuse that blows before the first call of a name."""

    name: str = ""

    def tick(self, name: str) -> None:
        """Count a call. Raises SimulatedCrash."""
        if name == self.name and not self.blown:
            self.at = len(self.calls) + 1
        super().tick(name)


def test_a_version_whose_preparation_died_never_takes_the_place_of_a_newer_one(shared: Billing) -> None:
    """Row 4, Row 14: A, B, A again: B's event comes back last, when the second A has been found unchanged."""
    life = Life(shared, Fuse())
    first, second = cbf(("01T01", "1.00", "a")), cbf(("01T01", "2.00", "b"))
    key = f"{FOLDER}/costs.csv"
    life.run(key, first)
    late = life.drop(key, second)
    life.fuse = Before(name="queue.send")
    life.taken_event()
    assert life.crashed
    life.fuse = Fuse()
    life.events.clear()
    assert life.run(key, first)["outcome"] == "unchanged"
    life.events.append(late)
    life.taken_event()
    life.taken(life.queue.heads()[0])
    delivery = life.w.ports.ledger.delivery(delivery_id(late))
    assert delivery is not None
    assert life.receipt(delivery)["outcome"] == "superseded"
    assert life.held() == [("01T01", Decimal(1), "a")]


@pytest.mark.parametrize("shared", ["openapi"], indirect=True)  # under live the whole file replaces
def test_mended_rows_are_not_added_to_a_newer_version_that_has_them(shared: Billing) -> None:
    """Row 4, Row 10: the file was corrected and dropped again; its mended row comes after that, and is there."""
    life = Life(shared, Fuse())
    key = f"{FOLDER}/costs.csv"
    old = life.run(key, cbf(("01T01", "1.00", "a"), ("01T02", "oops", "b")))
    assert life.run(key, cbf(("01T01", "1.00", "a"), ("01T02", "2.00", "b")))["outcome"] == "delivered"
    rejected = life.text(f"rejected/{old['id']}.csv")
    mended = life.run(f"{FOLDER}/mended/{old['id']}.csv", rejected.replace(b"oops", b"2.00"))
    assert mended["outcome"] == "superseded"
    assert life.held() == [("01T01", Decimal(1), "a"), ("01T02", Decimal(2), "b")]


@pytest.mark.parametrize("shared", ["live"], indirect=True)
def test_a_former_hour_that_is_still_shown_is_not_taken_for_the_rest_of_the_new_one(shared: Billing) -> None:
    """Row 10: what is read back may lag, and the hour may have had as many rows before."""
    life = Life(replace(shared, read_back=Looks(300, 300, 600)), Fuse())
    key = f"{FOLDER}/costs.csv"
    life.run(key, cbf(*((start, f"9{cost}", service) for start, cost, service in OVERSIZED)))
    life.w.vendor.configure({"read_lag_reads": 2})
    rest = {"operation": "createAnyCostBillingDrop", "after": 1, "fault": {"kind": "reset"}}
    life.w.vendor.faults.add([rest])
    receipt = life.run(key, cbf(*OVERSIZED))
    assert life.decided == ["send"]
    exact(life, receipt, [(start, Decimal(cost), service) for start, cost, service in OVERSIZED], 0)


@pytest.mark.parametrize("shared", ["live"], indirect=True)
def test_a_body_that_was_taken_unheard_and_then_cannot_be_sent_again_is_in_doubt(shared: Billing) -> None:
    """Row 10: the answer is a 502, and then the connection is not found: the body may be there, and is named."""
    life = Life(shared, Fuse())
    key = f"{FOLDER}/costs.csv"
    faults = [{"kind": "lost_answer_status"}, {"kind": "status", "status": 404}]
    life.w.vendor.faults.add([{"operation": "createAnyCostBillingDrop", "fault": fault} for fault in faults])
    receipt = life.run(key, cbf(*GOOD))
    assert receipt["outcome"] == "failed"
    assert [unit["status"] for unit in receipt["units"]] == ["in doubt", *["owed"] * (len(receipt["units"]) - 1)]
    assert receipt["rows"]["owed"] == len(GOOD)
    assert len(life.held()) == 2
    exact(life, life.run(key, cbf(*GOOD)), [(start, Decimal(cost), service) for start, cost, service in GOOD], 0)

"""Random schedules of telemetry: files that replace, add and delete, mended rows, and records of applications.

Among faults, crashes, duplicates and events out of order. At the end each stream holds what its drops amount to, taken
in the order in which they were dropped, whatever order they arrived in; or a delivery is held and says what is in
doubt. What applications sent counts once by its id. The model knows the files, the records, the receipts and what the
words replace, sum and delete mean, and nothing else.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from random import Random
from typing import Any

import pytest
from finops_relay.delivery.identity import ObjectVersion, delivery_id
from finops_relay.delivery.ledger import Delivery
from finops_relay.errors import LedgerConflict
from finops_relay.jobs.telemetry.collect import INBOX, Sent, collect
from finops_relay.jobs.telemetry.merge import Bounds, merge
from finops_relay.jobs.telemetry.prepare import name_rejected
from typing_extensions import override

from tests.world.crashes import Fuse, SimulatedCrash
from tests.world.relay import DROPS
from tests.world.schedules import VISIBILITY, Parts, RandomLife
from tests.world.telemetry import Telemetry, telemetry

FULL = os.environ.get("RELAY_CHAOS") == "full"
SCHEDULES = 1_000 if FULL else 100
STARTS = ("01T00", "01T05", "02T00", "02T23")
TEAMS = ("a", "b", "c")
NAMES = ("a.csv", "a.csv", "b.csv")
VERBS = ("replace", "replace", "replace", "sum", "sum", "delete")
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "90"}},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 500, "body": "oops"},
    {"kind": "status", "status": 502},
    {"kind": "status", "status": 504},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 403},
    {"kind": "reset"},
    {"kind": "half_read"},
    {"kind": "html"},
    {"kind": "delay", "seconds": 0.01},
)
REFUSALS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 400, "body": {"message": "no"}},
    {"kind": "status", "status": 413},
)
"""Not in one schedule with `ACTING`: no vendor refuses the content of a body that it has taken."""
ACTING: tuple[dict[str, Any], ...] = (
    {"kind": "lost_answer"},
    {"kind": "lost_answer"},
    {"kind": "lost_answer_status", "status": 500},
    {"kind": "lost_answer_status", "status": 502},
    {"kind": "lost_answer_status", "status": 504},
    {"kind": "half_body"},
    {"kind": "empty"},
)
"""The vendor takes the body, and its answer is lost."""
OPERATIONS = {
    "live": (
        "postMetricTelemetryReplace",
        "postMetricTelemetryReplace",
        "postMetricTelemetrySum",
        "deleteMetricTelemetry",
        "postAllocationTelemetryReplace",
        "postAllocationTelemetrySum",
        "deleteAllocationTelemetry",
        "deleteTelemetryStream",
    ),
    "openapi": (
        "postMetricTelemetry",
        "postMetricTelemetry",
        "deleteMetricTelemetry",
        "postAllocationTelemetryReplace",
        "postAllocationTelemetrySum",
        "deleteAllocationTelemetry",
        "deleteMetricTelemetryStream",
    ),
}
APPLICATIONS = ("calls", "jobs")
"""Streams that applications send to."""
APPLIED = frozenset({"delivered", "partly_delivered", "unchanged"})
Key = tuple[str, str]
"""Period, as ``2026-03-01T00``, and team."""


@dataclass(frozen=True)
class Stream:
    """One stream of the schedule."""

    name: str
    kind: str
    granularity: str


STREAMS = (
    Stream("days", "metric", "DAILY"),
    Stream("hours", "metric", "HOURLY"),
    Stream("shares", "allocation", "DAILY"),
)


@dataclass(frozen=True)
class Line:
    """One line of a file that somebody dropped."""

    start: str
    team: str
    value: str

    @property
    def amount(self) -> Decimal | None:
        """Its value, where it is one."""
        try:
            return Decimal(self.value)
        except InvalidOperation:
            return None


@dataclass(frozen=True)
class Drop:
    """One version of a file."""

    source: ObjectVersion
    stream: Stream
    verb: str
    lines: dict[int, Line]
    mended: frozenset[int] = frozenset()
    """Lines that are in the file, where it has mended rows."""

    @property
    def id(self) -> str:
        """Of its delivery."""
        return delivery_id(self.source)

    def read(self) -> dict[int, Line]:
        """Return what is delivered of it: all, or the mended rows alone where the others were added before."""
        if self.mended and self.verb == "sum":
            return {number: self.lines[number] for number in self.mended}
        return self.lines


@pytest.fixture(scope="module", params=["live", "openapi"])
def shared(request: pytest.FixtureRequest) -> Iterator[Telemetry]:
    """One world, and one server, for all schedules of a contract; each has ports of its own, and an empty vendor."""
    with telemetry(request.param) as found:
        yield found


@dataclass(kw_only=True)
class Schedule(RandomLife[Telemetry]):
    """One random life of several drops."""

    streams: tuple[Stream, ...]
    dropped: dict[str, Drop] = field(default_factory=dict)
    versions: dict[str, Drop] = field(default_factory=dict)
    """The newest of each key."""
    failing: bool = False
    """Whether the vendor says what no waiting mends."""
    emitting: int = 0
    """Records that applications will send yet."""
    emitted: list[dict[str, Any]] = field(default_factory=list)
    """Records that they have sent, each once."""
    waiting: list[Sent] = field(default_factory=list)
    """Messages in the application queue."""
    due: bool = False
    """Whether the schedule has fired."""
    granularity: str = "DAILY"
    """Of what applications send."""

    # --- what somebody does -------------------------------------------------------------------------------------------

    def drop(self) -> None:
        """Drop a new file, a newer version of one, mended rows, or the end of a stream."""
        luck = self.random.random()
        if luck < 0.15 and self.mend():
            return
        stream = self.random.choice(self.streams)
        root = f"incoming/telemetry/{stream.kind}/{stream.name}"
        if luck < 0.2:
            source = self.upload(f"{root}/delete/stream.json", json.dumps({"stream": stream.name}).encode())
            self.dropped[delivery_id(source)] = Drop(source, stream, "erase", {})
            return
        verb = self.random.choice(VERBS)
        key = f"{root}/{verb}/{self.random.choice(NAMES)}"
        former = self.versions.get(key)
        lines = list(former.lines.values()) if former is not None and self.random.random() < 0.3 else self.written()
        source = self.upload(key, self.text(stream, verb, lines), self.random.choice((1, 1, 1, 2)))
        drop = Drop(source, stream, verb, dict(enumerate(lines, 2)))
        self.dropped[drop.id] = self.versions[key] = drop

    def written(self) -> list[Line]:
        return [
            Line(
                f"2026-03-{self.random.choice(STARTS)}",
                self.random.choice(TEAMS),
                "oops" if self.random.random() < 0.06 else f"{self.random.randrange(1, 3000) / 100:.2f}",
            )
            for _ in range(self.random.choice((1, 2, 3, 5, 8)))
        ]

    def text(self, stream: Stream, verb: str, lines: list[Line], numbers: list[int] | None = None) -> bytes:
        """Return lines as a file; with *numbers*, as one of mended rows."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        more = ["line", "error", "fix"] if numbers is not None else []
        element = "element_name" if self.w.live and stream.kind == "allocation" else "filter.team"
        named = [] if verb == "delete" else ["value", element]
        writer.writerow(["timestamp", "granularity", *named, *more])
        for place, line in enumerate(lines):
            last = [numbers[place], "", ""] if numbers is not None else []
            words = [] if verb == "delete" else [line.value, line.team]
            writer.writerow([f"{line.start}:00:00Z", stream.granularity, *words, *last])
        return out.getvalue().encode()

    def mend(self) -> bool:
        """Drop rejected rows back; False when there are none."""
        found = [
            (drop, delivery)
            for drop in self.dropped.values()
            if (delivery := self.ledger.delivery(drop.id)) is not None
            and delivery.rejected_rows
            and (delivery.outcome.final or drop.verb != "sum")
            and drop.id not in {known.source.key.rpartition("/")[2][:64] for known in self.dropped.values()}
        ]
        if not found:
            return False
        drop, delivery = self.random.choice(found)
        lines = dict(drop.lines)
        chosen = sorted(self.rejected(delivery))
        for number in chosen:
            lines[number] = replace(lines[number], value="7.25")
        folder = drop.source.key.rpartition("/")[0].removesuffix("/mended")
        body = self.text(drop.stream, drop.verb, [lines[number] for number in chosen], chosen)
        source = self.upload(f"{folder}/mended/{delivery.id}.csv", body, self.random.choice((1, 1, 2)))
        whole = Drop(source, drop.stream, drop.verb, lines, frozenset(chosen))
        self.dropped[whole.id] = whole
        return True

    @override
    def decide(self, held: Delivery) -> None:
        """Decide about a held delivery, and truly: looking at the vendor's own state."""
        doubtful = [unit for unit in held.units if unit.status == "in doubt"]
        if self.random.random() < 0.1:
            self.left.add(held.id)
            return
        decision = "drop"
        for unit in doubtful:
            taken = Counter[str]()
            for known in self.lives():
                if known.target == held.target:
                    taken.update(unit.sha256 for unit in known.units if unit.status == "accepted")
            posts = [p for p in self.w.vendor.state()["posts"] if p["target"] == held.work["stream"]]
            count = len([post for post in posts if post["sha256"] == unit.sha256])
            decision = "mark as arrived" if count > taken[unit.sha256] else "send"
        body = json.dumps({"decision": decision}).encode()
        self.deciding[held.id] = self.upload(f"incoming/release/{held.id}.json", body, self.random.choice((1, 2)))

    def order_faults(self) -> None:
        """Order what goes wrong at the vendor."""
        more = self.random.choice((REFUSALS * 3, ACTING))
        for _ in range(self.random.choice((0, 1, 2, 3, 5, 8))):
            fault = self.random.choice((*FAULTS, *more))
            self.failing |= fault in REFUSALS
            order = {"operation": self.random.choice(OPERATIONS[self.w.contract]), "fault": fault}
            self.w.vendor.faults.add(
                [{**order, "after": self.random.randrange(5), "times": self.random.choice((1, 1, 2, 3))}]
            )

    # --- applications -------------------------------------------------------------------------------------------------

    def emit(self) -> None:
        """Send some records to the application queue, now and then one of them again, and now and then a bad one."""
        for _ in range(self.random.choice((1, 2, 5, 10))):
            bad = self.random.random() < 0.03
            if self.emitted and self.random.random() < 0.3:
                record = self.random.choice(self.emitted)
            else:
                record = self.record()
                self.emitted += [] if bad else [record]
            text = "oops" if bad else json.dumps(record)
            self.sequencer += 1
            now = int(self.w.time[0].timestamp() * 1000)
            self.waiting.append(Sent(f"message-{self.sequencer}", text, now))
        self.emitting -= 1
        self.due = True

    def record(self) -> dict[str, Any]:
        return {
            "stream": self.random.choice(APPLICATIONS),
            "kind": "metric",
            "timestamp": f"2026-03-{self.random.choice(STARTS)}:30:00Z",
            "granularity": self.granularity,
            "value": f"{self.random.randrange(1, 3000) / 100:.2f}",
            "dimensions": {"team": self.random.choice(TEAMS)},
            "id": f"record-{len(self.emitted)}",
        }

    def gather(self) -> None:
        """Take some messages of the application queue; what a crashed function had comes again, in other company."""
        self.random.shuffle(self.waiting)
        cut = self.random.randrange(1, len(self.waiting) + 1)
        try:
            collect(self.waiting[:cut], self.fuse().ports(self.w))
        except SimulatedCrash:
            self.w.time[0] += VISIBILITY
        else:
            del self.waiting[: cut if self.random.random() < 0.9 else cut - 1]  # one of them was not deleted in time
            self.due = True

    def count(self) -> None:
        """Let the schedule fire."""
        self.w.time[0] += timedelta(minutes=5)
        try:
            merge(self.fuse().ports(self.w), DROPS, self.w.tenant(), Bounds(batches=self.random.choice((1, 2, 100))))
        except (SimulatedCrash, LedgerConflict):
            self.w.time[0] += VISIBILITY
        else:
            self.due = self.random.random() < 0.2 or any(self.drops.listing(DROPS, INBOX))

    # --- what the functions do ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do one thing after another, in random order, until nothing is left to do."""
        for _ in range(self.random.randrange(1, 5)):
            self.drop()
        self.order_faults()
        late = self.random.randrange(0, 5)
        for _ in range(3_000):
            if late and self.random.random() < 0.15:
                late -= 1
                self.drop()
            if self.emitting and self.random.random() < 0.3:
                self.emit()
            elif self.waiting and self.random.random() < 0.5:
                self.gather()
            elif self.due and self.random.random() < 0.3:
                self.count()
            elif not (self.something() or late or self.emitting or self.waiting or self.due):
                return
        raise AssertionError("it does not end")

    @override
    def named(self, delivery_id: str, fuse: Fuse) -> None:
        name_rejected(delivery_id, fuse.ports(self.w), self.w.waits)

    # --- looking ------------------------------------------------------------------------------------------------------

    @override
    def lives(self) -> list[Delivery]:
        return [delivery for drop in self.dropped if (delivery := self.ledger.delivery(drop)) is not None]

    def rejected(self, delivery: Delivery) -> set[int]:
        """Return the lines that the file of rejected rows names."""
        if not delivery.rejected_rows:
            return set()
        body = self.drops.latest(delivery.rejected_rows.removeprefix(f"s3://{DROPS}/"))
        return {int(row["line"]) for row in csv.DictReader(io.StringIO(body.decode()))}


def fresh(shared: Telemetry, seed: int) -> Schedule:
    """Begin a schedule with an empty ledger, empty buckets and an empty vendor."""
    random = Random(seed)  # noqa: S311 -- a schedule, no secret
    shared.vendor.reset()
    life = Parts()
    body_bytes = random.choice((230, 330, 420, 5_000_000))
    w = replace(shared, ports=life.ports(shared.metrics), time=life.time, asked=life.asked, body_bytes=body_bytes)
    if w.contract == "live":
        w.vendor.configure({"delete_lag_reads": random.choice((0, 0, 1, 3))})
    streams = tuple(random.sample(STREAMS, random.choice((1, 1, 2))))
    emitting, granularity = random.choice((0, 1, 3, 6)), random.choice(("DAILY", "HOURLY"))
    return Schedule(w=w, random=random, parts=life, streams=streams, emitting=emitting, granularity=granularity)


# --- what must be so at the end ---------------------------------------------------------------------------------------


def checked(s: Schedule, drop: Drop, delivery: Delivery) -> dict[str, Any]:
    """Check one delivery by itself; return its receipt."""
    receipt = s.receipt(delivery)
    outcome, rows = receipt["outcome"], receipt["rows"]
    assert outcome == delivery.outcome.value
    assert rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
    assert rows["filtered"] == sum(receipt["filtered_by"].values())
    told = s.bus.outcomes.get(drop.id, [])
    if outcome == "pending":
        busy = s.ledger.target(delivery.target).content["busy"]
        assert busy in receipt["reason"]
        assert busy in s.left
    else:
        assert set(told) - {"held"} == {outcome} - {"held"}
        assert receipt["reason"] or outcome == "delivered"
    assert outcome != "failed" or s.failing
    if outcome == "held":
        assert f"incoming/release/{drop.id}.json" in receipt["next_command"]
        for unit in receipt["units"]:
            assert unit["status"] != "in doubt" or f"body {unit['seq']} " in receipt["reason"]
    elif outcome in APPLIED:
        assert rows["owed"] == 0
        assert outcome != "delivered" or not rows["rejected"]
    if drop.verb != "erase" and outcome not in {"stale", "failed"}:
        assert rows["in"] == len(drop.read()), receipt["reason"]
    return receipt


def period(stream: Stream, start: str) -> str:
    """Return the beginning of the period that a time is in."""
    return start if stream.granularity == "HOURLY" else f"{start[:10]}T00"


def amounts(s: Schedule, stream: Stream, drops: list[tuple[str, Drop, Delivery]]) -> dict[Key, Decimal]:
    """Return what the drops of a stream amount to, taken in order."""
    held: dict[Key, Decimal] = {}
    for _, drop, delivery in sorted(drops, key=lambda each: each[0]):
        rejected = s.rejected(delivery)
        good = {number: line for number, line in drop.read().items() if number not in rejected}
        sums: dict[Key, Decimal] = {}
        for line in good.values():
            key = period(stream, line.start), line.team
            sums[key] = sums.get(key, Decimal(0)) + (line.amount or Decimal(0))
        if drop.verb == "erase":
            held.clear()
        elif drop.verb == "delete":
            periods = {known for known, _ in sums}
            held = {key: value for key, value in held.items() if key[0] not in periods}
        elif drop.verb == "replace":
            held |= sums
        else:
            for key, value in sums.items():
                held[key] = held.get(key, Decimal(0)) + value
    return held


def as_sent(s: Schedule, stream: Stream, held: dict[Key, Decimal]) -> dict[Key, Decimal]:
    """Return amounts by the periods that the contract knows."""
    if not (s.w.live and stream.kind == "metric"):
        return held
    days: dict[Key, Decimal] = {}
    for (start, team), value in held.items():
        day = f"{start[:10]}T00", team
        days[day] = days.get(day, Decimal(0)) + value
    return days


def at_vendor(s: Schedule, stream: Stream) -> dict[Key, Decimal]:
    """Return what the vendor holds of a stream."""
    holding = s.w.streams().get(stream.name)
    found = {}
    for key, value in (holding["records"] if holding else {}).items():
        timestamp, _, labels, element = json.loads(key)
        found[timestamp[:13], element or labels["team"]] = Decimal(value)
    return found


def counted(s: Schedule) -> None:
    """Check that each stream of applications holds its records, each once, and that the receipts say so."""
    for name in APPLICATIONS:
        stream = Stream(name, "metric", s.granularity)
        records = [record for record in s.emitted if record["stream"] == name]
        held: dict[Key, Decimal] = {}
        for record in records:
            key = period(stream, record["timestamp"][:13]), record["dimensions"]["team"]
            held[key] = held.get(key, Decimal(0)) + Decimal(record["value"])
        receipts = [
            json.loads(versions[-1])
            for key, versions in s.drops.objects.items()
            if key.startswith("receipts/telemetry/") and json.loads(versions[-1])["target"] == f"telemetry/{name}"
        ]
        rows = Counter[str]()
        for receipt in receipts:
            rows.update(receipt["rows"])
            assert receipt["outcome"] in {*APPLIED, *(("failed", "rejected") if s.failing else ())}, receipt["reason"]
        assert rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        assert rows["in"] - rows["filtered"] == len(records)
        if not rows["rejected"] and not rows["owed"]:
            assert at_vendor(s, stream) == as_sent(s, stream, held), name


def judge(s: Schedule) -> None:
    """Check that each stream holds what its drops amount to."""
    counted(s)
    by_stream: dict[Stream, list[tuple[str, Drop, Delivery]]] = {stream: [] for stream in s.streams}
    unsure = set[Stream]()
    for drop in s.dropped.values():
        delivery = s.ledger.delivery(drop.id)
        assert delivery is not None
        receipt = checked(s, drop, delivery)
        if receipt["outcome"] in APPLIED:
            by_stream[drop.stream].append((delivery.order, drop, delivery))
        elif receipt["outcome"] in {"held", "failed"} and receipt["units"]:
            unsure.add(drop.stream)  # some of it is there, and the receipt says which
        if any("which it held" in warning for warning in receipt["warnings"]):
            unsure.add(drop.stream)  # a vendor that refuses what it has taken before; the receipt says which
    for stream, drops in by_stream.items():
        if stream not in unsure:
            assert at_vendor(s, stream) == as_sent(s, stream, amounts(s, stream, drops)), stream.name


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_whatever_happens_a_stream_holds_what_its_drops_amount_to(shared: Telemetry, seed: int) -> None:
    """Row 2, Row 3, Row 4, Row 8, Row 9, Row 10, Row 11, Row 12, Row 14, Row 15: at random; a doubt is said."""
    schedule = fresh(shared, seed)
    schedule.run()
    schedule.w.vendor.faults.clear()
    judge(schedule)

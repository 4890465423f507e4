"""Random schedules of billing drops: versions, mended rows, overlaps, faults, crashes, decisions and late events.

At the end the vendor holds exactly what the receipts say that it took, each row once; what is in doubt is named.
The model that says what it must hold knows the dropped files, the receipts and what a body does, and nothing else.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from random import Random
from typing import Any, cast

import pytest
from finops_relay.delivery.identity import ObjectVersion, delivery_id
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.ports import Clock, Ports, Queue
from finops_relay.errors import LedgerConflict, Wait
from finops_relay.jobs.billing.prepare import name_rejected
from finops_relay.jobs.config import CONFIG_NOTE

from local.standins.cloudzero import CONNECTION
from tests.world.billing import POISON, Asked, Billing, billing
from tests.world.crashes import Fragile, Fuse, SimulatedCrash
from tests.world.memory import Fifo, MemoryBucket, MemoryLedger, Message, Told
from tests.world.relay import DROPS, SPOOL, START

FULL = os.environ.get("RELAY_CHAOS") == "full"
SCHEDULES = 1_000 if FULL else 100
OTHER = "c1000000-0000-4000-8000-000000000002"
MONTHS = ("2026-03", "2026-03", "2026-03", "2026-02", "2026-01")
"""The last one is closed."""
NAMES = ("a.csv", "a.csv", "b.csv", "month/m.csv")
HOURS = ("01T00", "01T01", "01T07", "02T03")
VISIBILITY = timedelta(hours=1.5)
"""After which SQS gives out again what a crashed function had (template: VisibilityTimeout)."""
WRITES = ("createAnyCostBillingDrop",)
READS = ("getAnyCostBillingDrop", "validateAnyCostBillingDrop")
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "90"}},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 500, "body": "oops"},
    {"kind": "status", "status": 502},
    {"kind": "status", "status": 504},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 403},
    {"kind": "status", "status": 404},
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
Row = tuple[str, str, Decimal]
"""Hour, id and cost."""


@pytest.fixture(scope="module", params=["live", "openapi"])
def shared(request: pytest.FixtureRequest) -> Iterator[Billing]:
    """One world, and one server, for all schedules of a contract; each has ports of its own, and an empty vendor."""
    with billing(request.param, connections=(CONNECTION, OTHER)) as found:
        yield found


@dataclass(frozen=True)
class Line:
    """One line of a file that somebody dropped."""

    hour: str
    """As ``2026-03-01T00``."""
    id: str
    cost: str
    service: str = "compute"

    @property
    def amount(self) -> Decimal | None:
        """Its cost, where it is one."""
        try:
            return Decimal(self.cost)
        except InvalidOperation:
            return None

    @property
    def row(self) -> Row:
        """What the vendor is to hold of it."""
        return self.hour, self.id, Decimal(self.cost)


@dataclass(frozen=True)
class Drop:
    """One version of a file."""

    source: ObjectVersion
    connection: str
    month: str
    whole: bool
    lines: dict[int, Line]
    """By number; of mended rows, those of the file that they belong to, mended."""
    mended: frozenset[int] = frozenset()
    """Lines that are in the file, where it has mended rows."""

    @property
    def id(self) -> str:
        """Of its delivery."""
        return delivery_id(self.source)

    @property
    def dry_run(self) -> bool:
        """Whether nothing may come of it."""
        return self.source.key.startswith("plan/")

    def read(self, count: int) -> dict[int, Line]:
        """Return what is delivered of it: all, or the mended rows alone where their file has sent the others."""
        if count == len(self.lines):
            return self.lines
        assert count == len(self.mended)
        return {number: self.lines[number] for number in self.mended}


@dataclass
class Schedule:
    """One random life of several drops."""

    w: Billing
    random: Random
    drops: MemoryBucket
    spool: MemoryBucket
    ledger: MemoryLedger
    queue: Fifo
    bus: Told
    asked: Asked
    connections: tuple[str, ...]
    months: tuple[str, ...]
    dropped: dict[str, Drop] = field(default_factory=dict)
    events: list[ObjectVersion] = field(default_factory=list)
    versions: dict[str, Drop] = field(default_factory=dict)
    """The newest of each key."""
    sequencer: int = 0x1000
    crashes: int = 4
    deciding: dict[str, ObjectVersion] = field(default_factory=dict)
    """The last release file of each held delivery."""
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often was decided what, by delivery."""
    gone: Counter[str] = field(default_factory=Counter)
    """Bodies that had arrived, and were dropped all the same, by hash (`openapi`)."""
    left: set[str] = field(default_factory=set)
    """Held deliveries that nobody will decide about."""

    @property
    def live(self) -> bool:
        """Whether the vendor replaces."""
        return self.w.contract == "live"

    # --- what somebody does -------------------------------------------------------------------------------------------

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

    def drop(self) -> None:
        """Drop a new file, a newer version of one, or mended rows."""
        if self.random.random() < 0.25 and self.mend():
            return
        connection, month = self.random.choice(self.connections), self.random.choice(self.months)
        root = "plan" if self.random.random() < 0.06 else "incoming"
        key = f"{root}/billing/{connection}/{month}/{self.random.choice(NAMES)}"
        former = self.versions.get(key)
        lines = self.changed(former) if former is not None else self.written(month, key.rpartition("/")[2][0])
        numbered = dict(enumerate(lines, 2))
        source = self.upload(key, text(lines), self.random.choice((1, 1, 1, 2)))
        drop = Drop(source, connection, month, "/month/" in key, numbered)
        self.dropped[drop.id] = self.versions[key] = drop

    def written(self, month: str, name: str) -> list[Line]:
        """Return the lines of a new file; the rows of an hour may be more than a body holds."""
        hours = self.random.sample(HOURS, self.random.randrange(1, 4))
        lines = [
            self.line(f"{month}-{hour}", f"{name}{hour}-{number}")
            for hour in hours
            for number in range(self.random.choice((1, 1, 2, 2, 3, 6)))
        ]
        if self.random.random() < 0.2:
            lines.append(self.random.choice(lines))  # one cost twice, all columns alike
        if self.random.random() < 0.3:
            self.random.shuffle(lines)
        return lines

    def line(self, hour: str, name: str) -> Line:
        cost = f"{self.random.randrange(-300, 3000) / 100:.2f}"
        luck = self.random.random()
        if luck < 0.06:
            return Line(hour, name, "oops")
        if luck < 0.08:
            return Line("2025-12-31T00", name, cost)
        if luck < 0.14:
            return Line(hour, name, cost, POISON)
        return Line(hour, name, cost)

    def changed(self, former: Drop) -> list[Line]:
        """Return the lines of a newer version of a file: the same, others, more, or fewer."""
        lines = list(former.lines.values())
        luck = self.random.random()
        if luck < 0.25:
            return lines
        if luck < 0.5:
            place = self.random.randrange(len(lines))
            lines[place] = self.line(lines[place].hour, lines[place].id)
        elif luck < 0.8:
            hour = f"{former.month}-{self.random.choice(HOURS)}"
            lines += [self.line(hour, f"{former.source.key.rpartition('/')[2][0]}{hour}-{len(lines)}-{self.sequencer}")]
        else:
            lost = self.random.choice(lines).hour
            lines = [line for line in lines if line.hour != lost] or lines
        return lines

    def mend(self) -> bool:
        """Drop rejected rows back, mended or not quite; False when there are none."""
        found = [
            (drop, delivery)
            for drop in self.dropped.values()
            if (delivery := self.ledger.delivery(drop.id)) is not None and delivery.rejected_rows and not drop.dry_run
        ]
        if not found:
            return False
        drop, delivery = self.random.choice(found)
        lines = dict(drop.lines)
        numbers = sorted(self.rejected(delivery))
        chosen = self.random.sample(numbers, self.random.randrange(1, len(numbers) + 1))
        for number in chosen:
            if self.random.random() < 0.8:
                hour = lines[number].hour if lines[number].hour.startswith(drop.month) else f"{drop.month}-{HOURS[0]}"
                lines[number] = Line(hour, lines[number].id, "7.25")
        folder = drop.source.key.rpartition("/")[0].removesuffix("/mended")
        body = text([lines[number] for number in chosen], chosen)
        source = self.upload(f"{folder}/mended/{delivery.id}.csv", body, self.random.choice((1, 1, 2)))
        whole = Drop(source, drop.connection, drop.month, drop.whole, lines, frozenset(chosen))
        self.dropped[whole.id] = whole
        return True

    def decide(self, held: Delivery) -> None:
        """Decide about a held delivery, and truly: looking at the vendor's own state."""
        doubtful = [unit for unit in held.units if unit.status == "in doubt"]
        begun = any(unit.status == "accepted" for unit in held.units) or doubtful
        arrived = [unit for unit in doubtful if self.arrived(held, unit.sha256)]
        choices = ["send", "drop"]
        if begun and len(arrived) == len(doubtful):
            choices = ["mark as arrived", "mark as arrived", "drop", *(["send"] if self.live else [])]
        if self.random.random() < 0.15:
            self.left.add(held.id)
            return
        decision = self.random.choice(choices)
        if decision == "drop" and not self.live:
            self.gone.update(unit.sha256 for unit in arrived)
        self.decisions[held.id, decision] += 1
        self.deciding[held.id] = self.upload(
            f"incoming/release/{held.id}.json", json.dumps({"decision": decision}).encode(), self.random.choice((1, 2))
        )

    def arrived(self, delivery: Delivery, hashed: str) -> bool:
        """Return whether the vendor has taken a body that is in doubt."""
        posts = [post for post in self.w.vendor.state()["posts"] if post["target"] == delivery.work["connection"]]
        if not self.live:
            taken = Counter[str]()
            for known in self.lives():
                if known.work.get("connection") == delivery.work["connection"]:
                    taken.update(unit.sha256 for unit in known.units if unit.status == "accepted")
            return sum(post["sha256"] == hashed for post in posts) > taken[hashed] + self.gone[hashed]
        place = [unit.sha256 for unit in delivery.units].index(hashed)
        rows, mode = self.posted(delivery)[hashed]
        if mode != "sum":  # perhaps it was taken when it was still a part of a larger one
            made = [known for known, (whole, _) in self.posted(delivery).items() if rows <= whole]
            return any(post["sha256"] in made for post in posts)
        head = delivery.units[place - 1].sha256  # the part of the hour that goes before this one
        last = max(post["seq"] for post in posts if post["sha256"] == head)
        return any(post["sha256"] == hashed and post["seq"] > last for post in posts)

    # --- what the functions do ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do one thing after another, in random order, until nothing is left to do."""
        for _ in range(self.random.randrange(1, 5)):
            self.drop()
        faults = (*FAULTS, *self.random.choice((REFUSALS * 3, ACTING)))
        operations = (*WRITES, *WRITES, *READS) if self.live else WRITES
        for _ in range(self.random.choice((0, 1, 2, 3, 5, 8))):
            order = {"operation": self.random.choice(operations), "fault": self.random.choice(faults)}
            self.w.vendor.faults.add(
                [{**order, "after": self.random.randrange(5), "times": self.random.choice((1, 1, 2, 3))}]
            )
        late = self.random.randrange(0, 5)
        for _ in range(3_000):
            if late and self.random.random() < 0.15:
                late -= 1
                self.drop()
            now = self.w.time[0]
            held = self.held()
            heads = [head for head in self.queue.heads() if not self.behind_left(head)]
            ready = [head for head in heads if head.visible <= now]
            if held and (self.random.random() < 0.1 or not (ready or self.events or self.asked.deliveries)):
                self.decide(self.random.choice(held))
            elif self.events and (not ready or self.random.random() < 0.5):
                self.event()
            elif self.asked.deliveries and self.random.random() < 0.5:
                self.name()
            elif ready:
                self.deliver(self.random.choice(ready))
            elif heads:
                self.w.time[0] = min(head.visible for head in heads)
            elif not late and not self.asked.deliveries:
                return
        raise AssertionError("it does not end")

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
            name_rejected(asked, fuse.ports(self.w), self.w.waits)
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

    # --- looking ------------------------------------------------------------------------------------------------------

    def lives(self) -> list[Delivery]:
        """Return the deliveries of the dropped costs, as far as they have begun."""
        return [delivery for drop in self.dropped if (delivery := self.ledger.delivery(drop)) is not None]

    def receipt(self, delivery: Delivery) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.drops.latest(delivery.receipt_key))
        return found

    def rejected(self, delivery: Delivery) -> set[int]:
        """Return the lines that the file of rejected rows names."""
        if not delivery.rejected_rows:
            return set()
        body = self.drops.latest(delivery.rejected_rows.removeprefix(f"s3://{DROPS}/"))
        return {int(row["line"]) for row in csv.DictReader(io.StringIO(body.decode()))}

    def posted(self, delivery: Delivery) -> dict[str, tuple[Counter[Row], str]]:
        """Return all bodies that a delivery ever had, and what each does, by hash."""
        found = {}
        for key, versions in self.spool.objects.items():
            if key.startswith(f"billing/{delivery.id}/") and key.endswith(".json"):
                for body in versions:
                    rows = _body(body)
                    found[sha256(body).hexdigest()] = Counter(row for row, _ in rows), rows[0][1]
        return found

    def rows(self, unit: dict[str, Any]) -> Counter[Row]:
        """Return the rows of a body."""
        return Counter(row for row, _ in _body(self.spool.latest(unit["spool_key"])))


def text(lines: list[Line], numbers: list[int] | None = None) -> bytes:
    """Return lines as a CBF file; with *numbers*, as one of mended rows."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    more = ["line", "error", "fix"] if numbers is not None else []
    writer.writerow(["time/usage_start", "cost/cost", "resource/service", "lineitem/id", *more])
    for place, line in enumerate(lines):
        last = [numbers[place], "", ""] if numbers is not None else []
        writer.writerow([f"{line.hour}:00:00Z", line.cost, line.service, line.id, *last])
    return out.getvalue().encode()


def _body(body: bytes) -> list[tuple[Row, str]]:
    """Return the rows of a body, and what it does."""
    found = json.loads(body, parse_float=str, parse_int=str)
    if "data" in found:
        return [(row_of(row), found["operation"]) for row in found["data"]]
    return [(row_of(row), "sum") for row in found["billing_drops"][0]["line_items"]]


def row_of(held: dict[str, Any]) -> Row:
    """Return a row as the vendor holds it, in either contract."""
    if "timestamp" in held:
        return held["timestamp"][:13], held["metadata"]["lineitem/id"], Decimal(held["cost"])
    return held["time/usage_start"][:13], held["lineitem/id"], Decimal(held["cost/cost"])


def fresh(shared: Billing, seed: int) -> Schedule:
    """Begin a schedule with an empty ledger, empty buckets and an empty vendor."""
    random = Random(seed)  # noqa: S311 -- a schedule, no secret
    shared.vendor.reset()
    time = [START]

    def now() -> Any:  # noqa: ANN401 -- a time
        time[0] += timedelta(milliseconds=1)
        return time[0]

    ledger, drops, spool, bus = MemoryLedger(), MemoryBucket(DROPS), MemoryBucket(SPOOL), Told()
    queue = Fifo(lambda: time[0])
    ports = Ports(ledger, drops, spool, queue, bus, shared.metrics, Clock(now, lambda: 900.0))
    asked = Asked()
    body_bytes = random.choice((330, 420, 420, 700, 5_000_000))
    w = replace(shared, ports=ports, time=time, asked=asked, body_bytes=body_bytes)
    if w.contract == "live":
        w.vendor.configure({"read_lag_reads": random.choice((0, 0, 0, 1, 3))})
    connections = random.choice(((CONNECTION,), (CONNECTION,), (CONNECTION, OTHER)))
    if random.random() < 0.3:
        rules = json.dumps({"billing": {"connections": {CONNECTION: {"overlap": "replace"}}}})
        ledger.save_note(CONFIG_NOTE, {"version_id": "1", "text": rules})
    months = tuple(random.choice(MONTHS) for _ in range(random.choice((1, 1, 2))))
    return Schedule(w, random, drops, spool, ledger, queue, bus, asked, connections, months)


# --- what must be so at the end ---------------------------------------------------------------------------------------


def checked(schedule: Schedule, drop: Drop, delivery: Delivery) -> dict[str, Any]:
    """Check one delivery by itself: how it stands, and what became of each of its rows; return its receipt."""
    s, receipt = schedule, schedule.receipt(delivery)
    outcome, rows = receipt["outcome"], receipt["rows"]
    assert outcome == delivery.outcome.value
    assert rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
    told = s.bus.outcomes.get(drop.id, [])
    if outcome == "pending":
        behind = re.match(r"waits: behind delivery (\w+) of", receipt["reason"])
        assert behind is not None, receipt["reason"]
        other = s.ledger.delivery(behind[1])
        assert other is not None
        assert (other.outcome.value, other.target) == ("held", delivery.target)
    else:
        assert set(told) - {"held"} == {outcome} - {"held"}
        assert told[-1:] == [outcome]
        assert receipt["reason"] or outcome == "delivered"
    if outcome == "held":
        assert f"incoming/release/{drop.id}.json" in receipt["next_command"]
        kept = {unit["spool_key"] for unit in receipt["units"] if unit["status"] in {"owed", "in doubt"}}
        assert not kept & s.spool.released
        for unit in receipt["units"]:
            assert unit["status"] != "in doubt" or f"body {unit['seq']} " in receipt["reason"]
    accounted(s, drop, delivery, receipt)
    return receipt


def accounted(s: Schedule, drop: Drop, delivery: Delivery, receipt: dict[str, Any]) -> None:
    """Check that each row of the file is in one body, or named as rejected, and the money likewise."""
    rows, units = receipt["rows"], receipt["units"]
    if not rows["in"]:
        assert not units
        return
    lines = drop.read(rows["in"])
    readable = [line.amount for line in lines.values() if line.amount is not None]
    assert Decimal(receipt["money"]["in"] or 0) == sum(readable)
    named = s.rejected(delivery)
    unfiled = {int(line[1]) for told in receipt["warnings"] if (line := re.match(r"line (\d+): CloudZero", told))}
    assert not named & unfiled
    named |= unfiled
    if not units:
        assert (rows["rejected"], set(lines)) == (rows["in"], named)
        return
    by_status = Counter[str]()
    inside = Counter[Row]()
    for unit in units:
        found = s.rows(unit)
        assert unit["rows"] == found.total()
        by_status[unit["status"]] += unit["rows"]
        if unit["status"] != "refused":
            inside += found
    good = Counter(line.row for number, line in lines.items() if number not in named)
    assert inside <= good
    there = rows["accepted"] - by_status["accepted"] - by_status["unchanged"]
    decided = bool(s.decisions[drop.id, "drop"]) and receipt["outcome"] in {"partly_delivered", "rejected"}
    dropped = by_status["dropped"] + by_status["in doubt"] if decided else 0
    unnamed = rows["rejected"] - len(named) - dropped
    assert (good - inside).total() == there + unnamed
    assert there == 0 or not s.live
    assert unnamed == 0 or receipt["outcome"] in {"held", "pending"}
    assert rows["owed"] == by_status["owed"] + (0 if dropped else by_status["in doubt"])
    if drop.dry_run:
        assert receipt["money"]["sent"] is None
        return
    sent = sum((cost for unit in units if unit["status"] == "accepted" for (_, _, cost), n in s.rows(unit).items() for _ in range(n)), Decimal(0))
    if receipt["outcome"] != "pending":
        assert Decimal(receipt["money"]["sent"] or 0) == sent


def whole(receipt: dict[str, Any]) -> bool:
    """Return whether all that could be sent was sent."""
    done = {"accepted", "unchanged", "refused"}
    return receipt["outcome"] in {"delivered", "partly_delivered"} and {u["status"] for u in receipt["units"]} <= done


def replayed(s: Schedule, lives: list[tuple[Drop, Delivery, dict[str, Any]]]) -> dict[str, Counter[Row]]:
    """Return what a vendor that replaces must hold of one month, by hour: what each delivery says, in their order."""
    held: dict[str, Counter[Row]] = {}
    for drop, delivery, receipt in lives:
        rows = {number: line for number, line in (drop.read(receipt["rows"]["in"]) if receipt["units"] else {}).items()}
        good = [line.row for number, line in rows.items() if number not in s.rejected(delivery)]
        for unit in receipt["units"]:
            doubtful = unit["status"] == "in doubt"
            if unit["status"] == "accepted" or (doubtful and s.arrived(delivery, unit["sha256"])):
                body = _body(s.spool.latest(unit["spool_key"]))
                apply(held, body)
        if receipt["outcome"] == "unchanged" or whole(receipt):
            for hour in {hour for hour, _, _ in good}:
                assert held.get(hour) == Counter(row for row in good if row[0] == hour), (drop.source.key, hour)
            assert not drop.whole or set(held) == {hour for hour, _, _ in good}
    return held


def apply(held: dict[str, Counter[Row]], body: list[tuple[Row, str]]) -> None:
    """Do to *held* what the contract page says that a body does."""
    operation = body[0][1]
    if operation == "replace_drop":
        held.clear()
    if operation == "replace_hourly":
        for (hour, _, _), _ in body:
            held.pop(hour, None)
    for row, _ in body:
        held.setdefault(row[0], Counter())[row] += 1


def judge(s: Schedule) -> None:
    """Check that the vendor holds what the receipts say, each row once."""
    state = s.w.state()
    lives: dict[tuple[str, str], list[tuple[Drop, Delivery, dict[str, Any]]]] = {}
    taken, doubtful, sums = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for drop in s.dropped.values():
        delivery = s.ledger.delivery(drop.id)
        assert delivery is not None
        receipt = checked(s, drop, delivery)
        if drop.dry_run:
            continue
        lives.setdefault((drop.connection, drop.month), []).append((drop, delivery, receipt))
        for unit in receipt["units"]:
            body = drop.connection, unit["sha256"]
            taken[body] += unit["status"] == "accepted"
            doubtful[body] += unit["status"] == "in doubt"
            sums[body] += 1 + s.decisions[drop.id, "send"]
        if s.live and whole(receipt) and not s.decisions[drop.id, "mark as arrived"]:
            sent = [unit for unit in receipt["units"] if unit["status"] == "accepted"]
            assert receipt["money"]["difference"] == ("0.00" if sent else None) or Decimal(receipt["money"]["difference"]) == 0
    posts = Counter((post["target"], post["sha256"]) for post in state["posts"])
    adding = Counter((post["target"], post["sha256"]) for post in state["posts"] if post["mode"] in {"sum", "append"})
    for body, count in adding.items():
        assert count <= sums[body]
    for place, of_month in lives.items():
        connection, month = place
        held = Counter(map(row_of, state["drops"].get(connection, {}).get(month, {}).get("rows", [])))
        if s.live:
            of_month.sort(key=lambda life: life[2]["times"].get("ended", "9"))
            assert held == sum(replayed(s, of_month).values(), Counter[Row]())
            continue
        expected = Counter[Row]()
        for _, _, receipt in of_month:
            for unit in receipt["units"]:
                if unit["status"] == "accepted":
                    expected += s.rows(unit)
        for body, count in posts.items():
            if body[0] == connection:
                assert taken[body] <= count <= taken[body] + doubtful[body]
        assert expected <= held
        surplus = held - expected
        for _, _, receipt in of_month:
            for unit in receipt["units"]:
                if unit["status"] == "in doubt" and s.rows(unit) <= surplus and posts[connection, unit["sha256"]] > taken[connection, unit["sha256"]]:
                    surplus -= s.rows(unit)
        assert not surplus
        for drop, delivery, receipt in of_month:
            if receipt["outcome"] == "unchanged" or whole(receipt):
                rows = [line.row for n, line in drop.read(receipt["rows"]["in"]).items() if n not in s.rejected(delivery)]
                assert Counter(rows) <= held, drop.source.key
    assert sum(posts.values()) == len(state["posts"])


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_whatever_happens_no_money_is_lost_or_doubled(shared: Billing, seed: int) -> None:
    """Row 2, Row 3, Row 4, Row 8, Row 9, Row 10, Row 11, Row 12, Row 14, Row 15: at random; what is in doubt is held."""
    schedule = fresh(shared, seed)
    schedule.run()
    schedule.w.vendor.faults.clear()
    judge(schedule)

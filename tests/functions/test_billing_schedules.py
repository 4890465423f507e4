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
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from random import Random
from typing import Any

import pytest
from finops_relay.delivery.identity import ObjectVersion, delivery_id
from finops_relay.delivery.ledger import Delivery
from finops_relay.jobs.billing.prepare import name_rejected
from finops_relay.jobs.config import CONFIG_NOTE
from typing_extensions import override

from local.standins.cloudzero import CONNECTION
from tests.world.billing import POISON, Billing, billing
from tests.world.crashes import Fuse
from tests.world.relay import DROPS
from tests.world.schedules import Parts, RandomLife

FULL = os.environ.get("RELAY_CHAOS") == "full"
SCHEDULES = 1_000 if FULL else 100
OTHER = "c1000000-0000-4000-8000-000000000002"
MONTHS = ("2026-03", "2026-03", "2026-03", "2026-02", "2026-01")
"""The last one is closed."""
NAMES = ("a.csv", "a.csv", "b.csv", "month/m.csv")
ELSEWHERE = "2025-12-31T00"
"""Of no month here."""
HOURS = ("01T00", "01T01", "01T07", "02T03")
WRITES = ("createAnyCostBillingDrop",)
READS = ("getAnyCostBillingDrop", "validateAnyCostBillingDrop")
NOT_FOUND = {"kind": "status", "status": 404}
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "90"}},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 500, "body": "oops"},
    {"kind": "status", "status": 502},
    {"kind": "status", "status": 504},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 403},
    NOT_FOUND,
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
    def bad(self) -> bool:
        """Whether no vendor is asked to take it."""
        return self.amount is None or self.hour == ELSEWHERE

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


@dataclass(kw_only=True)
class Schedule(RandomLife[Billing]):
    """One random life of several drops."""

    connections: tuple[str, ...]
    months: tuple[str, ...]
    dropped: dict[str, Drop] = field(default_factory=dict)
    versions: dict[str, Drop] = field(default_factory=dict)
    """The newest of each key."""
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often was decided what, by delivery."""
    gone: Counter[str] = field(default_factory=Counter)
    """Bodies that had arrived, and were dropped all the same, by hash (`openapi`)."""
    refusing: bool = False
    """Whether the vendor refuses bodies in which nothing is wrong."""
    failing: bool = False
    """Whether it says what no waiting mends."""

    @property
    def live(self) -> bool:
        """Whether the vendor replaces."""
        return self.w.contract == "live"

    # --- what somebody does -------------------------------------------------------------------------------------------

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
            return Line(ELSEWHERE, name, cost)
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

    @override
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
        posts: list[dict[str, Any]] = [
            post for post in self.w.vendor.state()["posts"] if post["target"] == delivery.work["connection"]
        ]
        if not self.live:
            taken = Counter[str]()
            for known in self.lives():
                if known.work.get("connection") == delivery.work["connection"]:
                    taken.update(unit.sha256 for unit in known.units if unit.status == "accepted")
            return len([post for post in posts if post["sha256"] == hashed]) > taken[hashed] + self.gone[hashed]
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
        self.order_faults()
        late = self.random.randrange(0, 5)
        for _ in range(3_000):
            if late and self.random.random() < 0.15:
                late -= 1
                self.drop()
            if not self.something() and not late:
                return
        raise AssertionError("it does not end")

    def order_faults(self) -> None:
        """Order what goes wrong at the vendor."""
        faults = (*FAULTS, *self.random.choice((REFUSALS * 3, ACTING)))
        operations = (*WRITES, *WRITES, *READS) if self.live else WRITES
        for _ in range(self.random.choice((0, 1, 2, 3, 5, 8))):
            fault = self.random.choice(faults)
            self.refusing |= fault in REFUSALS
            self.failing |= fault in (*REFUSALS, NOT_FOUND)
            order = {"operation": self.random.choice(operations), "fault": fault}
            self.w.vendor.faults.add(
                [{**order, "after": self.random.randrange(5), "times": self.random.choice((1, 1, 2, 3))}]
            )

    @override
    def named(self, delivery_id: str, fuse: Fuse) -> None:
        name_rejected(delivery_id, fuse.ports(self.w), self.w.waits)

    # --- looking ------------------------------------------------------------------------------------------------------

    @override
    def lives(self) -> list[Delivery]:
        """Return the deliveries of the dropped costs, as far as they have begun."""
        return [delivery for drop in self.dropped if (delivery := self.ledger.delivery(drop)) is not None]

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
    life = Parts()
    body_bytes = random.choice((330, 420, 420, 700, 5_000_000))
    w = replace(shared, ports=life.ports(shared.metrics), time=life.time, asked=life.asked, body_bytes=body_bytes)
    if w.contract == "live":
        w.vendor.configure({"read_lag_reads": random.choice((0, 0, 0, 1, 3))})
    connections = random.choice(((CONNECTION,), (CONNECTION,), (CONNECTION, OTHER)))
    if random.random() < 0.3:
        rules = json.dumps({"billing": {"connections": {CONNECTION: {"overlap": "replace"}}}})
        life.ledger.save_note(CONFIG_NOTE, {"version_id": "1", "text": rules})
    months = tuple(random.choice(MONTHS) for _ in range(random.choice((1, 1, 2))))
    return Schedule(w=w, random=random, parts=life, connections=connections, months=months)


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
    assert outcome != "failed" or s.failing
    if outcome == "superseded" and not drop.mended:  # mended rows are as old as what they mend
        newer = [other for other in s.dropped.values() if other.source.sequencer > drop.source.sequencer]
        assert any((other.connection, other.month) == (drop.connection, drop.month) for other in newer)
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
    assert all(s.refusing or lines[number].bad or lines[number].service == POISON for number in named)
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
    if receipt["outcome"] != "pending":
        sent = sum((s.rows(unit) for unit in units if unit["status"] == "accepted"), Counter[Row]())
        assert Decimal(receipt["money"]["sent"] or 0) == sum((cost for _, _, cost in sent.elements()), Decimal(0))


@dataclass(frozen=True)
class End:
    """How one delivery ended, or stands."""

    drop: Drop
    delivery: Delivery
    receipt: dict[str, Any]
    good: Counter[Row]
    """Rows that no receipt calls rejected."""

    @property
    def whole(self) -> bool:
        """Whether all that could be sent was sent."""
        done = {"accepted", "unchanged", "refused"}
        sent = self.receipt["outcome"] in {"delivered", "partly_delivered"}
        return sent and {unit["status"] for unit in self.receipt["units"]} <= done

    @property
    def there(self) -> bool:
        """Whether the vendor must hold all of its rows when it ends."""
        return self.whole or self.receipt["outcome"] == "unchanged"

    def bodies(self, status: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the bodies that ended so, each with its connection and hash as `posted` has it."""
        units = [unit for unit in self.receipt["units"] if unit["status"] == status]
        return [(f"{self.drop.connection} {unit['sha256']}", unit) for unit in units]


def ended(s: Schedule) -> list[End]:
    """Check each delivery by itself; return those that are meant for the vendor."""
    ends = []
    for drop in s.dropped.values():
        delivery = s.ledger.delivery(drop.id)
        assert delivery is not None
        receipt = checked(s, drop, delivery)
        rejected = s.rejected(delivery)
        lines = drop.read(receipt["rows"]["in"]) if receipt["units"] else {}
        good = Counter(line.row for number, line in lines.items() if number not in rejected)
        if not drop.dry_run:
            ends.append(End(drop, delivery, receipt, good))
    return ends


def judge(s: Schedule) -> None:
    """Check that the vendor holds what the receipts say, each row once."""
    state, ends = s.w.state(), ended(s)
    posts = state["posts"]
    adding = Counter(f"{post['target']} {post['sha256']}" for post in posts if post["mode"] in {"sum", "append"})
    for body, count in added(s, ends).items():
        assert adding[body] <= count
    for connection, month in {(end.drop.connection, end.drop.month) for end in ends}:
        lived = [end for end in ends if (end.drop.connection, end.drop.month) == (connection, month)]
        held = Counter(map(row_of, state["drops"].get(connection, {}).get(month, {}).get("rows", [])))
        if s.live:
            lived.sort(key=lambda end: end.receipt["times"].get("ended", "9"))
            assert held == sum(replayed(s, lived).values(), Counter[Row]())
        else:
            assert held == appended(s, lived, adding)
            assert all(end.good <= held for end in lived if end.there)
    assert set(adding) <= set(added(s, ends))


def added(s: Schedule, ends: list[End]) -> Counter[str]:
    """Return how often each body may have been added: once, and again only where a person let all be replaced anew."""
    found = Counter[str]()
    for end in ends:
        for status in {unit["status"] for unit in end.receipt["units"]}:
            for body, _ in end.bodies(status):
                if s.live:
                    found[body] += 1 + s.decisions[end.drop.id, "send"]
                elif status in {"accepted", "in doubt"}:
                    found[body] += 1
    return found


def appended(s: Schedule, ends: list[End], adding: Counter[str]) -> Counter[Row]:
    """Return what a vendor that only adds must hold of one month: each accepted body, and what has come of doubts."""
    held, taken = Counter[Row](), Counter[str]()
    for end in ends:
        for body, unit in end.bodies("accepted"):
            held += s.rows(unit)
            taken[body] += 1
            assert taken[body] <= adding[body]
    for end in ends:
        for body, unit in end.bodies("in doubt"):
            if adding[body] > taken[body]:
                held += s.rows(unit)
                taken[body] += 1
    return held


def replayed(s: Schedule, ends: list[End]) -> dict[str, Counter[Row]]:
    """Return what a vendor that replaces must hold of one month, by hour: what each delivery says, in their order."""
    held: dict[str, Counter[Row]] = {}
    for end in ends:
        for unit in end.receipt["units"]:
            doubtful = unit["status"] == "in doubt"
            if unit["status"] == "accepted" or (doubtful and s.arrived(end.delivery, unit["sha256"])):
                apply(held, _body(s.spool.latest(unit["spool_key"])))
        if end.there:
            hours = {hour for hour, _, _ in end.good}
            assert sum((held.get(hour, Counter()) for hour in hours), Counter[Row]()) == end.good, end.drop.source.key
            assert not end.drop.whole or set(held) == hours
        if end.whole and end.bodies("accepted") and not s.decisions[end.drop.id, "mark as arrived"]:
            assert Decimal(end.receipt["money"]["difference"]) == 0
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


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_whatever_happens_no_money_is_lost_or_doubled(shared: Billing, seed: int) -> None:
    """Row 2, Row 3, Row 4, Row 8, Row 9, Row 10, Row 11, Row 12, Row 14, Row 15: at random; a doubt is said."""
    schedule = fresh(shared, seed)
    schedule.run()
    schedule.w.vendor.faults.clear()
    judge(schedule)

"""Crashes and overlaps of syncs: a process dies at one call, at every one there is; another runs in between."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from finops_relay.delivery.identity import ObjectVersion, delivery_id
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.receipt import Outcome
from finops_relay.errors import LedgerConflict, Wait
from finops_relay.jobs.release import release

from tests.world.crashes import Fuse, SimulatedCrash
from tests.world.relay import DROPS
from tests.world.schedules import VISIBILITY, Parts
from tests.world.syncs import KEY, OTHER, POLICY, SLUG, TABLE, Syncs, applications, relay_yaml, syncs

FULL = os.environ.get("RELAY_CHAOS") == "full"
START = ("a", "b", "c", "d", "e", "f")
LIST = f"incoming/tagging-policies/{POLICY}/{KEY}.txt"
SECOND = f"incoming/tagging-policies/{POLICY}/env.json"
AGAIN = f"incoming/tagging-policies/{POLICY}/{KEY}.json"
RUN = f"incoming/tagging-policies/{POLICY}/{KEY}.sync"
PROPERTIES = "incoming/custom-properties/p.csv"


@dataclass
class Meeting(Fuse):
    """A fuse that runs somebody else instead of blowing."""

    then: Callable[[], None] = lambda: None

    def tick(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) == self.at:
            self.then()


@pytest.fixture(scope="module")
def shared() -> Iterator[Syncs]:
    """One world for all; each life has a ledger and buckets of its own, and a vendor at its start."""
    with syncs(START) as found:
        yield found


@dataclass
class Life:
    """The life of some drops, on ports in memory."""

    w: Syncs
    fuse: Fuse = field(default_factory=Fuse)
    parts: Parts = field(default_factory=Parts)
    crashes: int = 0

    def __post_init__(self) -> None:
        self.w.vendor.reset()
        parts = self.parts
        self.w = replace(self.w, ports=parts.ports(self.w.metrics), time=parts.time, asked=parts.asked)

    def drop(self, key: str, body: bytes) -> ObjectVersion:
        """Drop a file; nobody has heard of it yet."""
        self.w.sequencer += 0x10
        self.w.time[0] += timedelta(milliseconds=5)
        self.parts.drops.put(key, body, "text/plain")
        return replace(self.parts.drops.pin(DROPS, key), sequencer=f"{self.w.sequencer:018X}", at=self.w.time[0])

    def configure(self) -> None:
        """Let the tag follow ServiceNow."""
        self.w.ports.ledger.save_note("config#active", {"version_id": "v", "text": relay_yaml(self.w)})

    def prepare(self, source: ObjectVersion) -> Delivery:
        """Prepare what was dropped, however often the process dies of it."""
        while True:
            try:
                if "/release/" in source.key:
                    found = release(source, self.fuse.ports(self.w), self.w.waits, self.parts.queue)
                else:
                    found = self.w.prepare(source, self.fuse.ports(self.w))
            except SimulatedCrash:
                self.crash()
            else:
                assert found is not None
                return found

    def settle(self) -> None:
        """Take messages until nothing is left to do now."""
        for _ in range(400):
            heads = self.parts.queue.heads()
            if not heads:
                return
            ready = [head for head in heads if head.visible <= self.w.time[0]]
            if not ready:
                self.w.time[0] = min(head.visible for head in heads)
                continue
            message = ready[0]
            try:
                self.w.step(message.delivery, self.fuse.ports(self.w), self.fuse.client(self.w))
            except Wait as wait:
                message.visible = self.w.time[0] + timedelta(seconds=wait.seconds)
            except LedgerConflict:
                message.visible = self.w.time[0] + timedelta(seconds=30)
            except SimulatedCrash:
                self.crash()
                message.visible = self.w.time[0] + VISIBILITY
            else:
                self.parts.queue.done(message)
        raise AssertionError("it does not end")

    def crash(self) -> None:
        self.crashes += 1
        self.fuse.mend()

    def receipt(self, source: ObjectVersion) -> dict[str, Any]:
        """Return the receipt of what was dropped, which agrees with the ledger and keeps the law."""
        delivery = self.parts.ledger.delivery(delivery_id(source))
        assert delivery is not None
        found: dict[str, Any] = json.loads(self.parts.drops.latest(delivery.receipt_key))
        assert found["outcome"] == delivery.outcome.value
        rows = found["rows"]
        assert rows["in"] == rows["accepted"] + rows["filtered"] + rows["rejected"] + rows["owed"]
        return found

    def remembered(self, owned: str) -> dict[str, Any]:
        """Return what is remembered as last applied."""
        content = self.parts.ledger.target(owned).content
        assert content["pending"] == ""
        found: dict[str, Any] = json.loads(self.parts.drops.latest(content["state"]))
        kept = {key for key in self.parts.drops.objects if key.startswith("state/") and "/plans/" not in key}
        alive = {key for key in kept if key not in self.parts.drops.removed}
        names = [name.removeprefix("target#") for name in self.parts.ledger.items if name.startswith("target#")]
        contents = [self.parts.ledger.target(name).content for name in names]
        pointed = {key for content in contents for key in (content.get("state"), *content.get("former", ()))}
        assert alive <= pointed, "a state that nothing points to stays for ever"
        return found


def earlier(life: Life, key: str, body: bytes) -> None:
    """Deliver something before, which nothing disturbs: there is something to be remembered, and to be let go."""
    fuse, life.fuse = life.fuse, Fuse()
    source = life.drop(key, body)
    life.prepare(source)
    life.settle()
    assert life.receipt(source)["outcome"] == "delivered"
    life.fuse = fuse


def lines(*values: str) -> bytes:
    return "\n".join([*values, ""]).encode()


def of_file(life: Life) -> ObjectVersion:
    earlier(life, LIST, lines(*START, "e1"))
    source = life.drop(LIST, lines(*START, "g"))
    life.prepare(source)
    life.settle()
    return source


def of_source(life: Life) -> ObjectVersion:
    life.configure()
    earlier(life, LIST, lines(*START, "e1"))
    life.w.servicenow.set_table(TABLE, applications(*START, "g")[TABLE])
    source = life.drop(RUN, b"")
    life.prepare(source)
    life.settle()
    return source


def of_release(life: Life) -> ObjectVersion:
    earlier(life, LIST, lines(*START, "e1"))
    source = life.drop(LIST, lines("a", "g"))
    held = life.prepare(source)
    life.settle()
    life.prepare(life.drop(f"incoming/release/{held.id}.json", b'{"decision": "send"}'))
    life.settle()
    return source


def of_properties(life: Life) -> ObjectVersion:
    earlier(life, PROPERTIES, b"service,team\na,x\nc,z\nd,z\n")
    source = life.drop(PROPERTIES, b"service,team\na,x\nc,y\nd,z\ne,z\n")
    life.prepare(source)
    life.settle()
    return source


STORIES = {"file": of_file, "source": of_source, "release": of_release, "properties": of_properties}


def calls_of(shared: Syncs, story: str) -> int:
    """Return how many calls a story makes that nothing disturbs."""
    life = Life(shared)
    STORIES[story](life)
    return len(life.fuse.calls)


@pytest.mark.parametrize("story", STORIES)
def test_a_sync_whose_process_dies_at_any_call_is_finished_as_if_it_had_not(shared: Syncs, story: str) -> None:
    """Row 2: the same end, what is wanted at the vendor, one thing written; no state is left that nobody needs."""
    count = calls_of(shared, story)
    assert count > 20
    for at in range(1, count + 1):
        life = Life(shared, Fuse(at))
        source = STORIES[story](life)
        assert life.crashes == 1, at
        receipt = life.receipt(source)
        assert receipt["outcome"] == "delivered", (at, life.fuse.calls[at - 1], receipt["reason"])
        assert receipt["rows"]["owed"] == 0
        state = life.w.state()
        if story == "properties":
            assert state["custom_properties"][SLUG]["text"] == "service,team\na,x\nc,y\nd,z\ne,z\n"
            assert len(state["custom_properties"][SLUG]["uploads"]) in {2, 3}
            found = life.remembered(f"custom-properties/{SLUG}/whole")
            assert found["items"] == {key: json.dumps({"team": team}) for key, team in zip("acde", "xyzz", strict=True)}
        else:
            wanted = ["a", "g"] if story == "release" else sorted((*START, "g"))
            assert sorted(life.w.values()) == wanted
            assert life.w.values("env") == OTHER["allowedValues"]
            assert life.w.calls().count("updateTaggingPolicy") == 2, at
            found = life.remembered(f"tagging-policy/{SLUG}/{POLICY}/tag/{KEY}")
            assert sorted(found["items"]) == wanted


def test_a_newer_list_after_a_write_that_nobody_heard_of_is_no_drift(shared: Syncs) -> None:
    """Row 10: what stands at the vendor is our own writing, and nobody is asked about it."""
    life = Life(shared)
    first = life.drop(LIST, lines(*START, "first"))
    prepared = life.prepare(first)
    shared.vendor.faults.add([{"operation": "updateTaggingPolicy", "fault": {"kind": "lost_answer"}, "times": 2}])
    shared.vendor.faults.add(
        [{"operation": "getTaggingPolicy", "fault": {"kind": "status", "status": 500}, "after": 1, "times": 4}]
    )
    with pytest.raises(Wait):
        life.w.step(prepared.id)
    assert "first" in life.w.values()
    shared.vendor.faults.clear()
    second = life.drop(LIST, lines(*START, "second"))
    life.prepare(second)
    life.settle()
    assert life.receipt(second)["outcome"] == "delivered", life.receipt(second)["reason"]
    assert life.receipt(first)["outcome"] == "superseded"
    assert sorted(life.w.values()) == sorted((*START, "second"))
    life.remembered(f"tagging-policy/{SLUG}/{POLICY}/tag/{KEY}")


@dataclass
class Encounter:
    """Two deliveries to one policy: the second comes in the middle of the first."""

    life: Life
    other: str
    meeting: Meeting
    waiting: list[str] = field(default_factory=list)

    def take(self) -> list[ObjectVersion]:
        """Take both to their end; return what was dropped, what was prepared first at the front."""
        values = {"another tag": ("prod", "dev", "second")}.get(self.other, (*START, "second"))
        key = SECOND if self.other == "another tag" else AGAIN
        sources = [self.life.drop(LIST, lines(*START, "first")), self.life.drop(key, json.dumps(values).encode())]
        if self.other == "older":
            sources.reverse()
        first = self.life.prepare(sources[0]).id
        self.meeting.then = lambda: self.step(self.life.prepare(sources[1]).id)
        self.step(first, self.meeting.ports(self.life.w), self.meeting.client(self.life.w))
        if not self.meeting.at:
            self.meeting.then()
        for _ in range(10):
            again, self.waiting = self.waiting, []
            for delivery in again:
                self.life.w.time[0] += timedelta(seconds=1000)
                self.step(delivery)
        assert self.waiting == []
        return sources

    def step(self, delivery: str, *parts: Any) -> None:  # noqa: ANN401 -- ports and vendor, or none
        """Let one message be taken, which comes back if it has to wait."""
        try:
            self.life.w.step(delivery, *parts)
        except (Wait, LedgerConflict):
            self.waiting.append(delivery)


@pytest.mark.parametrize("other", ["same", "another tag", "older"])
def test_two_runs_for_one_policy_never_interleave_wherever_the_second_one_comes(shared: Syncs, other: str) -> None:
    """Row 15: whatever call of the first the second comes at, nothing is written between its reading and its verifying.

    In the end the newer list stands, and that of another tag beside it.
    """
    undisturbed = Meeting()
    Encounter(Life(shared), other, undisturbed).take()
    for at in range(len(undisturbed.calls) + 1):
        life = Life(shared)
        sources = Encounter(life, other, Meeting(at)).take()
        outcomes = [life.receipt(source)["outcome"] for source in sources]
        assert set(outcomes) <= {"delivered", "superseded"}, (at, outcomes)
        two = other == "another tag"
        assert sorted(life.w.values()) == sorted((*START, "first" if two else "second"))
        assert sorted(life.w.values("env")) == sorted(("prod", "dev", *(("second",) if two else ())))
        _check_alone(life.w.calls())


def _check_alone(calls: list[str]) -> None:
    """Each PATCH stands between the read that it was planned from and the one that verifies it."""
    for at, call in enumerate(calls):
        if call == "updateTaggingPolicy":
            assert calls[at - 1] == "getTaggingPolicy", calls
            assert calls[at + 1] == "getTaggingPolicy", calls


@dataclass
class Random_(Life):  # noqa: N801 -- Random is taken
    """A random life of one tag: lists are dropped, somebody changes it by hand, functions die, people decide."""

    random: Random = field(default_factory=Random)
    sources: list[ObjectVersion] = field(default_factory=list)
    lists: dict[str, list[str]] = field(default_factory=dict)
    """What each version of the file says."""
    allowed: set[frozenset[str]] = field(default_factory=set)
    """What the tag may have: what somebody has set by hand, and what was let pass."""
    ours: frozenset[str] | None = None
    """What we have written last, or have been told to take for ours."""

    def live(self) -> None:
        """Live it to its end."""
        self.allowed.add(frozenset(START))
        for _ in range(12):
            self.random.choice(
                [self.somebody_drops, self.somebody_drops, self.somebody_changes, self.somebody_decides]
            )()
            self.seen()
        self.fuse.mend()
        self.settle()
        self.seen()

    def somebody_drops(self) -> None:
        values = [value for value in (*START, "g", "h") if self.random.random() < 0.85]
        source = self.drop(LIST, lines(*values))
        self.sources.append(source)
        self.lists[source.version_id] = values
        self.fuse.at = self.random.choice([0, 0, len(self.fuse.calls) + self.random.randint(1, 60)])
        self.prepare(source)
        before = self.now()
        self.settle()
        self.judge(before)

    def somebody_changes(self) -> None:
        value = self.random.choice(["g", "by-hand"])

        def change(tag: dict[str, Any]) -> None:
            tag["allowedValues"] = sorted({*tag["allowedValues"]} ^ {value})

        self.w.change_by_hand(change)
        self.allowed = {self.now()}

    def somebody_decides(self) -> None:
        held = [found for source in self.sources if (found := self.known(source)).outcome is Outcome.HELD]
        if not held:
            return
        one = self.random.choice(held)
        decision = self.random.choice(["send", "drop", "mark as arrived"])
        self.prepare(self.drop(f"incoming/release/{one.id}.json", json.dumps({"decision": decision}).encode()))
        before = self.now()
        self.settle()
        self.judge(before, decision)

    def judge(self, before: frozenset[str], decision: str = "") -> None:
        """What changed at the vendor is what a list says that the guards, or a person, let pass."""
        now = self.now()
        if decision == "mark as arrived":
            self.ours = before
        if now == before:
            wanted = {frozenset(self.lists[source.version_id]): self.known(source) for source in self.sources}
            if now in wanted and wanted[now].outcome is Outcome.UNCHANGED and decision != "mark as arrived":
                self.ours = now  # somebody has made it by hand what a list wants: nobody's change was undone
            return
        done = [found for source in self.sources if (found := self.known(source)).outcome is Outcome.DELIVERED]
        newest = max(done, key=lambda found: found.times["ended"])
        assert newest.plan is not None
        assert newest.plan["after"] == len(now)
        removed, by_hand = before - now, before ^ (self.ours if self.ours is not None else before)
        if decision != "send":
            assert len(removed) <= 0.3 * len(before), "more was removed than may go unasked"
            assert not by_hand & (before ^ now), "what somebody changed by hand was overwritten, and nobody was asked"
        self.ours, self.allowed = now, {now}

    def seen(self) -> None:
        """Whatever happens, the tag has a list that somebody has let pass, and the other tag is untouched."""
        assert self.now() in self.allowed
        assert self.w.values("env") == OTHER["allowedValues"]
        held = [source for source in self.sources if self.known(source).outcome is Outcome.HELD]
        assert len(held) <= 1, "a newer list ends an older one that a person was asked about"
        for source in self.sources:
            self.receipt(source)

    def known(self, source: ObjectVersion) -> Delivery:
        found = self.parts.ledger.delivery(delivery_id(source))
        assert found is not None
        return found

    def now(self) -> frozenset[str]:
        return frozenset(self.w.values())


@pytest.mark.parametrize("seed", range(500 if FULL else 25))
def test_in_any_random_life_a_tag_has_what_the_guards_or_a_person_let_pass(shared: Syncs, seed: int) -> None:
    """Row 17: with crashes, changes by hand and decisions, nothing is overwritten that nobody was asked about."""
    Random_(shared, random=Random(seed)).live()  # noqa: S311 -- a seed that can be repeated, nothing secret

"""The inbox: a batch of messages is one object, which is read again as it came."""

from __future__ import annotations

import gzip
import json
from random import Random

import pytest
from finops_relay.errors import InputRefused, SourceGone
from finops_relay.jobs.telemetry import collect as collecting
from finops_relay.jobs.telemetry.collect import (
    INBOX,
    MAX_BATCH_BYTES,
    NOBODY,
    WAITING,
    Received,
    Sent,
    batch_of,
    put_waiting,
    waiting_stream,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.world.applications import Applications
from tests.world.relay import DROPS

NOON_MS = 1_772_366_400_000
"""2026-03-01T12:00:00Z."""


def read(w: Applications, key: str) -> list[Received]:
    return batch_of(w.ports, w.drops.pin(DROPS, key))[0]


def test_a_batch_is_one_object_below_the_day_on_which_its_first_message_was_sent() -> None:
    w = Applications()
    key = w.collect([Sent("b", "late", NOON_MS + 86_400_000), Sent("a", "early", NOON_MS)])
    assert key.startswith(f"{INBOX}2026-03-01/")
    assert list(w.drops.objects) == [key]
    assert w.ledger.items == {}


def test_the_same_messages_are_the_same_object_in_whatever_order_and_however_often_they_come() -> None:
    messages = [Sent(f"m{number}", f"body {number}", NOON_MS + number % 3) for number in range(20)]
    w = Applications()
    first = w.collect(messages)
    for seed in range(5):
        shuffled = [*messages, *messages[:3]]
        Random(seed).shuffle(shuffled)  # noqa: S311 -- an order, not a secret
        assert w.collect(shuffled) == first
    assert len(set(w.drops.objects[first])) == 1
    assert w.collect(messages[1:]) != first


def test_messages_are_read_in_the_order_in_which_they_were_sent() -> None:
    w = Applications()
    key = w.collect([Sent("a", "third", NOON_MS + 2), Sent("b", "first", NOON_MS), Sent("c", "second", NOON_MS + 1)])
    assert [message.body for message in read(w, key)] == ["first", "second", "third"]


@given(st.lists(st.text(st.characters()), min_size=1, max_size=5))
def test_a_body_comes_back_as_it_was(bodies: list[str]) -> None:
    """Row 5: line ends of all kinds, halves of characters, nothing at all: content is nobody's business here."""
    w = Applications()
    key = w.collect([Sent(f"m{number}", body, NOON_MS) for number, body in enumerate(bodies)])
    assert [message.body for message in read(w, key)] == bodies


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        gzip.compress(b"not JSON"),
        gzip.compress(b'["a list"]'),
        gzip.compress(b'{"id": 1, "body": "b"}'),
        gzip.compress(b'{"id": "a"}'),
        gzip.compress(b"[" * 100_000),
        gzip.compress(json.dumps({"id": "a", "body": "b" * 500}).encode())[:-9],
        gzip.compress(b" " * (MAX_BATCH_BYTES + 1)),
    ],
    ids=["empty", "plain", "text", "list", "number", "bodiless", "deep", "truncated", "huge"],
)
def test_an_object_that_is_no_batch_of_ours_is_refused(data: bytes) -> None:
    """Row 7: whatever somebody puts there, it ends in one kind of error, in bounded memory."""
    w = Applications()
    w.drops.put(f"{INBOX}x", data, "text/plain")
    with pytest.raises(InputRefused, match="batch"):
        read(w, f"{INBOX}x")


def test_a_batch_that_is_gone_is_no_batch_that_cannot_be_read() -> None:
    w = Applications()
    key = w.collect(w.sent("x"))
    w.drops.remove(key)
    with pytest.raises(SourceGone):
        read(w, key)


def test_messages_that_wait_apart_lie_under_their_streams_name_and_behind_the_batches() -> None:
    w = Applications()
    messages = [Received("a", "x"), Received("b", "\ud83d")]
    keys = [put_waiting(w.ports, stream, messages) for stream in ("orders", "")]
    assert [waiting_stream(key) for key in keys] == ["orders", ""]
    assert keys[1].startswith(f"{WAITING}{NOBODY}/")
    assert [read(w, key) for key in keys] == [messages, messages]
    assert max(w.drops.objects) > w.collect(w.sent("x"))
    assert [entry.key for entry in w.drops.listing(DROPS, INBOX)][1:] == sorted(keys)


def test_the_same_messages_wait_apart_as_the_same_object() -> None:
    w = Applications()
    one, other = [Received("a", "x")], [Received("a", "y")]
    assert put_waiting(w.ports, "s", one) == put_waiting(w.ports, "s", one) != put_waiting(w.ports, "s", other)


@pytest.mark.parametrize("name", ["2026-03-01/orders/x", "waiting/", "waiting/../x", "waiting/a b/x", "waiting/~/x"])
def test_what_lies_elsewhere_waits_for_no_stream(name: str) -> None:
    assert waiting_stream(f"{INBOX}{name}") == ""


def test_the_inbox_triggers_nothing() -> None:
    """Row 28: only these three folders do (design: Storage)."""
    assert not collecting.INBOX.startswith(("incoming/", "plan/", "config/"))

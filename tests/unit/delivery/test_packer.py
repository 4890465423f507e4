"""Rows become bodies: by hour, as full as they can be, and no hour in two of them unless it is larger than one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from finops_relay.delivery.packer import Body, Mode, Packer, RowTooLargeError
from hypothesis import given
from hypothesis import strategies as st

MAX = 200


def envelope(mode: Mode) -> tuple[bytes, bytes]:
    return f'{{"operation":"{mode}","data":['.encode(), b"]}"


@dataclass(frozen=True)
class Packed:
    """What became of some rows."""

    bodies: list[Body]
    texts: dict[int, bytes]

    def rows(self, seq: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.texts[seq])["data"]
        return found


def packed(rows: list[tuple[int, str]], *, whole_month: bool = False, appends_only: bool = False) -> Packed:
    """Pack rows of an hour and a text each; the row's number shows where it was."""
    written: dict[int, bytearray] = {}

    def write(seq: int) -> Callable[[bytes], object]:
        written[seq] = bytearray()
        return written[seq].extend

    with Packer(envelope, whole_month=whole_month, appends_only=appends_only, max_bytes=MAX) as packer:
        for number, (hour, text) in enumerate(rows):
            packer.add(hour, json.dumps({"hour": hour, "number": number, "text": text}).encode())
        bodies = list(packer.bodies(write))
    return Packed(bodies, {seq: bytes(text) for seq, text in written.items()})


ROWS = st.lists(st.tuples(st.integers(0, 5), st.text(max_size=10)), max_size=60)


@given(rows=ROWS, whole_month=st.booleans(), appends_only=st.booleans())
def test_every_row_is_sent_once_in_a_body_that_is_not_too_large(
    *, rows: list[tuple[int, str]], whole_month: bool, appends_only: bool
) -> None:
    done = packed(rows, whole_month=whole_month, appends_only=appends_only)
    sent = [row["number"] for body in done.bodies for row in done.rows(body.seq)]
    assert sorted(sent) == list(range(len(rows)))
    for body in done.bodies:
        text = done.texts[body.seq]
        assert len(text) == body.bytes <= MAX
        assert (body.sha256, body.rows) == (sha256(text).hexdigest(), len(done.rows(body.seq)))
        assert body.hours == tuple(dict.fromkeys(row["hour"] for row in done.rows(body.seq)))
        assert json.loads(text)["operation"] == body.mode


@given(rows=ROWS, whole_month=st.booleans())
def test_rows_are_ordered_by_hour_and_within_it_as_they_came(*, rows: list[tuple[int, str]], whole_month: bool) -> None:
    done = packed(rows, whole_month=whole_month)
    sent = [(row["hour"], row["number"]) for body in done.bodies for row in done.rows(body.seq)]
    assert sent == sorted((hour, number) for number, (hour, _) in enumerate(rows))


@given(rows=ROWS, whole_month=st.booleans())
def test_no_hour_is_wiped_by_a_body_after_the_one_that_began_it(
    *, rows: list[tuple[int, str]], whole_month: bool
) -> None:
    """The vendor's view: wipe what each body wipes, add what it holds; at the end every row is there."""
    done = packed(rows, whole_month=whole_month)
    held: list[dict[str, Any]] = [{"hour": 99, "number": -1}]
    for body in done.bodies:
        if body.mode is Mode.MONTH:
            held = []
        elif body.mode is Mode.HOURS:
            held = [row for row in held if row["hour"] not in body.hours]
        else:
            assert len(body.hours) == 1, "only the rest of one hour is appended"
        held += done.rows(body.seq)
    ours = [row for row in held if row["number"] != -1]
    assert sorted(row["number"] for row in ours) == list(range(len(rows)))
    assert (len(held) > len(ours)) == (not whole_month or not rows)


@given(ROWS)
def test_a_body_is_as_full_as_whole_hours_let_it_be(rows: list[tuple[int, str]]) -> None:
    done = packed(rows)
    for body, following in pairwise(done.bodies):
        first = following.hours[0]
        if following.mode is Mode.APPEND or body.mode is Mode.APPEND or first in body.hours:
            continue
        hour = sum(len(json.dumps(row)) + 1 for row in done.rows(following.seq) if row["hour"] == first)
        assert body.bytes + hour > MAX or (following.seq < len(done.bodies) and following.hours == (first,))


@given(ROWS)
def test_the_same_rows_give_the_same_bytes(rows: list[tuple[int, str]]) -> None:
    assert packed(rows) == packed(rows)


def test_the_first_body_of_a_whole_month_wipes_it_and_the_others_their_hours() -> None:
    done = packed([(hour, "x" * 40) for hour in range(6)], whole_month=True)
    assert [body.mode for body in done.bodies] == [Mode.MONTH, *[Mode.HOURS] * (len(done.bodies) - 1)]
    assert len(done.bodies) > 2


def test_an_hour_larger_than_a_body_is_begun_by_a_replacement_and_gone_on_with_by_appending() -> None:
    done = packed([(0, "a"), *[(1, "x" * 60)] * 4, (2, "b")])
    modes = [(body.mode, body.hours) for body in done.bodies]
    assert modes[0] == (Mode.HOURS, (0,))
    assert modes[1] == (Mode.HOURS, (1,))
    assert set(modes[2:-1]) == {(Mode.APPEND, (1,))}
    assert modes[-1] == (Mode.HOURS, (2,))


def test_where_nothing_can_be_replaced_every_body_appends() -> None:
    done = packed([(hour, "x" * 40) for hour in range(6)], appends_only=True)
    assert {body.mode for body in done.bodies} == {Mode.APPEND}


def test_a_row_that_no_body_can_hold_is_refused() -> None:
    with Packer(envelope, max_bytes=MAX) as packer:
        packer.add(0, b"x" * 100)
        with pytest.raises(RowTooLargeError, match="201 bytes"):
            packer.add(0, b"x" * 201)
        assert (packer.hours, packer.size) == ((0,), 101)

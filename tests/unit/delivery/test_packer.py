"""Rows become bodies: by hour, as full as they can be, and no hour in two of them unless it is larger than one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from finops_relay.delivery.packer import ORDER_BYTES, Body, Duplicates, Mode, Packer, RowTooLargeError
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
    duplicates: Duplicates

    def rows(self, seq: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.texts[seq])["data"]
        return found


def packed(
    rows: list[tuple[int, str]],
    *,
    whole_month: bool = False,
    appends_only: bool = False,
    order_bytes: int = ORDER_BYTES,
    numbered: bool = True,
) -> Packed:
    """Pack rows of an hour and a text each; the row's number, which is its origin, shows where it was."""
    written: dict[int, bytearray] = {}

    def write(seq: int) -> Callable[[bytes], object]:
        written[seq] = bytearray()
        return written[seq].extend

    with Packer(
        envelope, whole_month=whole_month, appends_only=appends_only, max_bytes=MAX, order_bytes=order_bytes
    ) as packer:
        for number, (hour, text) in enumerate(rows):
            shown = {"number": number} if numbered else {}
            packer.add(hour, json.dumps({"hour": hour, **shown, "text": text}).encode(), number)
        bodies = list(packer.bodies(write))
        duplicates = packer.duplicates
    return Packed(bodies, {seq: bytes(text) for seq, text in written.items()}, duplicates)


ROWS = st.lists(st.tuples(st.integers(0, 5), st.text(max_size=10)), max_size=60)
ORDERS = st.integers(1, 2000)


@given(rows=ROWS, whole_month=st.booleans(), appends_only=st.booleans(), order_bytes=ORDERS)
def test_every_row_is_sent_once_in_a_body_that_is_not_too_large(
    *, rows: list[tuple[int, str]], whole_month: bool, appends_only: bool, order_bytes: int
) -> None:
    done = packed(rows, whole_month=whole_month, appends_only=appends_only, order_bytes=order_bytes)
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


@given(ROWS, ORDERS, ORDERS)
def test_the_same_rows_give_the_same_bytes(rows: list[tuple[int, str]], order: int, other: int) -> None:
    assert packed(rows, order_bytes=order) == packed(rows, order_bytes=other)


@given(ROWS, ORDERS)
def test_pieces_say_where_the_rows_of_an_hour_stand_and_which_bytes_they_are(
    rows: list[tuple[int, str]], order_bytes: int
) -> None:
    done = packed(rows, order_bytes=order_bytes)
    for body in done.bodies:
        text = done.texts[body.seq]
        behind = len(envelope(body.mode)[0])
        for piece in body.pieces:
            part = text[piece.offset : piece.offset + piece.length]
            found = json.loads(b"[" + part + b"]")
            assert {row["hour"] for row in found} == {piece.hour}
            assert (piece.rows, piece.sha256) == (len(found), sha256(part).hexdigest())
            assert piece.offset == behind
            behind = piece.offset + piece.length + len(b",")
        assert text[behind - 1 :] == envelope(body.mode)[1]
        assert len(set(body.hours)) == len(body.pieces), "an hour is one piece of a body"


@given(ROWS, ORDERS)
def test_a_body_names_the_origin_of_each_of_its_rows(rows: list[tuple[int, str]], order_bytes: int) -> None:
    done = packed(rows, order_bytes=order_bytes)
    for body in done.bodies:
        assert body.origins.tolist() == [row["number"] for row in done.rows(body.seq)]


def test_an_origin_has_64_bits() -> None:
    with Packer(envelope, max_bytes=MAX) as packer:
        packer.add(0, b"{}", 2**64 - 1)
        [body] = packer.bodies(lambda _: bytearray().extend)
    assert body.origins[0] == 2**64 - 1


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab")), max_size=40), ORDERS)
def test_rows_that_stand_more_than_once_in_an_hour_are_counted_and_some_are_named(
    rows: list[tuple[int, str]], order_bytes: int
) -> None:
    """Also over the bodies of an hour that is larger than one."""
    done = packed(rows, order_bytes=order_bytes, numbered=False)
    surplus = [(row[0], number) for number, row in enumerate(rows) if row in rows[:number]]
    assert done.duplicates.rows == len(surplus)
    assert list(done.duplicates.examples) == sorted(surplus)[:10]
    assert sum(body.rows for body in done.bodies) == len(rows), "they are sent all the same"


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


@pytest.mark.parametrize(
    ("whole_month", "appends_only", "asked"),
    [
        (False, True, {Mode.APPEND}),
        (True, True, {Mode.APPEND}),
        (False, False, {Mode.HOURS, Mode.APPEND}),
        (True, False, set(Mode)),
    ],
)
def test_an_envelope_is_only_asked_for_what_may_be_done(
    *, whole_month: bool, appends_only: bool, asked: set[Mode]
) -> None:
    modes: set[Mode] = set()

    def noted(mode: Mode) -> tuple[bytes, bytes]:
        modes.add(mode)
        return envelope(mode)

    Packer(noted, whole_month=whole_month, appends_only=appends_only).close()
    assert modes == asked


def test_a_row_that_no_body_can_hold_is_refused() -> None:
    with Packer(envelope, max_bytes=MAX) as packer:
        packer.add(0, b"x" * 100)
        with pytest.raises(RowTooLargeError, match="201 bytes"):
            packer.add(0, b"x" * 201)
        with pytest.raises(RowTooLargeError):
            packer.add_all([0, 0], [b"{}", b"x" * 201], [1, 2])
        assert (packer.hours, packer.size) == ((0,), 101)

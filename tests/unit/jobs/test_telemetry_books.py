"""The book of a stream, and what is sent because of it: pure rules, in any order."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from random import Random

import msgspec
import pytest
from finops_relay.cloudzero.connect import CLIENTS
from finops_relay.cloudzero.records import ContractName
from finops_relay.errors import SourceGone
from finops_relay.formats.telemetry import Dialect, Ident, Shape
from finops_relay.jobs.telemetry.books import (
    Book,
    Change,
    Line,
    Page,
    Verb,
    change,
    decoded,
    encoded,
    rolled_up,
    rounded,
)
from finops_relay.jobs.telemetry.content import MAX_A_DAY, crowded
from finops_relay.jobs.telemetry.sendings import (
    Going,
    Gone,
    Way,
    bodies,
    gone_bodies,
    gone_of,
    periods_of,
    record_text,
    sending,
    sent_records,
    way_of,
)
from hypothesis import given
from hypothesis import strategies as st

DAY = 24 * 20_000
LABELS = ("a", "b")
VERBS = [*Verb]

amounts = st.decimals("0.01", 1000, places=2)
lines = st.lists(
    st.builds(
        Line,
        st.integers(DAY, DAY + 2),
        st.sampled_from(LABELS).map(lambda label: (label,)),
        amounts,
        st.just(1),
        st.just(2),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda line: line.ident,
)
drops = st.lists(st.tuples(st.sampled_from(VERBS), lines), min_size=1, max_size=5)


def as_dropped(verb: Verb, some: list[Line]) -> list[Line]:
    """Return the lines of a delivery; a deletion's have periods only."""
    if verb is not Verb.DELETE:
        return some
    return [Line(period, (), Decimal(0), 1, 2) for period in sorted({line.period for line in some})]


def values(book: Book) -> dict[Ident, Decimal]:
    return {ident: kept.value for ident, kept in book.kept.items()}


def in_order(found: list[tuple[Verb, list[Line]]]) -> dict[Ident, Decimal]:
    """Return what the words mean, one drop after the other."""
    held: dict[Ident, Decimal] = {}
    for verb, some in found:
        for line in as_dropped(verb, some):
            if verb is Verb.REPLACE:
                held[line.ident] = line.value
            elif verb is Verb.SUM:
                held[line.ident] = held.get(line.ident, Decimal(0)) + line.value
            else:
                held = {ident: value for ident, value in held.items() if ident.period != line.period}
    return held


@given(drops, st.randoms(use_true_random=False))
def test_whatever_order_drops_arrive_in_the_book_is_as_if_they_had_come_in_theirs(
    found: list[tuple[Verb, list[Line]]], random: Random
) -> None:
    """Or a drop is said to be doubtful, and has changed nothing that it is doubtful about."""
    arriving = list(enumerate(found))
    random.shuffle(arriving)
    book, doubtful = Book(), False
    for number, (verb, some) in arriving:
        before = values(book)
        told = change(book, verb, as_dropped(verb, some), f"order-{number:03}")
        doubtful |= bool(told.doubtful)
        assert all(values(book).get(ident) == before.get(ident) for ident in told.doubtful if ident.labels)
        book = Book.opened(decoded(encoded(book.closed()), Page, "page"))
    if not doubtful:
        assert values(book) == in_order(found)


@given(drops)
def test_drops_in_their_order_are_never_doubtful_nor_late(found: list[tuple[Verb, list[Line]]]) -> None:
    book = Book()
    for number, (verb, some) in enumerate(found):
        told = change(book, verb, as_dropped(verb, some), f"order-{number:03}")
        assert (told.doubtful, told.late) == ({}, {})
    assert values(book) == in_order(found)


@given(drops)
def test_the_same_drop_again_changes_nothing_where_it_replaces(found: list[tuple[Verb, list[Line]]]) -> None:
    book = Book()
    for number, (verb, some) in enumerate(found):
        change(book, verb, as_dropped(verb, some), f"order-{number:03}")
    again = [Line(*ident, kept.value, 1, 2) for ident, kept in book.kept.items()]
    assert change(book, Verb.REPLACE, again, "order-999").same


def test_what_a_failed_delivery_may_have_changed_is_not_taken_for_unchanged() -> None:
    line = Line(DAY, ("a",), Decimal(1), 1, 2)
    book = Book()
    change(book, Verb.REPLACE, [line], "1")
    book.shaken.add(line.ident)
    book = Book.opened(book.closed())
    assert not change(book, Verb.REPLACE, [line], "2").same
    assert change(book, Verb.REPLACE, [line], "3").same


def test_a_page_that_is_none_any_more_is_lost_and_said_so() -> None:
    with pytest.raises(SourceGone, match="books/x is not what was kept there"):
        decoded(b'{"entries": [[1]]}', Page, "books/x")


def test_a_page_has_the_same_bytes_for_the_same_content() -> None:
    first, second = Book(), Book()
    some = [Line(DAY + hour, (label,), Decimal(hour + 1), 1, 2) for hour in range(3) for label in LABELS]
    change(first, Verb.REPLACE, some, "1")
    change(second, Verb.REPLACE, reversed(some), "1")
    assert encoded(first.closed()) == encoded(second.closed())


# --- what is sent -----------------------------------------------------------------------------------------------------

SHAPE = Shape("DAILY", ("team",))
CONTRACTS = pytest.mark.parametrize("contract", ["live", "openapi"])


def dialect(contract: str, kind: str = "metric") -> Dialect:
    return Dialect(kind, contract == "live")


@CONTRACTS
@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    max_bytes=st.integers(260, 900),
    verb=st.sampled_from([Verb.REPLACE, Verb.SUM]),
)
def test_bodies_fit_hold_each_record_once_and_cut_no_period_that_is_told_whole(
    contract: str, counts: list[int], max_bytes: int, verb: Verb
) -> None:
    going = [
        Going(Ident(DAY + 24 * day, (f"team-{number}",)), Decimal(number + 1) / 4, number)
        for day, count in enumerate(counts)
        for number in range(count)
    ]
    d = dialect(contract)
    made = list(bodies(CLIENTS[ContractName(contract)], d, SHAPE, way_of(verb, d), going, max_bytes))
    assert all(len(body.data) <= max_bytes for body in made)
    sent = [sent_records(body.data, SHAPE, d) for body in made]
    assert [(record.ident, record.value) for part in sent for record in part] == [(g.ident, g.value) for g in going]
    assert [row for body in made for row in body.rows] == [g.rows for g in going]
    if contract == "openapi" and verb is Verb.REPLACE:
        for (before, part), (after, rest) in pairwise(zip(made, sent, strict=True)):
            shared = set(periods_of(part)) & set(periods_of(rest))
            assert bool(shared) == (after.way is Way.MORE)
            if shared:
                assert before.way in {Way.RENEW, Way.MORE}
                assert len(periods_of(rest)) == 1


def test_a_record_that_fits_no_body_is_an_error_and_nothing_endless() -> None:
    going = [Going(Ident(DAY, ("x" * 500,)), Decimal(1), 1)]
    with pytest.raises(ValueError, match="a body"):
        list(bodies(CLIENTS[ContractName.LIVE], dialect("live"), SHAPE, Way.REPLACE, going, 300))


def test_an_element_and_several_values_come_back_from_a_body_as_they_went() -> None:
    d = dialect("live", "allocation")
    going = Going(Ident(DAY, ("red", "a|b")), Decimal("1.5"), 1)
    text = record_text(CLIENTS[ContractName.LIVE], d, SHAPE, going)
    (record,) = sent_records(b'{"records":[' + text + b"]}", SHAPE, d)
    assert (record.ident, record.value) == (going.ident, going.value)
    assert msgspec.json.decode(text)["filter"] == {"team": ["a", "b"]}


def changed(verb: Verb, book: Book, *some: Line, order: str = "9") -> Change:
    return change(book, verb, some, order)


def test_openapi_is_told_all_of_a_period_with_the_rows_of_this_delivery_only() -> None:
    book = Book()
    change(book, Verb.REPLACE, [Line(DAY, ("a",), Decimal(1), 3, 2), Line(DAY, ("b",), Decimal(2), 4, 2)], "1")
    found = changed(Verb.REPLACE, book, Line(DAY, ("a",), Decimal(9), 5, 2))
    told = sending(Verb.REPLACE, found, book, SHAPE, dialect("openapi"))
    assert told.going == [Going(Ident(DAY, ("a",)), Decimal(9), 5), Going(Ident(DAY, ("b",)), Decimal(2), 0)]
    told = sending(Verb.REPLACE, found, book, SHAPE, dialect("live"))
    assert told.going == [Going(Ident(DAY, ("a",)), Decimal(9), 5)]


def test_an_hour_that_is_deleted_is_told_as_what_its_day_still_has() -> None:
    book, shape = Book(), Shape("HOURLY", ("team",))
    hours = [Line(DAY + hour, (label,), Decimal(1), 1, 2) for hour, label in ((0, "a"), (1, "a"), (1, "b"))]
    change(book, Verb.REPLACE, hours, "1")
    found = changed(Verb.DELETE, book, Line(DAY + 1, (), Decimal(0), 2, 2))
    told = sending(Verb.DELETE, found, book, shape, dialect("live"))
    assert told.going == [Going(Ident(DAY, ("a",)), Decimal(1), 0)]
    assert told.gone == [Gone(DAY, ("b",), 0)]
    assert told.needless == 2


@CONTRACTS
def test_a_deletion_spares_what_is_newer(contract: str) -> None:
    book = Book()
    change(book, Verb.REPLACE, [Line(DAY, ("a",), Decimal(1), 1, 2)], "1")
    change(book, Verb.REPLACE, [Line(DAY, ("b",), Decimal(2), 1, 2)], "3")
    found = changed(Verb.DELETE, book, Line(DAY, (), Decimal(0), 1, 2), order="2")
    told = sending(Verb.DELETE, found, book, SHAPE, dialect(contract))
    if contract == "live":
        assert (told.going, told.gone) == ([], [Gone(DAY, ("a",), 0)])
    else:
        assert (told.going, told.gone) == ([Going(Ident(DAY, ("b",)), Decimal(2), 0)], [])
        assert way_of(Verb.DELETE, dialect(contract, "allocation")) is Way.RENEW


def test_deletions_are_packed_and_read_back() -> None:
    gone = [Gone(DAY + number, None if number % 2 else ("a",), number) for number in range(250)]
    made = list(gone_bodies(gone, live=False))
    assert [body.records for body in made] == [*[24] * 10, 10]
    assert [each for body in made for each in gone_of(body.data)] == gone


def test_days_are_sums_of_their_hours_and_sums_are_rounded_only_where_they_are_too_long() -> None:
    hours = {Ident(DAY + hour, ("a",)): Decimal("0.1") for hour in range(3)}
    assert rolled_up(hours) == {Ident(DAY, ("a",)): Decimal("0.3")}
    assert rounded(Decimal("123456789012345.6"), 15) == Decimal(123456789012346)
    assert rounded(Decimal("0.10"), 15) == Decimal("0.10")


def test_a_day_with_too_many_records_is_named_with_what_helps() -> None:
    assert crowded({"2026-03-01": MAX_A_DAY}) == ""
    said = crowded({"2026-03-01": 1, "2026-03-02": MAX_A_DAY + 1})
    assert "2026-03-02 would have 150,001 different records" in said
    assert "leave out a dimension" in said

"""What applications send, from their queue to the deliveries: each record counts once, whatever happens in between.

The jobs run over ports in memory, as thousands of lives take too long over AWS's own interfaces; one life is lived
there, too, through the function itself. What becomes of the deliveries at the vendor is told elsewhere.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError
from finops_relay.aws.logs import Counters
from finops_relay.aws.wiring import Context, _boto_client, now, relay
from finops_relay.delivery.identity import ObjectVersion
from finops_relay.delivery.ledger import contract_note
from finops_relay.delivery.ports import Clock
from finops_relay.errors import LedgerConflict, RelayError, ShortRead, SourceForbidden, SourceGone
from finops_relay.formats.telemetry import day_of
from finops_relay.jobs.contract import Tenant
from finops_relay.jobs.telemetry.books import Book, Line, Verb, change
from finops_relay.jobs.telemetry.collect import INBOX, WAITING, Received, Sent, batch_of, collect, waiting_stream
from finops_relay.jobs.telemetry.content import MAX_DAYS, lines_of, put_page
from finops_relay.jobs.telemetry.merge import READING_LEFT_S, STREAM_LEFT_S, Bounds, merge
from finops_relay.jobs.telemetry.remembered import Stream, stream_name
from finops_relay.jobs.telemetry.totals import MARK_BYTES, totals_of
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from functions.telemetry_collect import app as telemetry_collect
from tests.world.applications import Applications, Broken, record, truth
from tests.world.crashes import Fragile, Fuse, SimulatedCrash
from tests.world.relay import DROPS, REGION, SPOOL, START, Aws, aws

EVENTS = Path(__file__).resolve().parents[2] / "events" / "telemetry_collect"
CLOCK = Clock(now, lambda: 60.0)
DAY = "2026-03-01T00"


# --- what is counted --------------------------------------------------------------------------------------------------


def test_records_are_added_up_and_handed_over_as_one_replacement_of_their_total() -> None:
    w = Applications()
    (delivery,) = w.run(record("a", 1.5), record("b", 2), record("c", 4, team="ads"))
    assert (delivery.stage, delivery.target) == ("queued", "telemetry/orders")
    work = delivery.work
    assert (work["verb"], work["queued"], work["step"], work["contract"]) == ("replace", True, "check", "live")
    assert (work["granularity"], work["keys"], work["days"]) == ("DAILY", ["team"], ["2026-03-01"])
    assert w.totals("orders") == {(DAY, "search"): Decimal("3.5"), (DAY, "ads"): Decimal(4)}
    assert delivery.usage.in_ == Decimal("7.5")
    assert w.check() == Counter({"in": 3, "owed": 3})


def test_a_record_that_comes_again_counts_once_and_is_filtered() -> None:
    """Row 4: in one batch, in another batch of the run, and in a later run."""
    w = Applications()
    w.collect(w.sent(record("a", 1), record("a", 1), record("b", 1)))
    w.collect(w.sent(record("a", 1)))
    (first,) = w.merge()
    assert (first.rows.owed, first.rows.filtered, first.filtered_by) == (2, 2, {"duplicates": 2})
    (second,) = w.run(record("b", 1), record("c", 5))
    assert (second.rows.owed, second.rows.filtered) == (1, 1)
    assert w.totals("orders") == {(DAY, "search"): Decimal(7)}
    assert first.warnings == second.warnings == ()
    w.check()


def test_a_run_of_which_everything_had_come_before_ends_unchanged() -> None:
    w = Applications()
    w.run(record("a"))
    (again,) = w.run(record("a"), record("a"))
    assert (again.outcome, again.stage) == ("unchanged", "finished")
    assert again.rows.filtered == 2
    assert w.check() == Counter({"in": 3, "owed": 1, "filtered": 2})
    assert len(w.queue.heads()) == 1


def test_an_id_that_comes_again_with_other_content_counts_as_it_was_first_and_that_is_said() -> None:
    """Row 20, of records: which of the two is right nobody can say."""
    w = Applications()
    (first,) = w.run(record("a", 1), record("a", 2))
    (second,) = w.run(record("a", 3), record("a", 1.0), record("b", 1))
    assert first.warnings == second.warnings == ("1 records repeat an id with other content: the first counts",)
    assert w.totals("orders") == {(DAY, "search"): Decimal(2)}


def test_one_id_may_be_used_on_another_day_and_in_another_stream() -> None:
    w = Applications()
    w.run(record("a", 1), record("a", 2, timestamp="2026-03-02T00:00:00Z"), record("a", 4, stream="visits"))
    assert w.totals("orders") == {(DAY, "search"): Decimal(1), ("2026-03-02T00", "search"): Decimal(2)}
    assert w.totals("visits") == {(DAY, "search"): Decimal(4)}


def test_a_record_without_an_id_counts_once_for_each_message_and_that_is_said() -> None:
    w = Applications()
    messages = w.sent(record(None, 1), record(None, 1))
    w.collect(messages)
    w.collect(messages[:1])  # the queue gives a message out twice
    (delivery,) = w.merge()
    assert w.totals("orders") == {(DAY, "search"): Decimal(2)}
    assert (delivery.rows.owed, delivery.rows.filtered) == (2, 1)
    assert "3 records have no id" in delivery.warnings[0]


def test_late_records_correct_their_period_and_leave_the_others_alone() -> None:
    w = Applications()
    w.run(record("a", 1), record("b", 1, timestamp="2026-03-02T05:00:00Z"))
    (late,) = w.run(record("c", 2, timestamp="2026-03-01T01:00:00Z"))
    assert late.work["days"] == ["2026-03-01"]
    assert {value for value, _ in w.lines(late).values()} == {Decimal(3)}
    assert w.totals("orders")["2026-03-02T00", "search"] == 1


def test_hours_stay_hours_until_they_are_sent() -> None:
    """Under `live` a metric's hours are sent as days; whoever delivers adds them up."""
    w = Applications()
    times = ("05:10", "05:50", "06:00")
    w.run(*(record(at, timestamp=f"2026-03-01T{at}:00Z", granularity="HOURLY") for at in times))
    assert w.totals("orders") == {("2026-03-01T05", "search"): 2, ("2026-03-01T06", "search"): 1}


def test_a_total_is_exact_however_many_digits_it_gets() -> None:
    w = Applications()
    w.run(record("a", "100000000000000"), record("b", "0.00000000000001"))
    assert w.totals("orders") == {(DAY, "search"): Decimal("100000000000000.00000000000001")}


def test_under_the_other_contract_totals_may_fall() -> None:
    w = Applications(contract="openapi")
    w.run(record("a", 5))
    w.run(record("b", -7))
    assert w.totals("orders") == {(DAY, "search"): Decimal(-2)}


def test_streams_are_counted_side_by_side_each_with_a_delivery_of_its_own() -> None:
    w = Applications()
    found = w.run(*(record(f"{n}", n + 1, stream=f"s{n % 3}") for n in range(9)))
    assert [delivery.target for delivery in found] == ["telemetry/s0", "telemetry/s1", "telemetry/s2"]
    assert len({delivery.group for delivery in found}) == 3
    for stream in ("s0", "s1", "s2"):
        assert w.check(stream) == Counter({"in": 3, "owed": 3})


def test_nothing_in_the_inbox_is_nothing_to_do() -> None:
    """Row 25: a schedule that fires twice finds nothing."""
    w = Applications()
    w.run(record("a"))
    before = dict(w.ledger.items)
    assert w.merge() == []
    assert w.ledger.items == before


def test_a_later_run_is_newer_than_an_earlier_one_whatever_its_machines_clock_says() -> None:
    w = Applications()
    (first,) = w.run(record("a"))
    w.time[0] -= timedelta(hours=1)
    (second,) = w.run(record("b"))
    assert second.order > first.order
    w.check()


def test_an_order_sorts_among_those_of_dropped_files() -> None:
    w = Applications()
    (delivery,) = w.run(record("a"))
    moment, _, rest = delivery.order.partition("#")
    assert moment == w.time[0].isoformat(timespec="milliseconds")
    assert len(rest) == 64


# --- what is not ------------------------------------------------------------------------------------------------------


def test_bad_records_come_back_by_name_and_the_good_ones_of_their_stream_go() -> None:
    """Row 1: the file has the message's id and its body as it was."""
    w = Applications()
    bad = record("x", "much")
    (delivery,) = w.run(record("a"), bad, record("b"), record("y", kind="allocation"))
    assert delivery.stage == "queued"
    rows = w.rejected(delivery)
    assert [row["message_id"] for row in rows] == ["message-2", "message-4"]
    assert json.loads(rows[0]["body"]) == bad
    assert [row["line"] for row in rows] == ["2", "4"]
    assert rows[0]["error"] == "value is no plain number"
    assert rows[0]["fix"]
    assert delivery.id in delivery.next_command
    assert "send it to the application queue again" in delivery.next_command
    assert w.check() == Counter({"in": 4, "owed": 2, "rejected": 2})


def test_a_record_that_was_rejected_counts_once_it_comes_mended_under_the_same_id() -> None:
    w = Applications()
    w.run(record("a"), record("x", -5))
    (mended,) = w.run(record("x", 5))
    assert mended.rows.filtered == 0
    assert w.totals("orders") == {(DAY, "search"): Decimal(6)}


def test_a_stream_of_which_every_record_is_bad_ends_rejected_and_sends_nothing() -> None:
    w = Applications()
    (delivery,) = w.run(record("a", 0), record("b", -1))
    assert (delivery.outcome, delivery.target) == ("rejected", "telemetry/orders")
    assert "2 messages were rejected" in delivery.reason
    assert w.queue.heads() == []
    assert w.check() == Counter({"in": 2, "rejected": 2})
    (good,) = w.run(record("a", 1, granularity="HOURLY"))  # and freezes nothing
    assert good.stage == "queued"


def test_messages_that_name_no_stream_end_rejected_together() -> None:
    w = Applications()
    found = w.run("no JSON", "[]", '{"stream": "a/b"}', record("a"), '"=\x01,\n\ud83d"')
    assert [delivery.outcome for delivery in found] == ["rejected", "pending"]
    nameless = found[0]
    assert (nameless.target, nameless.rows.rejected) == ("", 4)
    assert [row["body"] for row in w.rejected(nameless)] == ["no JSON", "[]", '{"stream": "a/b"}', '"=\x01,\n\\ud83d"']
    assert w.check("") == Counter({"in": 4, "rejected": 4})
    assert w.check() == Counter({"in": 1, "owed": 1})


def test_a_bad_message_that_the_queue_gives_out_twice_is_rejected_once() -> None:
    w = Applications()
    messages = w.sent("no JSON", record("a", 0))
    w.collect(messages)
    w.collect(messages[:1])
    w.collect(messages[1:])
    for delivery in w.merge():
        assert (delivery.rows.rejected, delivery.filtered_by) == (1, {"duplicates": 1})
        assert len(w.rejected(delivery)) == 1


def test_an_object_that_somebody_else_has_put_into_the_inbox_is_named_and_holds_up_nothing() -> None:
    """Row 23: poison is set aside, with the version in which its bytes stay."""
    w = Applications()
    w.drops.put(f"{INBOX}0000/odd.json.gz", b"odd", "text/plain")
    nameless, good = w.run(record("a"))
    (row,) = w.rejected(nameless)
    assert row["body"] == f"s3://{DROPS}/{INBOX}0000/odd.json.gz version 1"
    assert "no batch of messages" in row["error"]
    assert good.stage == "queued"
    assert w.inbox() == []


def test_a_message_of_somebody_else_is_named_whatever_its_id_is() -> None:
    """Row 23: half of a character is nothing that a file can hold."""
    w = Applications()
    odd = json.dumps({"id": "\ud83d", "body": "no JSON"})
    w.drops.put(f"{INBOX}0000/odd.json.gz", gzip.compress(odd.encode()), "application/gzip")
    (nameless,) = w.merge()
    assert [row["message_id"] for row in w.rejected(nameless)] == ["\\ud83d"]
    assert w.check("") == Counter({"in": 1, "rejected": 1})


# --- what a day has no place for --------------------------------------------------------------------------------------


def test_a_record_that_would_be_one_too_many_of_its_day_is_rejected_by_name_and_those_known_still_count() -> None:
    """Row 7: a label with a request's id; the page of a day is held in memory whole."""
    w, bounds = Applications(), Bounds(weight=3)
    w.collect(w.sent(*(record(f"{n}", 1, team=f"request-{n}") for n in range(4))))
    w.merge(bounds=bounds)
    w.collect(w.sent("no JSON", record("x", 1, team="request-x"), record("y", 2, team="request-0")))
    w.collect(w.sent(record("z", 1, timestamp="2026-03-02T00:00:00Z")))
    *_, second = w.merge(bounds=bounds)
    first, _ = w.deliveries("orders")
    for delivery, line, known in ((first, "4", "3"), (second, "2", "x")):
        (row,) = w.rejected(delivery)
        assert (row["line"], json.loads(row["body"])["id"]) == (line, known)
        assert row["error"] == "the day has too many different records"
        assert "a request's id" in row["fix"]
    assert w.totals("orders") == {
        (DAY, "request-0"): 3,
        (DAY, "request-1"): 1,
        (DAY, "request-2"): 1,
        ("2026-03-02T00", "search"): 1,
    }
    assert w.check() == Counter({"in": 7, "owed": 5, "rejected": 2})


def test_long_labels_take_the_place_of_several_records() -> None:
    w, bounds = Applications(), Bounds(weight=3)
    w.collect(w.sent(record("a", team="x" * 900), record("b", team="y"), record("c", team="x" * 900)))
    (delivery,) = w.merge(bounds=bounds)
    assert {(len(labels[0]), rows) for (_, labels), (_, rows) in w.lines(delivery).items()} == {(900, 2)}
    assert [json.loads(row["body"])["id"] for row in w.rejected(delivery)] == ["b"]


def test_what_a_day_had_no_place_for_counts_once_it_is_sent_again_with_fewer_labels() -> None:
    """The queue gives a message out twice: it is rejected once, and its id is not taken for counted."""
    w, bounds = Applications(), Bounds(weight=1)
    messages = w.sent(record("a"), record("b", 2, team="request-b"))
    w.collect(messages)
    w.collect(messages[1:])
    (first,) = w.merge(bounds=bounds)
    assert (first.rows.rejected, first.rows.filtered) == (1, 1)
    w.collect(w.sent(record("b", 2)))
    (second,) = w.merge(bounds=bounds)
    assert second.rows.filtered == 0
    assert w.totals("orders") == {(DAY, "search"): Decimal(3)}
    w.check()


def test_a_day_that_has_too_many_records_already_takes_no_other_one() -> None:
    w = Applications()
    w.run(*(record(f"{n}", team=f"team-{n}") for n in range(3)))
    w.collect(w.sent(record("a", team="team-0"), record("b", team="team-3")))
    (delivery,) = w.merge(bounds=Bounds(weight=2))
    assert (delivery.rows.owed, delivery.rows.rejected) == (1, 1)


@pytest.mark.parametrize("contract", ["live", "openapi"])
def test_a_record_that_would_make_its_total_too_long_for_cloudzero_is_rejected_by_name(contract: str) -> None:
    """Each of them is short enough, and so is everything else of the stream."""
    w, most = Applications(contract=contract), f"9{'0' * 29}"
    (first,) = w.run(record("a", most), record("b", most), record("c", 5, team="ads"))
    (second,) = w.run(record("d", most), record("b", 7))
    for delivery, known in ((first, "b"), (second, "d")):
        (row,) = w.rejected(delivery)
        assert json.loads(row["body"])["id"] == known
        assert row["error"] == "its total would have more than 30 digits before the point"
    assert w.totals("orders") == {(DAY, "search"): Decimal(f"9{'0' * 28}7"), (DAY, "ads"): Decimal(5)}
    assert w.check() == Counter({"in": 5, "owed": 3, "rejected": 2})


def test_messages_that_cannot_be_read_again_to_be_named_leave_their_stream_to_the_next_run() -> None:
    w, opened = Applications(), list[str]()

    def trouble(call: str, *arguments: Any) -> Exception | None:  # noqa: ANN401 -- of a port
        opened.extend(arguments[0].key for _ in range(call == "open"))
        return ShortRead("it broke off") if len(opened) > 1 else None

    w.collect(w.sent(record("a", team="b"), record("b", team="a")))
    with pytest.raises(ShortRead):
        w.merge(replace(w.ports, drops=Broken(w.drops, trouble)), Bounds(weight=1))
    assert w.deliveries() == []
    w.merge(bounds=Bounds(weight=1))
    assert w.check() == Counter({"in": 2, "owed": 1, "rejected": 1})


# --- what a stream is -------------------------------------------------------------------------------------------------


def test_the_first_good_record_says_what_its_stream_is_until_cloudzero_has_taken_one() -> None:
    w = Applications()
    w.run(record("x", 0, granularity="HOURLY"), record("a"), record("y", granularity="MONTHLY"))
    (second,) = w.run(record("z", granularity="HOURLY"))
    assert second.outcome == "rejected"
    assert w.collected().granularity == "DAILY"
    assert w.check() == Counter({"in": 4, "owed": 1, "rejected": 3})


def taken(w: Applications, **facts: Any) -> None:  # noqa: ANN401 -- of the stream
    """Remember what a stream is, as whoever delivers does."""
    known = w.ledger.record(stream_name("orders"))
    stream = Stream.model_validate({**known.content, **facts})
    w.ledger.save_record(known.but(content=stream.model_dump(mode="json")))


def test_what_cloudzero_has_taken_says_what_a_stream_is() -> None:
    w = Applications()
    taken(w, kind="metric", granularity="HOURLY", keys=("team",))
    (delivery,) = w.run(record("a"), record("b", granularity="HOURLY"))
    assert (delivery.rows.rejected, delivery.rows.owed) == (1, 1)
    assert delivery.work["granularity"] == "HOURLY"


def test_totals_of_another_shape_than_the_streams_begin_anew() -> None:
    """A file was faster, and CloudZero has refused what was collected before."""
    w = Applications()
    w.run(record("a", 1))
    taken(w, kind="metric", granularity="MONTHLY", keys=("team",))
    w.run(record("a", 1), record("b", 2, granularity="MONTHLY"))
    assert w.totals("orders")[DAY, "search"] == 2
    (third,) = w.run(record("c", 4, granularity="MONTHLY"))
    assert w.lines(third) == {next(iter(w.lines(third))): (Decimal(6), 1)}


def file_order(w: Applications) -> str:
    """Return the order of a file that is dropped now."""
    w.time[0] += timedelta(seconds=1)
    return f"{w.time[0].isoformat(timespec='milliseconds')}#{'0' * 64}"


def test_a_deleted_stream_begins_anew_and_may_be_something_else() -> None:
    w = Applications()
    w.run(record("a", 1), record("b", 2, timestamp="2026-03-02T00:00:00Z"))
    taken(w, emptied=file_order(w))
    monthly = {"granularity": "MONTHLY"}
    (delivery,) = w.run(record("a", 1, **monthly), record("c", 4, **monthly))
    assert delivery.rows.filtered == 1  # what was deleted does not come back by being sent once more
    assert w.totals("orders")[DAY, "search"] == 4
    assert w.collected().granularity == "MONTHLY"


def test_a_deleted_stream_that_goes_on_as_it_was_has_only_what_came_since() -> None:
    w = Applications()
    w.run(record("a", 1), record("b", 2, timestamp="2026-03-02T00:00:00Z"))
    taken(w, emptied=file_order(w))
    w.run(record("c", 4))
    w.run(record("d", 8, timestamp="2026-03-02T00:00:00Z"), record("e", 16))
    assert w.totals("orders") == {(DAY, "search"): Decimal(20), ("2026-03-02T00", "search"): Decimal(8)}


def test_records_of_a_deleted_period_do_not_come_back_with_the_next_one() -> None:
    w = Applications()
    w.run(record("a", 1), record("b", 2, timestamp="2026-03-02T00:00:00Z"))
    (period,) = {ident.period for ident in w.lines(w.deliveries()[0]) if day_of(ident.period) == "2026-03-01"}
    book = Book()
    change(book, Verb.DELETE, [Line(period, (), Decimal(0), 1, 1)], file_order(w))
    taken(w, pages={"2026-03-01": put_page(w.ports, "a page", book.closed())})
    (delivery,) = w.run(record("c", 4), record("d", 8, timestamp="2026-03-02T00:00:00Z"))
    assert sorted(value for value, _ in w.lines(delivery).values()) == [4, 10]
    w.run(record("e", 16))
    assert w.totals("orders") == {(DAY, "search"): Decimal(20), ("2026-03-02T00", "search"): Decimal(10)}


# --- much of it -------------------------------------------------------------------------------------------------------


def test_a_run_of_very_many_days_becomes_several_deliveries() -> None:
    w = Applications()
    start, days = START - timedelta(days=2 * MAX_DAYS), MAX_DAYS + 2
    many = [record("a", timestamp=(start + timedelta(days=day)).isoformat()) for day in range(days)]
    first, second = w.run(*many, many[0], record("x", 0))
    assert (first.rows.owed, first.rows.filtered, first.rows.rejected) == (MAX_DAYS, 1, 1)
    assert (second.rows.owed, second.rows.in_) == (2, 2)
    assert first.order == second.order
    assert len(w.totals("orders")) == days


def test_ids_of_a_day_that_are_very_many_are_put_aside_and_still_known() -> None:
    """Row 5: also where a read ends in the middle of one."""
    w, bounds = Applications(), Bounds(ids_bytes=4 * MARK_BYTES)
    halves = w.with_ports(lambda name, port: Fragile(Fuse(), name, port))
    for run in range(4):
        w.collect(w.sent(*(record(f"{run}-{n}") for n in range(5))))
        w.merge(halves, bounds)
    page = totals_of(w.ports, w.collected().days["2026-03-01"])
    assert [len(w.spool.latest(key)) for key in page.sealed] == [5 * MARK_BYTES] * 4
    assert page.ids == b""
    w.collect(w.sent(*(record(f"{run}-{n}") for run in range(4) for n in range(5))))
    (again,) = w.merge(halves, bounds)
    assert (again.outcome, again.rows.filtered) == ("unchanged", 20)
    assert again.warnings == ()
    assert w.totals("orders") == {(DAY, "search"): Decimal(20)}
    assert not set(page.sealed) & w.spool.released


def test_a_run_with_little_time_counts_what_it_can_and_leaves_the_rest_to_the_next() -> None:
    w = Applications()
    for number in range(3):
        w.collect(w.sent(record(f"{number}", stream="early"), record(f"{number}", stream="late")))
    w.remaining[0] = READING_LEFT_S - 1
    assert [delivery.rows.in_ for delivery in w.merge()] == [1, 1]
    assert len(w.inbox()) == 2
    w.remaining[0] = STREAM_LEFT_S - 1
    assert w.merge() == []
    assert len(w.inbox()) == 2
    w.remaining[0] = 900
    assert [delivery.rows.in_ for delivery in w.merge()] == [2, 2]
    assert w.check("early") == w.check("late") == Counter({"in": 3, "owed": 3})


@pytest.mark.parametrize("bounds", [Bounds(records=5), Bounds(batches=2), Bounds(bytes=1_000)])
def test_a_run_takes_so_much_and_the_next_one_the_rest(bounds: Bounds) -> None:
    """Row 7: constant memory, whatever waits."""
    w = Applications()
    for batch in range(4):
        w.collect(w.sent(*(record(f"{batch}-{n}") for n in range(3))))
    assert [[delivery.rows.in_ for delivery in w.merge(bounds=bounds)] for _ in range(3)] == [[6], [6], []]
    assert w.check() == Counter({"in": 12, "owed": 12})


def test_what_a_dead_run_has_left_beyond_the_batches_of_the_next_one_is_handed_over_all_the_same() -> None:
    """Its deliveries must be on their way before those of another run take their place."""
    w = Applications()
    w.time[0] += timedelta(days=1)
    w.collect(w.sent(record("a", 1)))
    with pytest.raises(SimulatedCrash):
        w.merge(replace(w.ports, queue=Fragile(Fuse(1), "queue", w.queue)))
    w.time[0] -= timedelta(days=1)
    for number in range(3):
        w.collect(w.sent(record(f"{number}", team="ads")))
    first = w.merge(bounds=Bounds(batches=2))
    assert first[0].id in {message.delivery for message in w.queue.heads()}
    assert first[0].order == min(delivery.order for delivery in w.deliveries())
    for _ in range(3):
        w.merge(bounds=Bounds(batches=2))
    assert w.totals("orders") == {(DAY, "search"): Decimal(1), (DAY, "ads"): Decimal(3)}
    assert w.check() == Counter({"in": 4, "owed": 4})


# --- nobody knows the contract ----------------------------------------------------------------------------------------


def test_without_a_contract_everything_stays_in_the_inbox_and_it_is_asked_for() -> None:
    w = Applications(contract="auto")
    assert w.run(record("a")) == []
    assert len(w.inbox()) == 1
    assert w.deliveries() == []
    (asked,) = w.queue.groups.values()
    w.ledger.save_note(contract_note(w.tenant.api), {"contract": "live"})
    (delivery,) = w.merge()
    assert delivery.stage == "queued"
    assert len(asked) == 1
    w.check()


# --- something is gone ------------------------------------------------------------------------------------------------


def test_a_stream_whose_totals_are_lost_waits_with_its_records_and_holds_up_no_other() -> None:
    """What it had cannot be told from nothing: to begin anew would send too little."""
    w = Applications()
    w.run(record("a", 1), record("a", 1, stream="visits"))
    page = w.collected().days["2026-03-01"]
    lost = w.spool.objects.pop(page)
    w.collect(w.sent(record("b", 2), record("b", 2, stream="visits")))
    w.collect(w.sent(record("c", 4, stream="visits")))
    for _ in range(2):
        with pytest.raises(SourceGone, match="is not there any more"):
            w.merge()
        assert len(w.inbox()) == 1
    assert w.totals("visits") == {(DAY, "search"): Decimal(7)}
    w.spool.objects[page] = lost
    w.merge()
    assert w.totals("orders") == {(DAY, "search"): Decimal(3)}
    assert w.check("visits") == Counter({"in": 3, "owed": 3})


# --- one stream's trouble ---------------------------------------------------------------------------------------------

TROUBLES: dict[str, tuple[str, Callable[[str, Any], bool]]] = {
    "known": ("ledger", lambda call, name: call == "record" and name == "collected#orders"),
    "what-it-is": ("ledger", lambda call, name: call == "record" and name == "stream#orders"),
    "turn": ("ledger", lambda call, name: call == "target" and name == "telemetry/orders"),
    "saved": ("ledger", lambda call, item: call == "save_record" and item.name == "collected#orders"),
    "handed-over": ("ledger", lambda call, item: call == "save_target" and item.name == "telemetry/orders"),
    "queued": ("queue", lambda call, item: call == "send" and item.target == "telemetry/orders"),
    "written": ("spool", lambda call, key: call == "writer" and "/orders/" in key),
}
"""What fails, of one stream: anything that AWS may say, whatever the reason."""


def broken(w: Applications, trouble: str, error: Exception) -> Any:  # noqa: ANN401 -- ports
    """Return the ports with one trouble of the stream of orders."""
    port, fails = TROUBLES[trouble]

    def found(call: str, about: Any = "", *_: object) -> Exception | None:  # noqa: ANN401 -- of a port
        return error if fails(call, about) else None

    return w.with_ports(lambda name, inner: Broken(inner, found) if name == port else inner)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_the_trouble_of_one_stream_is_the_others_are_counted_and_it_is_raised_in_the_end(trouble: str) -> None:
    """Row 1: an item that has grown too large, a page that is forbidden: nobody else waits for it."""
    w = Applications()
    w.run(record("a", 1), record("a", 1, stream="visits"))
    error = ClientError({"Error": {"Code": "ValidationException"}}, "PutItem")
    ports = broken(w, trouble, error)
    for run in range(1, 4):
        w.collect(w.sent(record(f"b{run}", 2), record(f"b{run}", 4, stream="visits")))
        w.collect(w.sent(record(f"c{run}", 8, stream="zebras"), record(f"d{run}", 16)))
        with pytest.raises(ClientError):
            w.merge(ports)
        assert w.totals("visits") == {(DAY, "search"): Decimal(1 + 4 * run)}
        assert w.totals("zebras") == {(DAY, "search"): Decimal(8 * run)}
    w.merge()
    assert w.totals("orders") == {(DAY, "search"): Decimal(1 + 18 * 3)}
    assert w.check() == Counter({"in": 7, "owed": 7})
    assert w.check("visits") == Counter({"in": 4, "owed": 4})
    assert w.check("zebras") == Counter({"in": 3, "owed": 3})


def test_another_run_at_work_ends_this_one_at_once() -> None:
    w = Applications()
    w.collect(w.sent(record("a"), record("a", stream="visits")))
    with pytest.raises(LedgerConflict):
        w.merge(broken(w, "saved", LedgerConflict("somebody else")))
    assert w.deliveries() == []
    assert len(w.merge()) == 2


def test_however_many_batches_wait_for_a_stream_the_others_go_on_with_every_run() -> None:
    """What waits is put apart; and what the others remember does not grow with it."""
    w, bounds = Applications(), Bounds(batches=4)
    w.run(record("a", 1), record("a", 1, stream="visits"))
    page = w.collected().days["2026-03-01"]
    lost = w.spool.objects.pop(page)
    for run in range(1, 15):
        w.collect(w.sent(record(f"b{run}", 1), "no JSON"))
        w.collect(w.sent(record(f"c{run}", 1), record(f"c{run}", 1, stream="visits")))
        with pytest.raises(SourceGone):
            w.merge(bounds=bounds)
        assert w.totals("visits") == {(DAY, "search"): Decimal(1 + run)}
        assert {waiting_stream(key) for key in w.inbox()} == {"orders"}
    assert len(w.collected("visits").consumed) == 1
    assert len(w.collected("").consumed) == 1
    w.spool.objects[page] = lost
    while w.inbox():
        w.merge(bounds=bounds)
    assert w.totals("orders") == {(DAY, "search"): Decimal(29)}
    assert w.check() == Counter({"in": 29, "owed": 29})
    assert w.check("") == Counter({"in": 14, "rejected": 14})


@pytest.mark.parametrize("bounds", [Bounds(records=8), Bounds(bytes=1_300), Bounds(records=2)])
def test_batches_that_must_stay_where_they_are_leave_room_for_others(bounds: Bounds) -> None:
    """What was counted and could not be handed over stays, and is tried again: it lies before all others."""
    w = Applications()
    ports = broken(w, "queued", OSError("no queue"))
    for batch in range(2):
        w.collect(w.sent(*(record(f"{batch}-{n}") for n in range(4))))
    with pytest.raises(OSError, match="no queue"):
        w.merge(ports)
    w.time[0] += timedelta(days=1)
    for number in range(3):
        w.collect(w.sent(record(f"{number}", stream="visits")))
    for _ in range(20):
        with pytest.raises(OSError, match="no queue"):
            w.merge(ports, bounds)
    assert len(w.inbox()) == 2
    assert w.totals("visits") == {(DAY, "search"): Decimal(3)}
    w.merge()
    assert w.check() == Counter({"in": 8, "owed": 8})


def test_messages_of_no_stream_that_cannot_be_named_are_in_nobodys_way() -> None:
    w = Applications()
    w.collect(w.sent(record("a"), "no JSON"))
    w.drops.put(f"{INBOX}0000/odd.json.gz", b"odd", "text/plain")

    def trouble(call: str, *arguments: Any) -> Exception | None:  # noqa: ANN401 -- of a port
        return OSError("no room") if call == "writer" and arguments[0].startswith("rejected/") else None

    for _ in range(2):
        with pytest.raises(OSError, match="no room"):
            w.merge(replace(w.ports, drops=Broken(w.drops, trouble)))
        apart = [key for key in w.inbox() if key.startswith(WAITING)]
        assert (len(apart), len(w.inbox())) == (1, 2)  # what is no batch of ours cannot be put apart
    assert w.totals("orders") == {(DAY, "search"): Decimal(1)}
    w.merge()
    assert w.check("") == Counter({"in": 2, "rejected": 2})


def test_what_cannot_be_put_apart_stays_where_it_is_and_counts_later() -> None:
    w = Applications()
    w.collect(w.sent(record("a"), record("a", stream="visits")))
    w.delete()
    refused = replace(w.ports, drops=Broken(w.drops, lambda call, *_: OSError("no") if call == "put" else None))
    before = w.inbox()
    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            w.merge(refused)
        assert w.inbox() == before
    w.deleted()
    w.merge()
    assert w.check() == w.check("visits") == Counter({"in": 1, "owed": 1})


def test_much_that_waits_is_put_apart_bit_by_bit() -> None:
    """Row 7: constant memory; and with little time left the rest stays where it is."""
    w = Applications()
    w.delete()
    long = "x" * 900
    for batch in range(3):
        w.collect(w.sent(*(record(f"{batch}-{n}", team=long) for n in range(5_500))))
    w.remaining[0] = READING_LEFT_S + 1

    def late(call: str, *_: object) -> None:
        w.remaining[0] = STREAM_LEFT_S - 1 if call == "put" else w.remaining[0]

    w.merge(replace(w.ports, drops=Broken(w.drops, late)))
    assert [key.startswith(WAITING) for key in w.inbox()] == [False, False, True]
    w.remaining[0] = 900
    w.deleted()
    w.merge()
    assert w.check() == Counter({"in": 16_500, "owed": 16_500})


@pytest.mark.parametrize("error", [SourceForbidden, ShortRead], ids=lambda error: error.__name__)
def test_however_many_objects_of_the_inbox_cannot_be_read_the_others_are_counted_in_the_end(
    error: type[RelayError],
) -> None:
    """They lie before all others, and more than a run looks at; nothing is said to be counted that was not."""
    w, bounds = Applications(), Bounds(batches=4)
    for number in range(20):
        w.drops.put(f"{INBOX}0000/{number}.json.gz", b"x", "text/plain")
    for number in range(6):
        w.collect(w.sent(record(f"{number}")))

    def trouble(call: str, *arguments: Any) -> Exception | None:  # noqa: ANN401 -- of a port
        forbidden = call == "open" and arguments[0].key.startswith(f"{INBOX}0000/")
        return error("may not be read") if forbidden else None

    ports = replace(w.ports, drops=Broken(w.drops, trouble))
    runs = 0
    while len(w.inbox()) > 20:
        runs += 1
        assert runs < 100
        with pytest.raises(error):
            w.merge(ports, bounds)
    assert w.totals("orders") == {(DAY, "search"): Decimal(6)}
    for key in w.inbox():
        w.drops.remove(key)
    assert w.check() == Counter({"in": 6, "owed": 6})


# --- a deletion that waits for its turn -------------------------------------------------------------------------------


@pytest.mark.parametrize("erases", ["periods", "stream"])
def test_while_a_deletion_of_its_stream_waits_nothing_is_counted_and_the_others_are(erases: str) -> None:
    """A total would bring back what is about to be deleted, or be judged by a shape that is about to be free."""
    w = Applications()
    w.run(record("a", 1), record("a", 1, stream="visits"))
    order = file_order(w)
    w.delete(erases)
    monthly = {"granularity": "MONTHLY"} if erases == "stream" else {}
    for run in range(3):
        w.collect(w.sent(record(f"b{run}", 2, **monthly), record(f"b{run}", 4, stream="visits"), "no JSON"))
        w.collect(w.sent(record(f"c{run}", 8, **monthly)))
        assert {delivery.target for delivery in w.merge()} == {"", "telemetry/visits"}
        assert len(w.inbox()) == run + 1
        assert all(waiting_stream(key) == "orders" for key in w.inbox())
    if erases == "stream":
        taken(w, emptied=order)
    else:
        book, (period,) = Book(), {ident.period for ident in w.lines(w.deliveries("orders")[0])}
        change(book, Verb.DELETE, [Line(period, (), Decimal(0), 1, 1)], order)
        taken(w, pages={"2026-03-01": put_page(w.ports, "a page", book.closed())})
    w.deleted()
    (delivery,) = w.merge()
    assert [value for value, _ in w.lines(delivery).values()] == [30]
    assert (delivery.rows.owed, delivery.rows.rejected) == (6, 0)
    assert w.totals("visits") == {(DAY, "search"): Decimal(13)}
    assert w.check() == Counter({"in": 7, "owed": 7})


def test_what_waits_for_a_deletion_is_not_read_again_and_again() -> None:
    w, opened = Applications(), list[str]()
    w.delete()
    w.collect(w.sent(record("a")))
    w.merge()

    def seen(call: str, *_: object) -> None:
        opened.append(call)

    w.merge(replace(w.ports, drops=Broken(w.drops, seen)))
    assert set(opened) == {"listing"}


def test_a_deletion_that_comes_while_its_streams_records_are_read_is_waited_for() -> None:
    w = Applications()

    def comes(call: str, name: object, *_: object) -> None:
        if call == "record" and name == stream_name("orders"):
            w.delete()

    w.collect(w.sent(record("a")))
    assert w.merge(replace(w.ports, ledger=Broken(w.ledger, comes))) == []
    w.deleted()
    w.merge()
    assert w.check() == Counter({"in": 1, "owed": 1})


def test_a_deletion_that_ends_while_its_stream_is_looked_at_deletes_what_came_before_it() -> None:
    """Whether one waits is asked before what it has done is read, or it would be neither waiting nor done."""
    w = Applications()
    w.run(record("a", 1))
    order = file_order(w)
    w.delete("stream")

    def ends(call: str, name: object, *_: object) -> None:
        if call == "record" and name == stream_name("orders"):
            w.deleted()

    def done(call: str, name: object, *_: object) -> None:
        if call == "target" and name == "telemetry/orders" and not w.ledger.record(stream_name("orders")).version:
            taken(w, emptied=order)
            w.deleted()

    w.collect(w.sent(record("b", 2)))
    for happens in (ends, done):
        w.merge(replace(w.ports, ledger=Broken(w.ledger, happens)))
        w.delete("stream")
    w.deleted()
    w.merge()
    assert w.totals("orders") == {(DAY, "search"): Decimal(2)}
    w.check()


def test_what_a_dead_run_has_counted_is_handed_over_while_a_deletion_waits() -> None:
    """It was counted before, and is behind the deletion in any case."""
    w = Applications()
    w.collect(w.sent(record("a", 1)))
    with pytest.raises(SimulatedCrash):
        w.merge(replace(w.ports, queue=Fragile(Fuse(1), "queue", w.queue)))
    w.delete()
    (delivery,) = w.run(record("b", 2))
    assert delivery.rows.in_ == 1
    assert [waiting_stream(key) for key in w.inbox()] == ["orders"]
    w.deleted()
    w.merge()
    assert w.totals("orders") == {(DAY, "search"): Decimal(3)}
    w.check()


# --- crashes, and two runs at once ------------------------------------------------------------------------------------

FIRST = [
    record("a", 1),
    record("b", 2, team="ads"),
    record("a", 10, stream="visits"),
    record("x", 0),
    "no JSON",
    record("c", 4, timestamp="2026-03-02T01:00:00Z"),
]
SECOND = [record("a", 1), record("d", 8), record("b", 20, stream="visits")]
THIRD = [record("e", 16, timestamp="2026-03-01T00:00:00Z"), record("d", 8), record("a", 10, stream="visits")]
"""Late, and repeated."""
GOOD = [each for each in (*FIRST, *SECOND, *THIRD) if isinstance(each, dict) and each["value"]]
BAD = {"message-4", "message-5"}


@dataclass
class Life:
    """The life of three batches and two runs, with one event in it."""

    fuse: Fuse
    again: Callable[[list[Sent]], list[list[Sent]]] = lambda messages: [messages]
    """In which batches the messages of a dead function come again."""
    w: Applications = field(default_factory=Applications)

    def run(self) -> Applications:
        """Live it; return the world once nothing is left to do."""
        first, second, third = (self.w.sent(*messages) for messages in (FIRST, SECOND, THIRD))
        self.collected(first)
        self.collected(second)
        self.merged()
        self.collected(third)
        for _ in range(10):
            self.merged()
            if not self.w.inbox():
                return self.w
        raise AssertionError("it does not end")

    @property
    def ports(self) -> Any:  # noqa: ANN401 -- ports
        """The ports behind the fuse."""
        return self.w.with_ports(lambda name, port: Fragile(self.fuse, name, port))

    def collected(self, messages: list[Sent]) -> None:
        """Collect a batch; after a crash the queue gives its messages out again."""
        try:
            self.w.collect(messages, self.ports)
        except SimulatedCrash:
            self.fuse.mend()
            for batch in self.again(messages):
                self.w.collect(batch)

    def merged(self) -> None:
        """Count; after a crash or behind another run the next schedule does."""
        try:
            self.w.merge(self.ports)
        except SimulatedCrash:
            self.fuse.mend()
        except LedgerConflict:
            pass


def judged(w: Applications) -> dict[str, Counter[str]]:
    """Check that a life has come to the truth; return the rows of each stream."""
    rows = {}
    for stream in ("orders", "visits"):
        assert w.totals(stream) == truth(GOOD, stream)
        rows[stream] = w.check(stream)
        assert rows[stream]["owed"] == len({each["id"] for each in GOOD if each["stream"] == stream})
    rows[""] = w.check("")
    named = {row["message_id"] for each in w.deliveries() if each.rejected_rows for row in w.rejected(each)}
    assert named == BAD
    return rows


def calls() -> list[str]:
    """Return the calls of an undisturbed life."""
    life = Life(Fuse())
    assert judged(life.run()) == {
        "orders": Counter({"in": 8, "owed": 5, "filtered": 2, "rejected": 1}),
        "visits": Counter({"in": 3, "owed": 2, "filtered": 1}),
        "": Counter({"in": 1, "rejected": 1}),
    }
    return life.fuse.calls


CALLS = range(1, len(calls()) + 1)


def test_the_calls_are_those_that_are_thought_of() -> None:
    assert {
        "drops.put",
        "drops.listing.next",
        "drops.open.exit",
        "drops.writer.exit",
        "drops.remove",
        "spool.writer.exit",
        "spool.release",
        "ledger.save",
        "ledger.save_record",
        "ledger.save_target",
        "queue.send",
        "bus.announce",
    } <= set(calls())


@pytest.mark.parametrize("at", CALLS)
def test_a_crash_anywhere_loses_nothing_and_doubles_nothing(at: int) -> None:
    """Row 2, Row 14: collecting and counting, at every call of a port."""
    rows = judged(Life(Fuse(at)).run())
    assert rows["orders"]["rejected"] == rows[""]["rejected"] == 1


@pytest.mark.parametrize("at", range(1, 4))
def test_messages_that_come_again_in_other_batches_count_once(at: int) -> None:
    """Row 4: the object was written, the function died, and the queue gives the messages out in another company."""
    fuse = Fuse(at)
    life = Life(fuse, lambda messages: [messages[:2], [*messages[1:], *messages[4:]], messages])
    judged(life.run())


def test_what_was_handed_over_long_ago_is_not_so_again_when_a_run_dies_that_puts_records_apart() -> None:
    """The ledger has forgotten the delivery since: it would be made anew, and its records are gone."""
    w = Applications()
    (old,) = w.run(record("a", 1))
    del w.ledger.items[f"delivery#{old.id}"]
    w.delete()
    w.collect(w.sent(record("b", 2)))
    with pytest.raises(SimulatedCrash):
        w.merge(replace(w.ports, drops=Fragile(Fuse(1), "drops", w.drops, frozenset({"remove"}))))
    assert len(w.inbox()) == 2
    assert w.merge() == []
    assert [waiting_stream(key) for key in w.inbox()] == ["orders"]
    w.deleted()
    (delivery,) = w.merge()
    assert (delivery.rows.owed, delivery.rows.filtered) == (1, 0)
    assert w.deliveries() == [w.ledger.delivery(delivery.id)]


@dataclass
class Deleting(Life):
    """The same life, while a deletion waits that has deleted nothing in the end."""

    def run(self) -> Applications:
        """Live it."""
        self.w.delete()
        first, second, third = (self.w.sent(*messages) for messages in (FIRST, SECOND, THIRD))
        self.collected(first)
        self.merged()
        self.collected(second)
        self.merged()
        self.w.deleted()
        self.collected(third)
        for _ in range(10):
            self.merged()
            if not self.w.inbox():
                return self.w
        raise AssertionError("it does not end")


def deleting_calls() -> int:
    """Return how many calls such a life has."""
    life = Deleting(Fuse())
    assert judged(life.run())["orders"] == Counter({"in": 8, "owed": 5, "filtered": 2, "rejected": 1})
    return len(life.fuse.calls)


DELETING_CALLS = range(1, deleting_calls() + 1)


@pytest.mark.parametrize("at", DELETING_CALLS)
def test_a_crash_while_records_are_put_apart_loses_nothing_and_doubles_nothing(at: int) -> None:
    """Row 2: they may lie there twice then."""
    judged(Deleting(Fuse(at)).run())


@pytest.mark.parametrize("dies", [False, True], ids=["lives", "dies"])
@pytest.mark.parametrize("at", DELETING_CALLS)
def test_records_that_another_run_counts_while_they_are_put_apart_count_once(at: int, dies: bool) -> None:  # noqa: FBT001 -- a parameter
    """Row 15: the deletion has ended in between. Should the other one die, its batches must be where they were."""
    fuse = Meanwhile(at)
    life = Deleting(fuse)

    def other() -> None:
        life.w.deleted()
        w = life.w
        queue = Fragile(Fuse(1 if dies else 0), "queue", w.queue)
        try:
            w.merge(replace(w.ports, queue=queue))
        except SimulatedCrash:
            assert dies

    fuse.other = other
    judged(life.run())


@settings(max_examples=60)
@given(st.data())
def test_a_crash_in_the_run_after_a_crash_loses_nothing_and_doubles_nothing(data: st.DataObject) -> None:
    """Row 2: what is mended may break again at once."""
    fuse = Fuses(data.draw(st.lists(st.sampled_from(CALLS), min_size=2, max_size=4)))
    rows = judged(Life(fuse).run())
    assert rows["orders"]["rejected"] == rows[""]["rejected"] == 1


@dataclass
class Fuses(Fuse):
    """Fuses one behind the other: each counts the calls since the last one blew."""

    more: list[int] = field(default_factory=list)

    def __init__(self, more: list[int]) -> None:
        super().__init__(more[0])
        self.more = more[1:]

    def mend(self) -> None:
        """Begin another process, which lives for so many calls."""
        super().mend()
        self.calls.clear()
        self.at = self.more.pop(0) if self.more else 0


@pytest.mark.parametrize("more", [True, False], ids=["with-more", "with-the-same"])
@pytest.mark.parametrize("at", CALLS)
def test_two_runs_at_once_count_everything_once(at: int, more: bool) -> None:  # noqa: FBT001 -- a parameter
    """Row 15: another run does all its work at one moment of the first one; perhaps with a batch that has just come."""
    fuse = Meanwhile(at)
    life = Life(fuse)
    sent = [EXTRA] if more else []

    def other() -> None:
        fuse.met = True
        if sent:
            life.w.collect([Sent("extra", json.dumps(EXTRA), 0)])
        life.w.merge()

    fuse.other = other
    w = life.run()
    assert fuse.met
    assert w.totals("orders") == truth([*GOOD, *sent], "orders")
    assert w.totals("visits") == truth(GOOD, "visits")
    assert w.check()["owed"] == len({each["id"] for each in (*GOOD, *sent) if each["stream"] == "orders"})
    assert w.check("visits")["owed"] == len({each["id"] for each in GOOD if each["stream"] == "visits"})
    w.check("")


EXTRA = record("extra", 32)


@dataclass
class Meanwhile(Fuse):
    """Lets something else happen before the n-th call, instead of a crash."""

    other: Callable[[], None] = lambda: None
    met: bool = False

    def tick(self, name: str) -> None:
        """Count a call."""
        self.calls.append(name)
        if len(self.calls) == self.at:
            self.other()


# --- whatever the queue does ------------------------------------------------------------------------------------------


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[list[int]], list[bool]]:
    """Draw records, the batches that they come in (each record at least once), and after which ones there is a run."""
    count = draw(st.integers(1, 12))
    records = [
        record(
            f"{draw(st.integers(0, 8))}",
            stream=draw(st.sampled_from(["orders", "visits"])),
            timestamp=draw(st.sampled_from(["2026-03-01T05:00:00Z", "2026-03-02T05:00:00Z"])),
        )
        for _ in range(count)
    ]
    # What has one id says one thing: else the order would decide, and the queue keeps none.
    for each in records:
        said = f"{each['stream']}/{each['timestamp']}/{each['id']}"
        each["dimensions"] = {"team": ["search", "ads"][len(said) % 2]}
        each["value"] = 1 + int(each["id"])
    order = draw(st.permutations([*range(count), *draw(st.lists(st.integers(0, count - 1), max_size=10))]))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=6)) | {0, len(order)})
    batches = [list(order[a:b]) for a, b in pairwise(cuts)]
    return records, batches, [draw(st.booleans()) for _ in batches]


@settings(max_examples=150)
@given(schedules(), st.sampled_from(["live", "openapi"]))
def test_however_records_are_cut_into_batches_and_runs_their_totals_are_the_same(
    schedule: tuple[list[dict[str, Any]], list[list[int]], list[bool]], contract: str
) -> None:
    records, batches, runs = schedule
    w = Applications(contract=contract)
    for batch, run in zip(batches, runs, strict=True):
        w.collect(w.sent(*(records[number] for number in batch)))
        if run:
            w.merge()
    w.merge()
    for stream in ("orders", "visits"):
        mine = [each for each in records if each["stream"] == stream]
        expected = Counter[tuple[str, str]]()
        for each in {(each["timestamp"], each["id"]): each for each in mine}.values():
            expected[f"{each['timestamp'][:10]}T00", each["dimensions"]["team"]] += each["value"]
        assert w.totals(stream) == expected
        rows = w.check(stream)
        assert rows["in"] == sum(records[number]["stream"] == stream for batch in batches for number in batch)
        assert rows["rejected"] == rows["accepted"] == 0


# --- over AWS's own interfaces ----------------------------------------------------------------------------------------


def test_one_life_over_the_real_ports() -> None:
    """What is written is read again as it was, and what was counted leaves the inbox, but not the bucket's versions."""
    with aws() as parts:
        w = Aws(**parts)
        given = Applications()
        tenant = Tenant("https://api.example.com", "live")
        for batch in (FIRST, SECOND):
            key = collect(given.sent(*batch), w.ports)
        first = merge(w.ports, DROPS, tenant)
        assert w.keys(DROPS, INBOX) == []
        assert w.s3.list_object_versions(Bucket=DROPS, Prefix=key)["Versions"]
        w.time[0] += timedelta(minutes=5)
        collect(given.sent(*THIRD), w.ports)
        second = merge(w.ports, DROPS, tenant)
        assert merge(w.ports, DROPS, tenant) == []
        assert len(w.queued()) == sum(delivery.stage == "queued" for delivery in (*first, *second)) == 3
        found: dict[tuple[str, ...], Decimal] = {}
        for delivery in (*first, *second):
            assert w.receipt(delivery)["rows"] == delivery.rows.model_dump(by_alias=True)
            if delivery.work["stream"] == "orders":
                for day in delivery.work["days"]:
                    found |= {(f"{day}T00", *line.labels): line.value for line in lines_of(w.ports, delivery.id, day)}
        assert found == truth(GOOD, "orders")


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A process of the function, and a client that sees what it has written."""
    variables = {
        "AWS_DEFAULT_REGION": REGION,
        "POWERTOOLS_SERVICE_NAME": "telemetry-collect",
        "POWERTOOLS_METRICS_NAMESPACE": "FinOpsRelay",
        "LEDGER_TABLE": "ledger",
        "DROPS_BUCKET": DROPS,
        "SPOOL_BUCKET": SPOOL,
        "BUS_NAME": "deliveries",
        "QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/1/telemetry-collect",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        _boto_client.cache_clear()
        relay.cache_clear()
        yield _boto_client("s3")
    _boto_client.cache_clear()
    relay.cache_clear()


def invoke(event: dict[str, Any]) -> None:
    """Call the handler; whatever it raises makes Lambda return every message."""
    context = SimpleNamespace(aws_request_id="r", get_remaining_time_in_millis=lambda: 60_000)
    telemetry_collect.lambda_handler(event, cast("Context", context))


def recorded(name: str) -> dict[str, Any]:
    """Return a recorded event of the function."""
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return event


@pytest.mark.parametrize("name", ["records", "not_json"])
def test_a_recorded_batch_becomes_one_object_and_needs_nothing_but_the_bucket(function: Any, name: str) -> None:  # noqa: ANN401 -- boto3's client
    """No ledger is there, and no queue is asked."""
    function.create_bucket(Bucket=DROPS, CreateBucketConfiguration={"LocationConstraint": REGION})
    event = recorded(name)
    invoke(event)
    invoke(event)  # the same messages once more
    (entry,) = function.list_objects_v2(Bucket=DROPS)["Contents"]
    assert entry["Key"].startswith(f"{INBOX}2026-03-01/")
    messages, _ = batch_of(relay().ports(CLOCK, Counters()), ObjectVersion(DROPS, entry["Key"]))
    assert messages == [Received(each["messageId"], each["body"]) for each in event["Records"]]


def test_a_batch_that_cannot_be_written_fails_the_function_so_that_all_of_it_comes_back(function: Any) -> None:  # noqa: ANN401 -- boto3's client
    """Row 9: nothing is acknowledged that is not kept, and Lambda counts the error, which rings."""
    with pytest.raises(ClientError):
        invoke(recorded("records"))  # and there is no bucket
    assert function.list_buckets()["Buckets"] == []

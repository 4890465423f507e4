"""CloudZero in trouble while it takes telemetry: slow, down, refusing, or silent after it has acted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast

import pytest
from finops_relay.delivery.ledger import MAX_ATTEMPTS, Delivery
from finops_relay.errors import ShortRead, Wait

from local.standins.cloudzero import KEY, CloudZeroStandIn
from tests.world.crashes import Fuse, SimulatedCrash
from tests.world.telemetry import REPLACES, SUMS, Telemetry, folder, metric, telemetry

ABC = metric(("01T00", "1", "a"), ("01T00", "2", "b"), ("02T00", "4", "c"))
HELD = {"01T00 a": Decimal(1), "01T00 b": Decimal(2), "02T00 c": Decimal(4)}


@pytest.fixture(scope="module")
def vendors() -> Iterator[dict[str, CloudZeroStandIn]]:
    with CloudZeroStandIn("live") as live, CloudZeroStandIn("openapi") as openapi:
        yield {"live": live, "openapi": openapi}


@pytest.fixture(params=["live", "openapi"])
def w(request: pytest.FixtureRequest, vendors: dict[str, CloudZeroStandIn]) -> Iterator[Telemetry]:
    with telemetry(request.param, vendors[request.param]) as found:
        yield found


def replacing(w: Telemetry, kind: str, times: int = 1, after: int = 0, **facts: Any) -> None:  # noqa: ANN401 -- the fault's
    """Order a fault where a metric's records are replaced."""
    w.fault(kind, times, REPLACES[w.contract], after, **facts)


def adding(w: Telemetry, kind: str, times: int = 1, after: int = 0, **facts: Any) -> None:  # noqa: ANN401 -- the fault's
    """Order a fault where a metric's records are added."""
    w.fault(kind, times, SUMS[w.contract][0], after, **facts)


def outcome(w: Telemetry, delivery: Delivery, expected: str = "delivered") -> dict[str, Any]:
    """Check how a delivery ended; return its receipt."""
    receipt = w.receipt(delivery)
    assert receipt["outcome"] == expected, (receipt["reason"], receipt["warnings"])
    return receipt


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("verb", ["replace", "sum"])
def test_a_named_wait_is_kept_and_the_records_are_sent_again(w: Telemetry, status: int, verb: str) -> None:
    """Row 8: 429 and 503 "slow down" say that nothing was taken, also of what adds."""
    (replacing if verb == "replace" else adding)(w, "status", status=status, headers={"Retry-After": "1234"})
    outcome(w, w.finish(w.dropped("s", ABC, verb).id))
    assert [wait.seconds for wait in w.waited] == [1234]
    assert w.values("s") == HELD


@pytest.mark.parametrize("kind", ["lost_answer", "half_body", "reset"])
def test_what_replaces_is_repeated_whether_it_arrived_or_not(w: Telemetry, kind: str) -> None:
    """Row 10: after a lost answer the same values are set once more; nothing is counted twice."""
    w.deliver_records("s", metric(("01T00", "9", "a"), ("01T00", "8", "z")))
    replacing(w, kind, times=2)
    outcome(w, w.finish(w.dropped("s", ABC, name="b.csv").id))
    assert w.values("s") == HELD | {"01T00 z": Decimal(8)}


@pytest.mark.parametrize(("kind", "arrived"), [("lost_answer", True), ("reset", False), ("lost_answer_status", True)])
def test_what_adds_and_is_in_doubt_is_held_and_never_repeated(w: Telemetry, kind: str, arrived: bool) -> None:  # noqa: FBT001 -- a parameter
    """Row 10: nobody knows whether a lost body counts; a person looks, and decides truly."""
    adding(w, kind, **({"status": 500} if kind == "lost_answer_status" else {}))
    held = w.finish(w.dropped("s", ABC, "sum").id)
    receipt = outcome(w, held, "held")
    assert "nobody knows whether CloudZero has taken body 1" in receipt["reason"]
    assert [unit["status"] for unit in receipt["units"]] == ["in doubt"]
    assert receipt["rows"]["owed"] == 3
    assert w.values("s") == (HELD if arrived else {})
    done = outcome(w, w.decide(held, "mark as arrived" if arrived else "send"))
    assert done["rows"]["accepted"] == 3
    assert done["usage"] == {"in": "7", "sent": "7"}
    assert w.values("s") == HELD
    # And the book agrees, for whatever is told whole next.
    w.deliver_records("s", metric(("01T00", "5", "b")), name="c.csv")
    assert w.values("s") == HELD | {"01T00 b": Decimal(5)}


def test_a_held_stream_holds_up_its_own_deliveries_only_and_they_say_so(w: Telemetry) -> None:
    """Row 15: one at a time for a stream; another stream goes on."""
    adding(w, "lost_answer")
    held = w.finish(w.dropped("s", ABC, "sum").id)
    behind = w.dropped("s", ABC, name="b.csv")
    assert f"behind delivery {held.id}" in w.receipt(behind)["reason"]
    with pytest.raises(Wait):
        w.step(behind.id)
    outcome(w, w.deliver_records("other", ABC))
    outcome(w, w.decide(held, "drop"), "rejected")
    outcome(w, w.finish(behind.id))
    assert w.values("s") == HELD


def test_a_body_that_is_too_large_is_sent_in_parts(w: Telemetry) -> None:
    """Row 11: 413 says that nothing was taken; the records go in smaller bodies, each period whole."""
    w.deliver_records("s", metric(("01T00", "9", "a"), ("01T00", "8", "z")))
    replacing(w, "status", status=413)
    receipt = outcome(w, w.finish(w.dropped("s", ABC, name="b.csv").id))
    assert len(receipt["units"]) > 1
    assert w.values("s") == HELD | {"01T00 z": Decimal(8)}


def test_a_record_that_is_refused_is_named_with_its_rows_and_the_others_go(w: Telemetry) -> None:
    """Row 11: the body is halved down to the record; what the stream held of it stays."""
    w.deliver_records("s", metric(("01T00", "9", "a"), ("01T00", "8", "b")))
    replacing(w, "status", times=1, status=400, body={"message": "no such team"})
    replacing(w, "status", times=1, status=400, body={"message": "no such team"})
    body = metric(("01T00", "1", "a"), ("01T00", "1", "a"), ("01T00", "2", "b"))
    done = w.finish(w.dropped("s", body, name="b.csv").id)
    receipt = outcome(w, done, "partly_delivered")
    assert receipt["rows"] == {"in": 3, "accepted": 1, "filtered": 0, "rejected": 2, "owed": 0}
    assert "no such team" in w.rejected(done)
    assert len(w.rejected(done).splitlines()) == 3
    assert w.values("s") == {"01T00 a": Decimal(9), "01T00 b": Decimal(2)}
    # Mended, the record goes whole.
    mended = w.deliver_file(f"{folder('s')}mended/{done.id}.csv", w.rejected(done).encode())
    outcome(w, mended)
    assert w.values("s") == {"01T00 a": Decimal(2), "01T00 b": Decimal(2)}


def test_a_vendor_that_takes_no_record_at_all_ends_the_delivery(w: Telemetry) -> None:
    """Row 11: then it is not the records; the advice names the contract."""
    replacing(w, "status", times=500, status=400, body={"message": "no"})
    rows = [("01T00", "1", f"team-{number}") for number in range(40)]
    receipt = outcome(w, w.finish(w.dropped("s", metric(*rows)).id), "failed")
    assert "check CLOUDZERO_CONTRACT" in receipt["reason"]
    assert receipt["rows"]["in"] == 40


def test_after_a_delivery_that_failed_nothing_is_taken_for_unchanged(w: Telemetry) -> None:
    """Row 14: the former values are sent again, for nobody knows what the failed delivery has changed."""
    w.deliver_records("s", metric(("01T00", "1", "a")))
    delivery = w.dropped("s", metric(("01T00", "5", "a")))
    replacing(w, "lost_answer")
    replacing(w, "status", status=404)
    assert w.finish(delivery.id).outcome == "failed"
    assert w.values("s") != {"01T00 a": Decimal(1)}
    again = w.deliver_records("s", metric(("01T00", "1", "a")), name="c.csv")
    outcome(w, again)
    assert w.values("s") == {"01T00 a": Decimal(1)}


def test_a_key_that_is_refused_waits_and_goes_on_once_it_is_mended(w: Telemetry) -> None:
    """Row 12: the secret is read once more, then the delivery waits, and nobody has to do anything afterwards."""
    delivery = w.dropped("s", ABC)
    w.key[0] = "wrong"
    with pytest.raises(Wait):
        w.step(delivery.id)
    assert w.receipt(delivery)["outcome"] == "pending"
    w.key[0] = KEY
    outcome(w, w.finish(delivery.id))
    assert w.values("s") == HELD


def test_too_many_records_at_once_wait_for_the_pace(vendors: dict[str, CloudZeroStandIn]) -> None:
    """Row 8: a stream takes a day's worth at once and 100 records a second after that; a message waits for it."""
    with telemetry("live", vendors["live"]) as w:
        w.deliver_records("s", ABC)
        record = w.ledger.record("stream#s")
        spent = record.content | {"spent": 8_640_000.0, "spent_at": w.time[0].isoformat()}
        w.ledger.save_record(record.but(content=spent))
        done = w.finish(w.dropped("s", metric(("05T00", "1", "a"), ("05T00", "2", "b")), name="b.csv").id)
        outcome(w, done)
        assert 0 < w.waited[-1].seconds <= 1
        assert "pace" in w.waited[-1].why


def test_a_stream_that_is_being_deleted_is_waited_for(vendors: dict[str, CloudZeroStandIn]) -> None:
    """Under `live` a deletion takes a while; until it is done CloudZero refuses records of that name."""
    with telemetry("live", vendors["live"]) as w:
        w.vendor.configure({"delete_lag_reads": 3})
        w.deliver_records("s", ABC)
        outcome(w, w.deliver_file(f"{folder('s', 'delete')}stream.json", b'{"stream": "s"}'))
        assert len(w.waited) >= 2
        outcome(w, w.deliver_records("s", metric(("01T00", "1"), keys=())))
        w.vendor.configure({"delete_lag_reads": 0})


# --- what was begun and not finished ----------------------------------------------------------------------------------


@pytest.fixture
def openapi(vendors: dict[str, CloudZeroStandIn]) -> Iterator[Telemetry]:
    with telemetry("openapi", vendors["openapi"]) as found:
        yield found


@pytest.fixture
def live(vendors: dict[str, CloudZeroStandIn]) -> Iterator[Telemetry]:
    with telemetry("live", vendors["live"]) as found:
        yield found


FORMER = metric(("01T00", "1", "a"), ("01T00", "2", "b"))


def test_a_period_that_was_deleted_and_refused_is_told_again_by_the_former_file(openapi: Telemetry) -> None:
    """Row 11, Row 14: what the book has is not taken for what is there, once its period was deleted in vain."""
    w = openapi
    w.deliver_records("s", FORMER)
    replacing(w, "status", times=1, status=404)  # of the addition; the deletion before it was done
    outcome(w, w.deliver_records("s", metric(("01T00", "9", "a")), name="b.csv"), "failed")
    assert w.values("s") == {}
    outcome(w, w.deliver_records("s", FORMER))
    assert w.values("s") == {"01T00 a": Decimal(1), "01T00 b": Decimal(2)}


def test_a_deletion_that_ended_half_way_leaves_nothing_to_be_taken_for_unchanged(openapi: Telemetry) -> None:
    """Row 14: one of two periods is gone; the former file brings it back."""
    w = openapi
    both = metric(("01T00", "1", "a"), ("02T00", "2", "a"))
    w.deliver_records("s", both)
    w.fault("status", 1, "deleteMetricTelemetry", 1, status=400, body={"message": "no"})
    gone = b"timestamp,granularity\n2026-03-01T00:00:00Z,DAILY\n2026-03-02T00:00:00Z,DAILY\n"
    receipt = outcome(w, w.deliver_records("s", gone, "delete"), "failed")
    assert "drop delete/stream.json" in receipt["reason"]
    assert w.values("s") == {"02T00 a": Decimal(2)}
    outcome(w, w.deliver_records("s", both))
    assert w.values("s") == {"01T00 a": Decimal(1), "02T00 a": Decimal(2)}


@pytest.mark.parametrize("value", ["1", "5"])
def test_a_record_that_is_refused_after_its_period_was_deleted_is_not_believed_to_be_there(
    openapi: Telemetry, value: str
) -> None:
    """Row 11: also where it is refused with the value that it had, or its former value is refused, too."""
    w = openapi
    w.deliver_records("s", metric(("01T00", "1", "a")))
    replacing(w, "status", times=2, status=400, body={"message": "no"})
    changed = metric(("01T00", value, "a"), ("02T00", "3", "a"))
    outcome(w, w.deliver_records("s", changed, name="b.csv"), "partly_delivered")
    w.vendor.faults.clear()
    there = "01T00 a" in w.values("s")
    again = w.deliver_records("s", metric(("01T00", "1", "a")), name="c.csv")
    outcome(w, again, "unchanged" if there else "delivered")
    assert w.values("s")["01T00 a"] == Decimal(1)


def test_giving_up_remembers_what_may_have_been_taken_before_the_last_try(w: Telemetry) -> None:
    """Row 23: a lost answer, then a refusal for now, then silence: the former values are sent again when asked for."""
    w.deliver_records("s", metric(("01T00", "1", "a")))
    delivery = w.dropped("s", metric(("01T00", "5", "a")), name="b.csv")
    replacing(w, "lost_answer", times=2)
    replacing(w, "status", times=50, status=429)
    for _ in range(4):
        with suppress(Wait):
            w.step(delivery.id)
    w.vendor.faults.clear()
    for _ in range(MAX_ATTEMPTS):
        with suppress(SimulatedCrash):
            w.step(delivery.id, Fuse(3).ports(w))
    outcome(w, w.finish(delivery.id), "failed")
    outcome(w, w.deliver_records("s", metric(("01T00", "1", "a")), name="c.csv"))
    assert w.values("s") == {"01T00 a": Decimal(1)}


class ShortOnce:
    """A spool whose reads break off, once, after *calls* of them."""

    def __init__(self, spool: Any, calls: int) -> None:  # noqa: ANN401 -- whichever port it is
        self._spool = spool
        self.left = calls

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- likewise
        return getattr(self._spool, name)

    def chunks(self, key: str) -> Iterator[bytes]:
        self.left -= 1
        if self.left == 0:
            raise ShortRead(key)
        yield from self._spool.chunks(key)


@pytest.mark.parametrize("calls", range(1, 14))
def test_a_sum_in_doubt_is_asked_about_whatever_breaks_while_that_is_remembered(w: Telemetry, calls: int) -> None:
    """Row 6, Row 10: a body in doubt is never passed over."""
    w.body_bytes = 250
    delivery = w.dropped("s", ABC, "sum")
    adding(w, "lost_answer", after=1)
    spool = ShortOnce(w.ports.spool, calls)
    ports = replace(w.ports, spool=cast("Any", spool))
    for _ in range(10):
        try:
            found = w.step(delivery.id, ports)
        except Wait:
            continue
        break
    receipt = outcome(w, found, "held")
    assert sum(unit["status"] == "in doubt" for unit in receipt["units"]) == 1
    outcome(w, w.decide(found, "mark as arrived"))
    assert w.values("s") == HELD


def test_a_body_that_deletes_before_it_adds_has_few_periods(openapi: Telemetry) -> None:
    """Row 8: each is a call, and a vendor that asks to slow down has them begun again."""
    rows = [(f"{day:02}T{hour:02}", "1", "a") for day in range(1, 4) for hour in range(24)]
    receipt = outcome(openapi, openapi.deliver_records("s", metric(*rows, granularity="HOURLY")))
    assert [unit["rows"] for unit in receipt["units"]] == [24, 24, 24]


def test_a_total_that_no_contract_can_be_told_is_named_and_the_others_go(w: Telemetry) -> None:
    """Row 11: the rows of the record come back; nothing waits for ever."""
    huge = "9" * 15 + "0" * 15
    body = metric(*[("01T00", huge, "a")] * 12, ("01T00", "2", "b"))
    done = w.deliver_records("s", body)
    receipt = outcome(w, done, "partly_delivered")
    assert (receipt["rows"]["accepted"], receipt["rows"]["rejected"]) == (1, 12)
    assert "more than 30 digits" in w.rejected(done)
    assert w.values("s") == {"01T00 b": Decimal(2)}
    outcome(w, w.deliver_records("s", metric(("01T00", "3", "b")), name="b.csv"))


def test_a_stream_is_gone_even_where_nobody_may_look(live: Telemetry) -> None:
    """Row 12: a key that may write only; the deletion is done, and the next delivery has its turn."""
    live.deliver_records("s", ABC)
    live.fault("status", 500, "getTelemetryRecords", status=403)
    receipt = outcome(live, live.deliver_file(f"{folder('s', 'delete')}stream.json", b'{"stream": "s"}'))
    assert "still to be seen" in str(receipt["warnings"])
    live.vendor.faults.clear()
    outcome(live, live.deliver_records("s", ABC, name="b.csv"))


def test_a_stream_called_metric_can_be_deleted(live: Telemetry) -> None:
    live.deliver_records("metric", ABC)
    outcome(live, live.deliver_file(f"{folder('metric', 'delete')}stream.json", b'{"stream": "metric"}'))
    assert live.streams() == {}


def test_a_stream_that_somebody_deleted_at_the_vendor_is_not_blamed_on_the_rows(openapi: Telemetry) -> None:
    """Row 17: the receipt says what to drop; that done, the file goes."""
    openapi.deliver_records("s", FORMER)
    openapi.client().delete_stream("s")
    receipt = outcome(openapi, openapi.deliver_records("s", ABC, name="b.csv"), "failed")
    assert receipt["rows"]["rejected"] == 0
    assert "drop delete/stream.json" in receipt["reason"]
    outcome(openapi, openapi.deliver_file(f"{folder('s', 'delete')}stream.json", b'{"stream": "s"}'))
    outcome(openapi, openapi.deliver_records("s", ABC, name="c.csv"))
    assert openapi.values("s") == HELD


def test_mended_rows_of_a_sum_are_added_once_though_their_file_comes_again_with_more(w: Telemetry) -> None:
    """Row 10: the second version of the mended file has a row that the first one has added."""
    done = w.deliver_records("s", metric(("01T00", "x", "a"), ("01T00", "y", "a"), ("01T00", "1", "a")), "sum")
    header, first, second = w.rejected(done).splitlines()
    key = f"{folder('s', 'sum')}mended/{done.id}.csv"
    outcome(w, w.deliver_file(key, f"{header}\n{first.replace(',x,', ',4,')}\n".encode()))
    both = f"{header}\n{first.replace(',x,', ',4,')}\n{second.replace(',y,', ',8,')}\n"
    receipt = outcome(w, w.deliver_file(key, both.encode()), "rejected")
    assert "was sent" in receipt["reason"]
    assert w.values("s") == {"01T00 a": Decimal(5)}
    outcome(w, w.deliver_file(key, f"{header}\n{second.replace(',y,', ',8,')}\n".encode()))
    assert w.values("s") == {"01T00 a": Decimal(13)}


def test_records_that_come_after_a_deletion_of_the_stream_are_not_judged_by_what_it_was(w: Telemetry) -> None:
    """Row 4: the deletion waits for its turn; the file behind it may have another shape."""
    w.deliver_records("s", FORMER)
    erasing = w.prepare(w.drop(f"{folder('s', 'delete')}stream.json", b'{"stream": "s"}'))
    assert erasing is not None
    after = w.dropped("s", metric(("01T00", "7", "eu"), keys=("region",)), name="b.csv")
    outcome(w, w.finish(erasing.id))
    outcome(w, w.finish(after.id))
    assert w.values("s") == {"01T00 eu": Decimal(7)}


def test_what_may_be_there_is_deleted_with_its_hour(live: Telemetry) -> None:
    """Row 10: a sum that arrived and was dropped by a person's word is gone once its hour is deleted."""
    adding(live, "lost_answer")
    held = live.finish(live.dropped("h", metric(("01T01", "3", "a"), granularity="HOURLY"), "sum").id)
    outcome(live, live.decide(held, "drop"), "rejected")
    assert live.values("h") == {"01T00 a": Decimal(3)}
    gone = b"timestamp,granularity\n2026-03-01T01:00:00Z,HOURLY\n"
    outcome(live, live.deliver_records("h", gone, "delete"))
    assert live.values("h") == {}


def test_a_deletion_of_what_nobody_knows_says_that_nothing_was_sent(live: Telemetry) -> None:
    gone = b"timestamp,granularity\n2026-03-01T01:00:00Z,HOURLY\n"
    receipt = outcome(live, live.deliver_records("h", gone, "delete"))
    assert "nothing was sent about them" in str(receipt["warnings"])


def test_a_rejected_file_does_not_make_a_stream_newer_than_its_deletion(w: Telemetry) -> None:
    """Row 4: only what has put records there holds up an older deletion of the stream."""
    first, second = w.dropped("s", FORMER), w.dropped("s", metric(("01T00", "1", "x"), keys=("other",)), name="b.csv")
    erasing = w.prepare(replace(w.drop(f"{folder('s', 'delete')}stream.json", b'{"stream": "s"}'), at=first.received))
    assert erasing is not None
    outcome(w, w.finish(first.id))
    outcome(w, w.finish(second.id), "rejected")
    assert second.order > erasing.order > first.order
    outcome(w, w.finish(erasing.id))
    assert w.streams() == {}

"""CloudZero in trouble while it takes telemetry: slow, down, refusing, or silent after it has acted."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from finops_relay.delivery.ledger import Delivery
from finops_relay.errors import Wait

from local.standins.cloudzero import KEY, CloudZeroStandIn
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

"""CloudZero in trouble: slow, down, refusing bodies or rows, or silent after it has acted; under either contract."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from finops_relay.cloudzero.idempotency import HEADER
from finops_relay.delivery.identity import second_group
from finops_relay.delivery.ledger import MAX_ATTEMPTS, Delivery, Record
from finops_relay.delivery.waits import Looks
from finops_relay.errors import LedgerConflict, Wait
from finops_relay.http.client import Timeouts
from finops_relay.jobs.run import UNSETTLED

from local.standins.cloudzero import CONNECTION, KEY
from local.standins.cloudzero_account import Contract
from tests.world.billing import FOLDER, MONTH, POISON, SEND, Billing, PickyStandIn, billing, cbf
from tests.world.crashes import Fuse, SimulatedCrash
from tests.world.relay import LEDGER, SPOOL

A, B, C = ("01T05", "1.5", "EC2"), ("01T06", "2", "S3"), ("01T07", "4", "RDS")
"""Three rows of an hour each."""
FILE = f"{FOLDER}/a.csv"
READ = "getAnyCostBillingDrop"
JUDGE = "validateAnyCostBillingDrop"


@pytest.fixture(scope="module")
def vendors() -> Iterator[dict[str, PickyStandIn]]:
    with PickyStandIn("live") as live, PickyStandIn("openapi") as openapi:
        yield {"live": live, "openapi": openapi}


@pytest.fixture(params=["live", "openapi"])
def w(request: pytest.FixtureRequest, vendors: dict[str, PickyStandIn]) -> Iterator[Billing]:
    with billing(request.param, vendors[request.param]) as found:
        yield found


@pytest.fixture
def live(vendors: dict[str, PickyStandIn]) -> Iterator[Billing]:
    with billing("live", vendors["live"]) as found:
        yield found


@pytest.fixture
def openapi(vendors: dict[str, PickyStandIn]) -> Iterator[Billing]:
    with billing("openapi", vendors["openapi"]) as found:
        yield found


def rows(**counts: int) -> dict[str, int]:
    """Return the counts of a receipt, those not named being 0."""
    found = dict.fromkeys(("in", "accepted", "filtered", "rejected", "owed"), 0)
    return found | {("in" if name == "in_" else name): count for name, count in counts.items()}


def dropped(w: Billing, *costs: tuple[str, str, str], key: str = FILE) -> Delivery:
    """Drop and prepare a file that can be delivered."""
    found = w.prepare(w.drop(key, cbf(*costs)))
    assert found is not None
    assert found.stage == "queued", found.reason
    return found


def in_bodies_of_one_row(w: Billing) -> None:
    """Let a body hold one row only."""
    w.body_bytes = 200 if w.live else 110


def starts(w: Billing) -> list[tuple[str, str, str]]:
    """Return day and hour, cost and service of each row that the vendor holds, as `cbf` takes them."""
    names = ("time/usage_start", "cost/cost", "resource/service") if w.live else ("timestamp", "cost", "service")
    return [(row[names[0]][8:13], row[names[1]], row[names[2]]) for row in w.held().get("rows", [])]


def statuses(w: Billing, delivery: Delivery) -> list[str]:
    """Return the status of each body as the receipt has it."""
    return [unit["status"] for unit in w.receipt(delivery)["units"]]


def sends(w: Billing) -> int:
    """Return how often a body was sent, whatever came of it."""
    return int(w.state()["counts"].get(SEND, 0))


def assert_delivered(w: Billing, delivery: Delivery, *costs: tuple[str, str, str]) -> None:
    """Check that the vendor holds exactly these rows, once, and that the receipt says so."""
    receipt = w.receipt(delivery)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == rows(in_=len(costs), accepted=len(costs))
    assert starts(w) == sorted(costs)
    total = sum((Decimal(cost) for _, cost, _ in costs), Decimal(0))
    assert Decimal(receipt["money"]["sent"]) == Decimal(receipt["money"]["in"]) == w.total() == total


# --- waits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_a_named_wait_is_kept_and_the_body_is_sent_again_under_either_contract(w: Billing, status: int) -> None:
    """Row 8: 429 and 503 say that nothing was taken: the message waits as long as was asked, then the body goes."""
    w.fault("status", status=status, headers={"Retry-After": "1234"})
    done = w.finish(dropped(w, A, B).id)
    assert [wait.seconds for wait in w.waited] == [1234]
    assert_delivered(w, done, A, B)
    assert len(w.posts()) == 1


def test_every_question_to_cloudzero_waits_alike(live: Billing) -> None:
    """Row 8: what is read back and judged keeps a named wait, too, and repeats nothing that was sent."""
    live.fault("status", operation=READ, status=429, headers={"Retry-After": "77"})
    live.fault("status", operation=JUDGE, status=503, headers={"Retry-After": "78"})
    done = live.finish(dropped(live, A, ("01T06", "2", POISON), C).id)
    assert [wait.seconds for wait in live.waited] == [78, 77]
    assert live.receipt(done)["rows"] == rows(in_=3, accepted=2, rejected=1)
    assert starts(live) == [A, C]
    assert len(live.posts()) == 1


def test_waits_without_a_name_grow_to_their_cap(w: Billing) -> None:
    """Row 8: 429s and 503s without ``Retry-After`` lead to waits that double, with jitter, and never exceed the cap."""
    w.fault("status", times=10, status=429)
    w.fault("status", times=10, status=503)
    done = w.finish(dropped(w, A).id)
    seconds = [wait.seconds for wait in w.waited]
    assert len(seconds) == 10  # each message tries twice
    for number, wait in enumerate(seconds):
        longest = min(900, 10 * 2**number)
        assert longest / 2 <= wait <= longest
    assert_delivered(w, done, A)


TROUBLES: dict[str, dict[str, Any]] = {
    "500": {"kind": "status", "status": 500},
    "502 html": {"kind": "html", "status": 502},
    "reset": {"kind": "reset"},
    "half read": {"kind": "half_read"},
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_hours_of_an_outage_end_in_a_delivery_where_bodies_replace(live: Billing, trouble: str) -> None:
    """Row 9: dozens of failures in a row, hours of them, only make the message wait; then each row is there once."""
    live.fault(times=24, **TROUBLES[trouble])
    began = live.time[0]
    done = live.finish(dropped(live, A, B).id)
    assert_delivered(live, done, A, B)
    assert live.time[0] - began > timedelta(minutes=45)  # the shortest that 12 waits with all their jitter can be is 48
    assert live.metrics.counts["VendorTrouble"] == len(live.waited)
    assert "Quarantined" not in live.metrics.counts
    assert "DeliveryHeld" not in live.metrics.counts


@pytest.mark.parametrize("contract", ["live", "openapi"])
def test_nobody_at_home_for_hours_is_waited_for_under_either_contract(contract: Contract) -> None:
    """Row 9: a connection that is refused cannot have brought anything: the delivery waits, and is not held."""
    with billing(contract) as w:
        nobody_at_home(w, dropped(w, A))


def nobody_at_home(w: Billing, delivery: Delivery) -> None:
    """Let the vendor be away for some tries, and then back."""
    port = int(w.vendor.url.rpartition(":")[2])
    w.vendor.stop()
    for _ in range(12):
        with pytest.raises(Wait) as caught:
            w.step(delivery.id)
        w.time[0] += timedelta(seconds=caught.value.seconds)
    receipt = w.receipt(delivery)
    assert receipt["outcome"] == "pending"
    assert "could not reach" in receipt["reason"]
    assert receipt["rows"] == rows(in_=1, owed=1)
    with PickyStandIn(w.vendor.contract, port=port) as w.vendor:
        assert_delivered(w, w.finish(delivery.id), A)


@pytest.mark.parametrize("trouble", ["429", "503"])
def test_an_outage_that_says_that_nothing_was_taken_is_waited_out_where_drops_append(
    openapi: Billing, trouble: str
) -> None:
    """Row 9: an openapi drop is sent as often as it takes, as long as each answer says that it was not taken."""
    openapi.fault("status", times=24, status=int(trouble))
    done = openapi.finish(dropped(openapi, A, B).id)
    assert_delivered(openapi, done, A, B)
    assert len(openapi.posts()) == 1


# --- unknown outcomes -------------------------------------------------------------------------------------------------

UNKNOWN: dict[str, tuple[dict[str, Any], bool]] = {
    "500": ({"kind": "status", "status": 500}, False),
    "502": ({"kind": "html", "status": 502}, False),
    "504": ({"kind": "status", "status": 504}, False),
    "reset": ({"kind": "reset"}, False),
    "half read": ({"kind": "half_read"}, False),
    "lost answer": ({"kind": "lost_answer"}, True),
    "500 after all": ({"kind": "lost_answer_status", "status": 500}, True),
    "504 after all": ({"kind": "lost_answer_status", "status": 504}, True),
}
"""Answers from which nobody can tell whether a body was taken, and whether it was."""


@pytest.mark.parametrize("trouble", UNKNOWN)
def test_a_drop_whose_outcome_is_unknown_is_held_and_never_sent_again(openapi: Billing, trouble: str) -> None:
    """Row 10: where drops append, an unknown outcome is a person's to settle; nothing is sent again by itself."""
    in_bodies_of_one_row(openapi)
    fault, arrived = UNKNOWN[trouble]
    openapi.fault(after=1, **fault)
    delivery = dropped(openapi, A, B, C)
    held = openapi.finish(delivery.id)
    receipt = openapi.receipt(held)
    assert receipt["outcome"] == "held"
    assert receipt["rows"] == rows(in_=3, accepted=1, owed=2)
    assert statuses(openapi, held) == ["accepted", "in doubt", "owed"]
    assert "body 2 (1 rows" in receipt["reason"]
    assert receipt["units"][1]["spool_key"] in receipt["reason"]
    assert openapi.keys(SPOOL, receipt["units"][1]["spool_key"])  # the exact body is there to be compared
    assert f"incoming/release/{held.id}.json" in receipt["next_command"]
    for _ in range(3):
        openapi.time[0] += timedelta(days=1)
        assert openapi.step(delivery.id).outcome == "held"
    assert sends(openapi) == 2
    assert starts(openapi) == ([A, B] if arrived else [A])


def test_an_answer_that_comes_too_late_is_an_unknown_outcome() -> None:
    """Row 10: a time-out of ours says nothing about what was taken."""
    with billing("openapi") as openapi:
        openapi.timeouts = Timeouts(connect_s=1, read_s=0.2, total_s=1)
        openapi.fault("delay", seconds=0.4)
        held = openapi.finish(dropped(openapi, A).id)
        assert openapi.receipt(held)["outcome"] == "held"
        assert sends(openapi) == 1


@pytest.mark.parametrize("trouble", ["lost answer", "reset"])
@pytest.mark.parametrize("decision", ["send", "mark as arrived", "drop"])
def test_each_decision_about_a_body_in_doubt_is_kept(openapi: Billing, decision: str, trouble: str) -> None:
    """Row 10: a person says what became of the body; the rest goes on, but for "drop", which sends no more."""
    in_bodies_of_one_row(openapi)
    fault, arrived = UNKNOWN[trouble]
    openapi.fault(after=1, **fault)
    held = openapi.finish(dropped(openapi, A, B, C).id)
    done = openapi.decide(held, decision)
    receipt = openapi.receipt(done)
    there = [A, *([B] if arrived else [])]
    if decision == "drop":
        assert receipt["outcome"] == "partly_delivered"
        assert receipt["rows"] == rows(in_=3, accepted=1, rejected=2)
        assert "in doubt" in receipt["reason"]
        assert statuses(openapi, done) == ["accepted", "in doubt", "dropped"]
        assert starts(openapi) == there
        assert receipt["money"]["sent"] == "1.5"
        return
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == rows(in_=3, accepted=3)
    assert receipt["money"]["sent"] == "7.5"
    again = [B] if decision == "send" else []
    assert starts(openapi) == sorted([*there, *again, C])
    assert ("taken for arrived" in " ".join(receipt["warnings"])) == (decision == "mark as arrived")


def test_what_is_in_doubt_stays_in_doubt_for_the_next_version_of_the_file(openapi: Billing) -> None:
    """Row 10: after a person has dropped a body in doubt, a new version of its file is held for the same doubt."""
    openapi.fault("lost_answer")
    held = openapi.finish(dropped(openapi, A).id)
    openapi.decide(held, "drop")
    again = openapi.deliver_file(FILE, cbf(A))
    receipt = openapi.receipt(again)
    assert receipt["outcome"] == "held"
    assert f"nobody knows what arrived of delivery {held.id}" in receipt["reason"]
    assert sends(openapi) == 1


@pytest.mark.parametrize("trouble", UNKNOWN)
def test_a_body_that_replaces_is_sent_again_whatever_became_of_it(live: Billing, trouble: str) -> None:
    """Row 10: a repeated replace changes nothing: the second body of three arrives once, whoever lost its answer."""
    in_bodies_of_one_row(live)
    fault, _ = UNKNOWN[trouble]
    live.fault(after=1, times=2, **fault)  # both tries of one message
    done = live.finish(dropped(live, A, B, C, key=f"{FOLDER}/month/a.csv").id)
    assert_delivered(live, done, A, B, C)
    assert live.held()["count"] == 3
    assert Decimal(live.receipt(done)["money"]["difference"]) == 0


def test_a_key_is_kept_only_while_the_outcome_is_unknown(live: Billing) -> None:
    """Row 10: after a lost answer the same key makes the vendor answer as it did; after an error, it is a new one."""
    in_bodies_of_one_row(live)
    live.fault("lost_answer", times=1)
    live.fault("status", after=1, times=2, status=500)
    done = live.finish(dropped(live, A, B).id)
    assert_delivered(live, done, A, B)
    state = live.state()
    # The lost body was answered a second time and not taken a second time; a kept 500 would have come for ever.
    assert state["replays"] == 1
    keys = [post["idempotency_key"] for post in state["posts"]]
    assert len(keys) == len(set(keys)) == 2
    assert all(keys)


def test_the_key_of_a_lost_answer_outlives_the_function(live: Billing) -> None:
    """Row 10, Row 14: a function that ends before it hears an answer asks again with the key that it remembered."""
    delivery = dropped(live, A)
    fuse = AfterSending()
    with pytest.raises(SimulatedCrash):
        live.step(delivery.id, fuse.ports(live), fuse.cloudzero(live))
    assert len(live.posts()) == 1
    done = live.finish(delivery.id)
    assert_delivered(live, done, A)
    assert live.state()["replays"] == 1
    assert len(live.posts()) == 1


def oversized(live: Billing) -> Delivery:
    """Drop an hour that is larger than a body: its second and third body add to it."""
    live.body_bytes = 260
    found = dropped(live, *((("01T05", str(number), "EC2")) for number in range(1, 6)))
    assert [unit.rows for unit in found.units] == [2, 2, 1]
    return found


HOUR = [("01T05", str(number), "EC2") for number in range(1, 6)]


@pytest.mark.parametrize("trouble", ["lost answer", "504 after all"])
def test_the_rest_of_an_hour_whose_answer_was_lost_is_looked_for_and_found(live: Billing, trouble: str) -> None:
    """Row 10: a sum is never repeated: what is read back shows that it arrived, and the delivery goes on."""
    live.vendor.configure({"read_lag_reads": 2})
    delivery = oversized(live)
    live.fault(after=1, **UNKNOWN[trouble][0])
    done = live.finish(delivery.id)
    receipt = live.receipt(done)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == rows(in_=5, accepted=5)
    assert "it was read back and has arrived" in " ".join(receipt["warnings"])
    assert live.modes() == ["replace_hourly", "sum", "sum"]
    assert starts(live) == HOUR
    assert sends(live) == 3


@pytest.mark.parametrize("decision", ["send", "mark as arrived", "drop"])
def test_the_rest_of_an_hour_that_is_not_found_is_held(live: Billing, decision: str) -> None:
    """Row 10: a sum that is not seen for long is a person's to settle; "send" replaces the whole hour."""
    delivery = oversized(live)
    live.fault(after=1, **UNKNOWN["reset"][0])
    held = live.finish(delivery.id)
    receipt = live.receipt(held)
    assert receipt["outcome"] == "held"
    assert receipt["rows"] == rows(in_=5, accepted=2, owed=3)
    assert statuses(live, held) == ["accepted", "in doubt", "owed"]
    assert "body 2 (2 rows)" in receipt["reason"]
    assert sum(wait.seconds for wait in live.waited) >= live.read_back.end_s
    assert sends(live) == 2
    done = live.decide(held, decision)
    receipt = live.receipt(done)
    if decision == "send":
        assert receipt["outcome"] == "delivered", receipt["reason"]
        assert receipt["rows"] == rows(in_=5, accepted=5)
        assert starts(live) == HOUR
        assert receipt["money"]["sent"] == receipt["money"]["read_back"] == "15"
    elif decision == "drop":
        assert receipt["outcome"] == "partly_delivered"
        assert receipt["rows"] == rows(in_=5, accepted=2, rejected=3)
        assert starts(live) == HOUR[:2]
    else:  # the person was wrong: the last body arrives, and what is read back says so
        assert receipt["outcome"] == "held"
        assert "is not what it took" in receipt["reason"]
        assert starts(live) == [*HOUR[:2], HOUR[4]]
        assert live.receipt(live.decide(held, "send"))["outcome"] == "delivered"
        assert starts(live) == HOUR


# --- reading back -----------------------------------------------------------------------------------------------------


def test_what_is_seen_late_is_read_again_before_it_counts(live: Billing) -> None:
    """Row 13: what is read may lag behind what was sent: it is looked at again, after growing waits."""
    live.vendor.configure({"read_lag_reads": 4})
    done = live.finish(dropped(live, A, B).id)
    assert_delivered(live, done, A, B)
    assert [wait.seconds for wait in live.waited] == [10, 20, 40, 80]
    assert all("read back" in wait.why for wait in live.waited)
    assert Decimal(live.receipt(done)["money"]["difference"]) == 0
    assert sends(live) == 1


def by_hand(live: Billing, *costs: tuple[str, str, str], operation: str = "replace_hourly") -> None:
    """Let somebody else send to the connection."""
    data = [
        {"time/usage_start": f"{MONTH}-{start}:00:00Z", "cost/cost": cost, "resource/service": service}
        for start, cost, service in costs
    ]
    body = {"month": f"{MONTH}-01T00:00:00Z", "operation": operation, "data": data}
    url = f"{live.vendor.api_url}/v2/connections/billing/anycost/{CONNECTION}/billing_drops"
    answer = live.wire.post(url, json=body, headers={"authorization": KEY, HEADER: f"by hand {len(live.posts())}"})
    assert answer.status_code == 200, answer.text


def disturbed(live: Billing, *costs: tuple[str, str, str], whole: bool = False) -> Delivery:
    """Return a delivery that is held because somebody else changed its hours right after they were sent."""
    live.vendor.configure({"read_lag_reads": 1})
    key = f"{FOLDER}/month/a.csv" if whole else FILE
    delivery = dropped(live, A, B, key=key)
    with pytest.raises(Wait):
        live.step(delivery.id)
    live.vendor.configure({"read_lag_reads": 0})
    by_hand(live, *costs)
    held = live.finish(delivery.id)
    assert live.receipt(held)["outcome"] == "held"
    return held


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ([("01T05", "9", "EC2")], "1 rows were sent and 1 are shown; cost/cost 1.5 and 9"),
        ([("01T05", "1", "EC2"), ("01T05", "0.5", "S3")], "1 rows were sent and 2 are shown"),
        ([("01T05", "1.51", "EC2")], "cost/cost 1.5 and 1.51"),
    ],
)
def test_what_is_shown_otherwise_for_an_hour_is_held_with_the_figures(
    live: Billing, costs: list[tuple[str, str, str]], words: str
) -> None:
    """Row 13: reading back is bounded: rows or money that stay different hold the delivery, which names them."""
    held = disturbed(live, *costs)
    receipt = live.receipt(held)
    assert words in receipt["reason"]
    assert "the hours 2026-03-01T05:00Z" in receipt["reason"]
    assert receipt["rows"] == rows(in_=2, accepted=2)
    money = receipt["money"]
    assert Decimal(money["read_back"]) - Decimal(money["sent"]) == Decimal(money["difference"])
    assert sum(wait.seconds for wait in live.waited) >= live.read_back.end_s
    assert sends(live) == 2


def test_hours_that_nobody_sent_are_seen_where_the_month_was_replaced(live: Billing) -> None:
    """Row 13: after a whole month, an hour more than was sent is a difference; beside a partial file it is not."""
    held = disturbed(live, ("01T09", "9", "EC2"), whole=True)
    assert "the hours 2026-03-01T09:00Z hold 1 rows that this delivery did not send" in live.receipt(held)["reason"]


@pytest.mark.parametrize("decision", ["send", "mark as arrived", "drop"])
def test_each_decision_about_a_difference_is_kept(live: Billing, decision: str) -> None:
    """Row 13: "send" replaces what is shown, the others leave it; the receipt keeps the difference."""
    held = disturbed(live, ("01T05", "9", "EC2"))
    done = live.decide(held, decision)
    receipt = live.receipt(done)
    if decision == "send":
        assert_delivered(live, done, A, B)
        assert Decimal(receipt["money"]["difference"]) == 0
        return
    assert receipt["outcome"] == ("delivered" if decision == "mark as arrived" else "partly_delivered")
    assert starts(live) == [("01T05", "9", "EC2"), B]
    assert Decimal(receipt["money"]["difference"]) == Decimal("7.5")
    assert "by a person's decision" in receipt["reason"] + " ".join(receipt["warnings"])


def test_less_than_a_cent_between_the_sums_is_the_same(live: Billing) -> None:
    """Row 13: money is compared to the cent: what a vendor's floats make of a sum is no difference."""
    live.vendor.configure({"read_lag_reads": 1})
    delivery = dropped(live, A)
    with pytest.raises(Wait):
        live.step(delivery.id)
    by_hand(live, ("01T05", "1.500000000000001", "EC2"))
    assert live.receipt(live.finish(delivery.id))["outcome"] == "delivered"


# --- refused bodies ---------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_for_cloudzero_is_sent_in_parts(w: Billing) -> None:
    """Row 11: 413 splits the body, between two hours where it can, as often as it takes; every row arrives once."""
    w.fault("status", times=2, status=413, body={"message": "too large"})
    done = w.finish(dropped(w, A, B, C, ("01T08", "8", "EC2")).id)
    assert_delivered(w, done, A, B, C, ("01T08", "8", "EC2"))
    assert [post["rows"] for post in w.posts()] == [1, 1, 2]
    assert [unit["seq"] for unit in w.receipt(done)["units"]] == [1, 2, 3]
    assert w.modes() == ["replace_hourly" if w.live else "append"] * 3
    assert "sent in parts" in " ".join(w.receipt(done)["warnings"])


def test_a_month_that_is_split_is_wiped_once(live: Billing) -> None:
    """Row 11: of the parts of a body that replaces the month, only the first one wipes."""
    live.deliver_file(FILE, cbf(("02T00", "9", "S3")))
    live.fault("status", status=413)
    done = live.finish(dropped(live, A, A, B, key=f"{FOLDER}/month/a.csv").id)
    assert_delivered(live, done, A, A, B)
    assert live.modes()[1:] == ["replace_drop", "replace_hourly"]


def test_an_hour_that_is_split_is_added_to(live: Billing) -> None:
    """Row 11: the second part of one hour must not replace the first."""
    live.fault("status", status=413)
    done = live.finish(dropped(live, A, ("01T05", "2", "S3")).id)
    assert_delivered(live, done, A, ("01T05", "2", "S3"))
    assert live.modes() == ["replace_hourly", "sum"]


def test_a_row_that_is_too_large_alone_is_rejected_by_name(w: Billing) -> None:
    """Row 11: when nothing is left to split, the row is named, and the others are delivered."""
    w.fault("status", times=3, status=413, body={"message": "too large"})
    done = w.finish(dropped(w, A, B, C, ("01T08", "8", "EC2")).id)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "partly_delivered"
    assert receipt["rows"] == rows(in_=4, accepted=3, rejected=1)
    (row,) = named(w, done)
    assert row["line"] == "2"
    assert "too large" in row["error"]
    assert starts(w) == [B, C, ("01T08", "8", "EC2")]


def named(w: Billing, delivery: Delivery) -> list[dict[str, str]]:
    """Return the rows of the file of rejected rows."""
    return list(csv.DictReader(io.StringIO(w.rejected(delivery))))


def test_rows_that_cloudzero_refuses_are_named_and_the_others_delivered(w: Billing) -> None:
    """Row 11: 400 leads to the offending rows, which are named with the columns that they came in."""
    costs = [(f"01T{hour:02}", str(hour), POISON if hour in {3, 7} else "EC2") for hour in range(10)]
    done = w.finish(dropped(w, *costs).id)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "partly_delivered", receipt["reason"]
    assert receipt["rows"] == rows(in_=10, accepted=8, rejected=2)
    assert [(row["line"], row["cost/cost"], row["resource/service"]) for row in named(w, done)] == [
        ("5", "3", POISON),
        ("9", "7", POISON),
    ]
    assert all("nobody knows the service poison" in row["error"] for row in named(w, done))
    assert all(row["fix"] for row in named(w, done))
    assert f"{FOLDER}/mended/{done.id}.csv" in receipt["next_command"]
    assert starts(w) == [row for row in costs if row[2] != POISON]
    assert (receipt["money"]["in"], receipt["money"]["sent"]) == ("45", "35")
    assert receipt["money"]["rejected"] == "10"
    if w.live:
        assert len(w.posts()) == 1  # the rows were found by asking, not by sending parts
        assert receipt["money"]["read_back"] == "35"


def test_rows_that_we_refuse_and_rows_that_cloudzero_refuses_stand_in_one_file(w: Billing) -> None:
    """Row 11: the file of rejected rows is written anew with both kinds, in the order of the source."""
    done = w.finish(dropped(w, A, ("01T06", "2", POISON), ("01T07", "?", "S3"), C).id)
    assert w.receipt(done)["rows"] == rows(in_=4, accepted=2, rejected=2)
    assert [row["line"] for row in named(w, done)] == ["3", "4"]
    assert starts(w) == [A, C]


def test_a_month_whose_every_row_is_refused_is_rejected_and_wipes_nothing(w: Billing) -> None:
    """Row 11: a body of which no row is left is not sent: an empty one would wipe the month."""
    w.deliver_file(FILE, cbf(A))
    done = w.finish(dropped(w, ("01T05", "2", POISON), ("01T06", "3", POISON), key=f"{FOLDER}/month/a.csv").id)
    if not w.live:  # the month's hour 05 is another one now
        done = w.decide(done, "send")
    receipt = w.receipt(done)
    assert receipt["outcome"] == "rejected", receipt["reason"]
    assert receipt["rows"] == rows(in_=2, rejected=2)
    assert len(named(w, done)) == 2
    assert starts(w) == [A]


def test_what_the_first_body_would_have_wiped_the_next_one_wipes(live: Billing) -> None:
    """Row 11: when all rows of the body that replaces the month are refused, the next body replaces it."""
    live.deliver_file(FILE, cbf(("02T00", "9", "S3")))
    in_bodies_of_one_row(live)
    done = live.finish(dropped(live, ("01T05", "2", POISON), B, C, key=f"{FOLDER}/month/a.csv").id)
    assert live.receipt(done)["rows"] == rows(in_=3, accepted=2, rejected=1)
    assert live.modes()[1:] == ["replace_drop", "replace_hourly"]
    assert starts(live) == [B, C]


def test_what_the_first_part_of_an_hour_would_have_wiped_the_next_one_wipes(live: Billing) -> None:
    """Row 11: likewise in an hour that is larger than a body, whose second body would only add."""
    live.deliver_file(FILE, cbf(("01T05", "9", "S3")))
    in_bodies_of_one_row(live)
    done = live.finish(dropped(live, ("01T05", "2", POISON), ("01T05", "3", "S3"), ("01T05", "4", "S3")).id)
    assert live.receipt(done)["rows"] == rows(in_=3, accepted=2, rejected=1)
    assert live.modes()[1:] == ["replace_hourly", "sum"]
    assert starts(live) == [("01T05", "3", "S3"), ("01T05", "4", "S3")]


def test_a_body_that_is_refused_for_no_row_of_it_is_tried_once_more_and_fails_with_the_vendors_words() -> None:
    """Row 11: what CloudZero refuses as a whole is no row's fault: none is rejected, all stay owed."""
    with billing("live", month_rows=1) as live:
        done = live.finish(dropped(live, A, B).id)
        receipt = live.receipt(done)
        assert receipt["outcome"] == "failed"
        assert "was refused for no row of it" in receipt["reason"]
        assert "2026-03 would have 2 rows" in receipt["reason"]
        assert receipt["rows"] == rows(in_=2, owed=2)
        assert receipt["next_command"].startswith("aws s3api copy-object ")
        assert len(live.waited) == 1
        assert live.posts() == []
        live.vendor.configure({"month_rows": 10})
        assert_delivered(live, live.deliver_file(FILE, cbf(A, B)), A, B)


def test_a_body_that_was_refused_by_mistake_is_taken_the_second_time(live: Billing) -> None:
    """Row 11: a 400 that judging the rows does not confirm is not taken for the rows' fault."""
    live.fault("status", status=400, body={"error": {"message": "odd", "type": "bad_request"}})
    done = live.finish(dropped(live, A, B).id)
    assert_delivered(live, done, A, B)
    assert len(live.waited) == 1


def test_a_connection_that_is_not_there_fails_with_the_way_to_find_it(w: Billing) -> None:
    """Row 13: 404 is nothing to wait for: the receipt says what to check, and the rows stay owed."""
    key = f"incoming/billing/no-such/{MONTH}/a.csv"
    done = w.deliver_file(key, cbf(A))
    receipt = w.receipt(done)
    assert receipt["outcome"] == "failed"
    assert "answered 404" in receipt["reason"]
    assert "Check the connection's id (Settings > Connections)" in receipt["reason"]
    assert receipt["rows"] == rows(in_=1, owed=1)
    assert receipt["next_command"]


# --- credentials ------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_waited_out_and_all_goes_on_by_itself(w: Billing) -> None:
    """Row 12: 401 (openapi) and 403 (live) read the key afresh once a call, then wait until it is mended."""
    delivery = dropped(w, A)
    w.key[0] = "wrong"
    for _ in range(MAX_ATTEMPTS + 2):
        with pytest.raises(Wait) as caught:
            w.step(delivery.id)
        w.time[0] += timedelta(seconds=caught.value.seconds)
    assert w.token_reads == [False, True] * (MAX_ATTEMPTS + 2)
    assert w.metrics.counts["CredentialRefused"] == MAX_ATTEMPTS + 2
    receipt = w.receipt(delivery)
    assert (receipt["outcome"], receipt["rows"]) == ("pending", rows(in_=1, owed=1))
    assert f"answered {403 if w.live else 401}" in receipt["reason"]
    w.key[0] = KEY
    assert_delivered(w, w.finish(delivery.id), A)


def test_a_missing_scope_and_a_missing_secret_wait_alike(w: Billing) -> None:
    """Row 12: 403 and "there is no secret" are credentials to mend, and wait alike under either contract."""
    delivery = dropped(w, A)
    w.fault("status", times=2, status=403)
    with pytest.raises(Wait, match="answered 403"):
        w.step(delivery.id)
    w.key[0] = ""
    with pytest.raises(Wait, match="there is no secret"):
        w.step(delivery.id)
    w.key[0] = KEY
    assert_delivered(w, w.finish(delivery.id), A)


# --- crashes, and two at once -----------------------------------------------------------------------------------------


@dataclass
class AfterSending(Fuse):
    """Ends the process at a call after its first request to the vendor; the next one would remember the answer."""

    calls_later: int = 1

    def tick(self, name: str) -> None:
        if self.calls_later <= len(self.calls) and self.calls[-self.calls_later] == "vendor.request":
            self.blown = True
        super().tick(name)


def test_a_drop_that_was_sent_before_the_function_ended_is_held(openapi: Billing) -> None:
    """Row 14: the remembered intent says that the body may have been taken; it is not sent again."""
    delivery = dropped(openapi, A)
    fuse = AfterSending()
    with pytest.raises(SimulatedCrash, match=r"ledger\.save"):
        openapi.step(delivery.id, fuse.ports(openapi), fuse.cloudzero(openapi))
    held = openapi.finish(delivery.id)
    receipt = openapi.receipt(held)
    assert receipt["outcome"] == "held"
    assert "the function ended before it heard the answer" in receipt["reason"]
    assert sends(openapi) == 1
    done = openapi.decide(held, "mark as arrived")
    assert_delivered(openapi, done, A)


def test_a_body_in_doubt_is_held_even_if_the_function_ends_while_it_is_being_held(openapi: Billing) -> None:
    """Row 14: whichever call ends the process on the way to the hold, nothing more is sent and nothing is forgotten."""
    in_bodies_of_one_row(openapi)
    for number in range(1, 30):
        openapi.vendor.reset()
        openapi = openapi.with_ledger(f"ledger-{number}")
        openapi.fault("lost_answer")
        delivery = dropped(openapi, A, B)
        fuse = AfterSending(calls_later=number)
        with suppress(SimulatedCrash):
            openapi.step(delivery.id, fuse.ports(openapi), fuse.cloudzero(openapi))
        held = openapi.finish(delivery.id)
        assert openapi.receipt(held)["outcome"] == "held", number
        assert openapi.receipt(held)["rows"]["owed"] == 2
        assert statuses(openapi, held) == ["in doubt", "owed"]
        assert sends(openapi) == 1
        if not fuse.blown:
            return
    raise AssertionError("the fuse always blew")


def test_a_function_that_runs_out_of_time_goes_on_with_the_next_body(w: Billing) -> None:
    """Row 2: what was taken is remembered body by body; another invocation goes on behind it."""
    in_bodies_of_one_row(w)
    delivery = dropped(w, A, B, C)
    w.remaining[0] = 30
    done = w.finish(delivery.id)
    assert_delivered(w, done, A, B, C)
    assert all(wait.why == "goes on in another invocation" for wait in w.waited)
    assert len(w.waited) > 3
    assert sends(w) == 3


def test_two_files_of_one_connection_are_one_at_a_time(w: Billing) -> None:
    """Row 15: while one file waits for the vendor, none of its connection sends; each says for whom it waits."""
    first, second = dropped(w, A), dropped(w, B, key=f"{FOLDER}/b.csv")
    assert len({message["Attributes"]["MessageGroupId"] for message in w.queued()}) == 1
    w.fault("status", status=429, headers={"Retry-After": "60"})
    with pytest.raises(Wait):
        w.step(first.id)
    with pytest.raises(Wait, match=f"delivery {first.id} of '{FILE}' has the connection"):
        w.step(second.id)
    assert w.posts() == []
    assert w.finish(first.id).outcome == "delivered"
    assert w.finish(second.id).outcome == "delivered"
    assert starts(w) == [A, B]


def test_two_runs_of_one_delivery_at_once_cannot_both_go_on(w: Billing) -> None:
    """Row 15: the run that saves second is refused by the ledger before it has sent anything."""
    delivery = dropped(w, A)
    stale = w.ledger.delivery(delivery.id)
    assert stale is not None
    w.finish(delivery.id)
    with pytest.raises(LedgerConflict):
        w.ports.ledger.save(stale.but(stage="delivering"))
    assert sends(w) == 1


def test_only_the_delivery_that_has_the_connection_comes_back_past_those_that_wait_for_it(w: Billing) -> None:
    """Row 15: a message that waits for very long is sent afresh, which must not put it behind its followers."""
    w.fault("status", times=4, status=429)
    first, second = dropped(w, A), dropped(w, B, key=f"{FOLDER}/b.csv")
    groups = []
    for delivery in (first, second, first):
        with pytest.raises(Wait) as waits:
            w.step(delivery.id)
        groups.append(waits.value.group)
    assert groups == [second_group(first.target), "", second_group(first.target)]
    assert_delivered(w, w.finish(first.id), A)


def test_a_delivery_that_dies_again_and_again_is_quarantined_with_what_is_in_doubt(w: Billing) -> None:
    """Row 23: after five tries without a word the bodies are put aside; what may have been taken is remembered."""
    delivery = dropped(w, A, B)
    fuse = AfterSending()
    with pytest.raises(SimulatedCrash):
        w.step(delivery.id, fuse.ports(w), fuse.cloudzero(w))
    for _ in range(MAX_ATTEMPTS - 1):
        with pytest.raises(SimulatedCrash):
            w.step(delivery.id, Fuse(3).ports(w))  # right after the try was counted
    done = w.finish(delivery.id)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "failed"
    assert "5 tries of step 'send' ended without a word" in receipt["reason"]
    assert statuses(w, done) == ["in doubt"]
    assert receipt["rows"] == rows(in_=2, owed=2)
    (unit,) = receipt["units"]
    (copy,) = [key for key in w.keys("drops", f"quarantine/{done.id}/") if not key.endswith("reason.json")]
    assert w.text(copy) == w.text(unit["spool_key"], SPOOL)
    assert w.metrics.counts["Quarantined"] == 1
    # The connection goes on, and the doubt is not forgotten.
    again = w.deliver_file(FILE, cbf(A, B))
    assert w.receipt(again)["outcome"] == ("delivered" if w.live else "held")
    assert starts(w) == [A, B]


def test_giving_up_ends_even_when_the_record_of_the_month_cannot_be_written(w: Billing) -> None:
    """Row 23: what was sent is not entered for ever: the receipt says that it is missing there."""
    delivery = dropped(w, A)
    fuse = AfterSending()
    with pytest.raises(SimulatedCrash):
        w.step(delivery.id, fuse.ports(w), fuse.cloudzero(w))
    for _ in range(MAX_ATTEMPTS - 1):
        with pytest.raises(SimulatedCrash):
            w.step(delivery.id, Fuse(3).ports(w))
    broken = w.with_ports(lambda name, port: NoRecord(port) if name == "ledger" else port)
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(LedgerConflict):
            w.step(delivery.id, broken)
    receipt = w.receipt(w.step(delivery.id, broken))
    assert receipt["outcome"] == "failed"
    assert UNSETTLED in receipt["warnings"]
    assert receipt["units"][0]["status"] == "in doubt"


class NoRecord:
    """A ledger that keeps no record."""

    def __init__(self, ledger: Any) -> None:  # noqa: ANN401 -- whichever port it is
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- likewise
        return getattr(self._ledger, name)

    def save_record(self, record: Record) -> Record:
        raise LedgerConflict(record.name)


def test_a_body_that_is_gone_from_the_spool_ends_the_delivery_and_frees_the_connection(w: Billing) -> None:
    """Row 6: what was prepared is sent whole or not at all."""
    delivery = dropped(w, A)
    w.s3.delete_object(Bucket=SPOOL, Key=delivery.units[0].spool_key)
    receipt = w.receipt(w.finish(delivery.id))
    assert receipt["outcome"] == "failed"
    assert receipt["rows"] == rows(in_=1, owed=1)
    assert receipt["next_command"].startswith("aws s3api copy-object ")
    assert_delivered(w, w.deliver_file(FILE, cbf(A)), A)


def test_a_body_that_was_changed_in_the_spool_is_not_sent(w: Billing) -> None:
    """Row 6: a body's hash is checked before it leaves."""
    delivery = dropped(w, A)
    w.s3.put_object(Bucket=SPOOL, Key=delivery.units[0].spool_key, Body=b"{}")
    receipt = w.receipt(w.finish(delivery.id))
    assert receipt["outcome"] == "failed"
    assert "is not what was prepared" in receipt["reason"]
    assert sends(w) == 0


def test_a_deploy_while_a_delivery_is_in_flight_loses_and_doubles_nothing(w: Billing) -> None:
    """Row 27: an item of an older version lacks fields, one of a newer has more; both go on where they were."""
    in_bodies_of_one_row(w)
    delivery = dropped(w, A, B)
    w.fault("status", after=1, status=429, headers={"Retry-After": "60"})
    with pytest.raises(Wait):
        w.step(delivery.id)
    key = {"pk": {"S": f"delivery#{delivery.id}"}}
    item = w.dynamodb.get_item(TableName=LEDGER, Key=key)["Item"]
    body = json.loads(item["body"]["S"])
    for field in ("announced", "filtered_by", "plan", "waits", "warnings"):
        del body[field]
    for field in ("adds_to", "decided_by", "looks", "named", "overlap", "removed", "retried", "rewritten", "watched_s"):
        del body["work"][field]
    body["work"]["of_a_later_version"] = body["of_a_later_version"] = {"x": 1}
    body["units"][0]["of_a_later_version"] = 1
    item["body"]["S"] = json.dumps(body)
    w.dynamodb.put_item(TableName=LEDGER, Item=item)
    assert_delivered(w, w.finish(delivery.id), A, B)
    assert len(w.posts()) == 2


def test_the_key_stands_in_no_receipt_ledger_item_or_error(w: Billing) -> None:
    """Row 29: whatever a vendor echoes, the API key is nowhere that is kept or shown."""
    echo = {"message": f"bad key {KEY}, authorization: {KEY}", "error": {"message": f"for {KEY}", "type": "x"}}
    w.fault("status", times=2, status=429, body=echo)
    w.fault("status", times=2, status=403, body=echo)
    delivery = dropped(w, A)
    told: list[str] = []
    for _ in range(2):
        with pytest.raises(Wait) as caught:
            w.step(delivery.id)
        told += [str(caught.value), repr(caught.value), repr(w.ledger.delivery(delivery.id)), str(w.receipt(delivery))]
    w.fault("status", status=500, body=echo)
    w.fault("status", status=400, body=echo)
    done = w.finish(delivery.id)
    told += [str(w.receipts()), repr(done), done.model_dump_json()]
    told += [str(item) for item in w.dynamodb.scan(TableName=LEDGER)["Items"]]
    told += [w.text(key).decode() for key in w.keys("drops") if not key.startswith("incoming/")]
    for text in told:
        assert KEY not in text
    assert any("REDACTED" in text or "bad key" in text for text in told)


def test_an_idempotency_key_stands_in_no_repr(live: Billing) -> None:
    """Row 29: it is kept while an outcome is unknown, and is shown nowhere."""
    live.fault("reset", times=2)
    delivery = dropped(live, A)
    with pytest.raises(Wait):
        live.step(delivery.id)
    waiting = live.ledger.delivery(delivery.id)
    assert waiting is not None
    key = waiting.work["idempotency_key"]
    assert key
    assert key not in repr(waiting)
    assert key not in str(live.receipt(waiting))


def test_a_dry_run_that_cannot_ask_the_vendor_says_so_and_waits_for_nothing(w: Billing) -> None:
    """Row 12: a plan has nothing to wait for: that the key is refused is its verdict."""
    w.key[0] = "wrong"
    found = w.prepare(w.drop(f"plan/billing/{CONNECTION}/{MONTH}/a.csv", cbf(A)))
    assert found is not None
    receipt = w.receipt(w.finish(found.id))
    assert receipt["plan"]["verdict"] == "would_fail"
    assert "the vendor could not be asked: GET" in receipt["plan"]["why"]
    assert w.waited == []


def test_waits_between_looks_double_up_to_their_cap() -> None:
    """Row 13: the first looks come soon, and no wait between two is longer than the cap."""
    found = Looks(10, 300, 3600)
    assert [found.after(looks) for looks in (0, 1, 4, 5, 1000)] == [10, 20, 160, 300, 300]

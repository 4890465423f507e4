"""Files of telemetry, from the drop to what CloudZero holds; the same behaviour under either contract."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from decimal import Decimal

import pytest
from finops_relay.delivery.ledger import Delivery

from local.standins.cloudzero import CloudZeroStandIn
from tests.world.relay import DROPS
from tests.world.telemetry import Telemetry, allocation, folder, metric, telemetry


@pytest.fixture(scope="module")
def vendors() -> Iterator[dict[str, CloudZeroStandIn]]:
    with CloudZeroStandIn("live") as live, CloudZeroStandIn("openapi") as openapi:
        yield {"live": live, "openapi": openapi}


@pytest.fixture(params=["live", "openapi"])
def w(request: pytest.FixtureRequest, vendors: dict[str, CloudZeroStandIn]) -> Iterator[Telemetry]:
    with telemetry(request.param, vendors[request.param]) as found:
        yield found


def outcome(w: Telemetry, delivery: Delivery, expected: str = "delivered", **counts: int) -> dict[str, object]:
    """Check how a delivery ended; return its receipt."""
    receipt = w.receipt(delivery)
    assert receipt["outcome"] == expected, (receipt["reason"], receipt["warnings"])
    for name, count in counts.items():
        assert receipt["rows"]["in" if name == "in_" else name] == count, receipt["rows"]
    return receipt


def test_a_metric_file_becomes_the_stream_with_rows_of_one_record_added_up(w: Telemetry) -> None:
    done = w.deliver_records("requests", metric(("01T00", "1.5", "a"), ("01T05", "2", "a"), ("02T00", "4", "b")))
    receipt = outcome(w, done, in_=3, accepted=3)
    assert w.values("requests") == {"01T00 a": Decimal("3.5"), "02T00 b": Decimal(4)}
    assert receipt["usage"] == {"in": "7.5", "sent": "7.5"}
    assert w.remembered("requests").keys == ("team",)


def test_an_allocation_file_becomes_the_stream(w: Telemetry) -> None:
    rows = [("01T00", "1.5", "red", "EC2"), ("01T00", "2.5", "blue", "EC2")]
    done = w.deliver_records("split", allocation(w.contract, *rows), kind="allocation")
    outcome(w, done, in_=2, accepted=2)
    assert sorted(w.values("split").values()) == [Decimal("1.5"), Decimal("2.5")]
    assert w.streams()["split"]["kind"] == "allocation"


def test_a_second_file_replaces_its_own_records_and_leaves_the_others(w: Telemetry) -> None:
    w.deliver_records("requests", metric(("01T00", "1", "a"), ("01T00", "2", "b"), ("02T00", "3", "a")))
    outcome(w, w.deliver_records("requests", metric(("01T00", "9", "a")), name="b.csv"))
    assert w.values("requests") == {"01T00 a": Decimal(9), "01T00 b": Decimal(2), "02T00 a": Decimal(3)}


def test_hours_of_two_files_are_told_apart_and_days_are_right(w: Telemetry) -> None:
    """Under `live` hours are rolled up to days, also those that came in another file."""
    w.deliver_records("hours", metric(("01T00", "1", "a"), ("01T01", "2", "a"), granularity="HOURLY"))
    w.deliver_records("hours", metric(("01T01", "5", "a"), ("01T02", "7", "a"), granularity="HOURLY"), name="b.csv")
    total = sum(w.values("hours").values())
    assert total == Decimal(1 + 5 + 7)
    assert w.streams()["hours"]["granularity"] == ("DAILY" if w.live else "HOURLY")


def test_a_sum_adds_to_what_is_there(w: Telemetry) -> None:
    w.deliver_records("requests", metric(("01T00", "1", "a"), ("01T00", "2", "b")))
    outcome(w, w.deliver_records("requests", metric(("01T00", "10", "a")), "sum"))
    assert w.values("requests") == {"01T00 a": Decimal(11), "01T00 b": Decimal(2)}
    outcome(w, w.deliver_records("requests", metric(("01T00", "3", "b")), name="c.csv"))
    assert w.values("requests") == {"01T00 a": Decimal(11), "01T00 b": Decimal(3)}


def test_periods_are_deleted_by_a_file(w: Telemetry) -> None:
    w.deliver_records("requests", metric(("01T00", "1", "a"), ("02T00", "2", "a")))
    gone = b"timestamp,granularity\n2026-03-01T00:00:00Z,DAILY\n"
    outcome(w, w.deliver_records("requests", gone, "delete"), in_=1, accepted=1)
    assert w.values("requests") == {"02T00 a": Decimal(2)}


def test_an_hour_that_is_deleted_leaves_the_rest_of_its_day(w: Telemetry) -> None:
    w.deliver_records(
        "hours", metric(("01T00", "1", "a"), ("01T01", "2", "a"), ("01T01", "4", "b"), granularity="HOURLY")
    )
    gone = b"timestamp,granularity\n2026-03-01T01:00:00Z,HOURLY\n"
    outcome(w, w.deliver_records("hours", gone, "delete"))
    assert w.values("hours") == {"01T00 a": Decimal(1)}


def test_a_whole_stream_is_deleted_by_a_file_that_repeats_its_name(w: Telemetry) -> None:
    w.deliver_records("requests", metric(("01T00", "1", "a")))
    key = folder("requests", "delete") + "stream.json"
    refused = w.deliver_file(key, b'{"stream": "other"}')
    assert "names another stream" in str(outcome(w, refused, "rejected")["reason"])
    outcome(w, w.deliver_file(key, b'{"stream": "requests"}'), in_=1, accepted=1)
    assert w.streams() == {}
    # Its name is free again, for records of another shape.
    outcome(w, w.deliver_records("requests", metric(("01T00", "1"), keys=())))
    assert w.values("requests") == {"01T00": Decimal(1)}


def test_records_of_another_shape_than_the_stream_are_refused_with_the_reason(w: Telemetry) -> None:
    w.deliver_records("requests", metric(("01T00", "1", "a")))
    other = w.deliver_records("requests", metric(("01T00", "1", "x"), keys=("region",)), name="b.csv")
    reason = str(outcome(w, other, "rejected")["reason"])
    assert "region" in reason
    assert "team" in reason
    monthly = w.deliver_records("requests", metric(("01T00", "1", "a"), granularity="MONTHLY"), name="c.csv")
    receipt = outcome(w, monthly, "rejected", in_=1, rejected=1)
    assert "MONTHLY" in str(receipt["reason"]) + w.rejected(monthly)


def test_two_first_files_of_different_shapes_leave_one(w: Telemetry) -> None:
    """Both were prepared before anybody knew what the stream would be."""
    first = w.dropped("requests", metric(("01T00", "1", "a")))
    second = w.dropped("requests", metric(("01T00", "1", "x"), keys=("region",)), name="b.csv")
    outcome(w, w.finish(first.id))
    assert "keys team" in str(outcome(w, w.finish(second.id), "rejected", rejected=1)["reason"])
    assert w.values("requests") == {"01T00 a": Decimal(1)}


def test_the_same_again_is_unchanged_and_sends_nothing(w: Telemetry) -> None:
    w.deliver_records("requests", metric(("01T00", "1", "a")))
    before = w.state()["counts"]
    outcome(w, w.deliver_records("requests", metric(("01T00", "1", "a"))), "unchanged", in_=1, accepted=1)
    outcome(w, w.deliver_records("requests", gzip.compress(metric(("01T00", "1.0", "a"))), name="z.gz"), "unchanged")
    after = w.state()["counts"]
    assert {name: count for name, count in after.items() if "elemetry" in name} == {
        name: count for name, count in before.items() if "elemetry" in name
    }


def test_an_older_file_that_comes_late_does_not_undo_a_newer_one(w: Telemetry) -> None:
    """Row 4: drops are ordered by when they were dropped, also of different keys."""
    older = w.drop(folder("requests") + "a.csv", metric(("01T00", "1", "a"), ("03T00", "3", "a")))
    w.deliver_records("requests", metric(("01T00", "2", "a")), name="b.csv")
    prepared = w.prepare(older)
    assert prepared is not None
    receipt = outcome(w, w.finish(prepared.id), in_=2, accepted=1, filtered=1)
    assert receipt["filtered_by"] == {"superseded": 1}
    assert w.values("requests") == {"01T00 a": Decimal(2), "03T00 a": Decimal(3)}


def test_an_older_replacement_of_what_was_added_to_since_is_held_and_a_person_decides(w: Telemetry) -> None:
    w.deliver_records("requests", metric(("01T00", "1", "a")))
    older = w.drop(folder("requests") + "b.csv", metric(("01T00", "5", "a")))
    w.deliver_records("requests", metric(("01T00", "10", "a")), "sum")
    prepared = w.prepare(older)
    assert prepared is not None
    held = w.finish(prepared.id)
    assert "added to by newer drops" in str(outcome(w, held, "held", owed=1)["reason"])
    assert w.values("requests") == {"01T00 a": Decimal(11)}
    outcome(w, w.decide(held, "send"), accepted=1)
    assert w.values("requests") == {"01T00 a": Decimal(5)}


def test_bad_rows_are_named_and_the_others_go_and_mended_ones_make_the_record_whole(w: Telemetry) -> None:
    body = metric(("01T00", "1", "a"), ("01T00", "x", "a"), ("01T00", "2", "b"))
    done = w.deliver_records("requests", body)
    outcome(w, done, "partly_delivered", in_=3, accepted=2, rejected=1)
    assert w.values("requests") == {"01T00 a": Decimal(1), "01T00 b": Decimal(2)}
    rejected = w.rejected(done)
    assert "value is no plain number" in rejected
    mended = w.deliver_file(f"{folder('requests')}mended/{done.id}.csv", rejected.replace(",x,", ",4,").encode())
    outcome(w, mended, in_=3, accepted=3)
    assert w.values("requests") == {"01T00 a": Decimal(5), "01T00 b": Decimal(2)}


def test_mended_rows_of_a_sum_go_alone(w: Telemetry) -> None:
    done = w.deliver_records("requests", metric(("01T00", "1", "a"), ("01T00", "x", "a")), "sum")
    outcome(w, done, "partly_delivered", accepted=1, rejected=1)
    mended = w.rejected(done).replace(",x,", ",4,").encode()
    outcome(w, w.deliver_file(f"{folder('requests', 'sum')}mended/{done.id}.csv", mended), in_=1, accepted=1)
    assert w.values("requests") == {"01T00 a": Decimal(5)}


def test_a_total_of_too_many_digits_is_rounded_where_cloudzero_takes_no_more_and_said_so(w: Telemetry) -> None:
    rows = [("01T00", "123456789012345", "a"), ("01T00", "0.6", "a")]
    receipt = outcome(w, w.deliver_records("requests", metric(*rows)))
    warnings = str(receipt["warnings"])
    assert ("sent rounded" in warnings) is w.live
    assert w.values("requests") == {"01T00 a": Decimal("123456789012346" if w.live else "123456789012345.6")}


def test_a_plan_says_what_would_be_done_and_writes_nothing(w: Telemetry) -> None:
    key = folder("requests", root="plan") + "a.csv"
    receipt = outcome(w, w.deliver_file(key, metric(("01T00", "1", "a"))), "unchanged")
    plan = receipt["plan"]
    assert isinstance(plan, dict)
    assert plan["verdict"] == "would_deliver"
    assert "1 records" in plan["steps"][0]
    assert w.streams() == {}
    assert w.remembered("requests").kind == ""


def test_more_than_a_body_goes_in_several_and_a_period_that_does_not_fit_one_is_whole(w: Telemetry) -> None:
    w.body_bytes = 400
    rows = [("01T00", str(number), f"team-{number:02}") for number in range(1, 20)] + [("02T00", "1", "a")]
    receipt = outcome(w, w.deliver_records("requests", metric(*rows)), in_=20, accepted=20)
    assert len(w.values("requests")) == 20
    units = receipt["units"]
    assert isinstance(units, list)
    assert len(units) > 3
    assert all(unit["bytes"] <= 400 for unit in units)
    # And all of it anew, which deletes and adds under `openapi`.
    rows[3] = ("01T00", "100", "team-04")
    outcome(w, w.deliver_records("requests", metric(*rows)))
    assert w.values("requests")["01T00 team-04"] == Decimal(100)
    assert len(w.values("requests")) == 20


def test_json_and_ndjson_are_read_as_csv_is(w: Telemetry) -> None:
    record = {"timestamp": "2026-03-01T00:00:00Z", "value": 2.5, "granularity": "DAILY", "filter": {"team": "a"}}
    outcome(w, w.deliver_records("requests", json.dumps([record]).encode(), name="a.json"))
    assert w.values("requests") == {"01T00 a": Decimal("2.5")}
    lines = json.dumps(record | {"value": 3}) + "\n" + json.dumps(record | {"value": 4}) + "\n"
    outcome(w, w.deliver_records("requests", lines.encode(), name="a.ndjson"))
    assert w.values("requests") == {"01T00 a": Decimal(7)}


def test_what_a_delivery_keeps_in_the_spool_may_expire_once_it_is_over(w: Telemetry) -> None:
    done = w.deliver_records("requests", metric(("01T00", "1", "a")))
    w.deliver_records("requests", metric(("01T00", "2", "a")))
    kept = []
    for key in w.keys("spool"):
        tags = w.s3.get_object_tagging(Bucket="spool", Key=key)["TagSet"]
        if not tags:
            kept.append(key)
    assert kept == list(w.remembered("requests").pages.values())
    assert done.id not in kept[0]
    assert w.keys(DROPS, "receipts/telemetry/")

"""The receipt: what became of every row, in a shape that others read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from finops_relay import __version__
from finops_relay.delivery.ledger import Delivery
from finops_relay.delivery.receipt import (
    ColumnMoney,
    Money,
    Outcome,
    Part,
    Receipt,
    Rows,
    Source,
    Unit,
    Usage,
    receipt_key,
    rejected_key,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
COUNTS = st.integers(0, 10**12)
FIELDS = ("accepted", "filtered", "rejected", "owed")

GOLDEN = """{
  "version": 1,
  "id": "d1",
  "kind": "price-book",
  "source": {
    "bucket": "drops",
    "key": "incoming/price-books/azure/ä.csv",
    "version": "v1",
    "etag": "e1",
    "sequencer": "0055AED6",
    "sha256": "5a",
    "bytes": 7,
    "parts": [
      {
        "key": "part-1.csv",
        "version": "v2",
        "etag": "e2",
        "bytes": 5
      }
    ]
  },
  "target": "price-books/e/azure",
  "outcome": "partly_delivered",
  "reason": "one organization refused",
  "rows": {
    "in": 10,
    "accepted": 5,
    "filtered": 3,
    "rejected": 2,
    "owed": 0
  },
  "money": {
    "in": "0.100000000000001",
    "sent": "100",
    "read_back": null,
    "rejected": null,
    "difference": "0.00000001",
    "by_column": {
      "cost/amortized_cost": {
        "in": "-2.50",
        "sent": null,
        "read_back": null,
        "difference": null
      }
    }
  },
  "usage": {
    "in": "1000",
    "sent": null
  },
  "units": [
    {
      "seq": 1,
      "name": "file 1",
      "rows": 5,
      "bytes": 6,
      "sha256": "6b",
      "attempts": 2,
      "vendor_id": "f1",
      "request_id": "r1",
      "status": "accepted",
      "spool_key": "price-books/d1/1.csv"
    }
  ],
  "filtered_by": {
    "price_types": 3
  },
  "rejected_rows": "s3://drops/rejected/d1.csv",
  "plan": null,
  "warnings": [
    "mind the gap"
  ],
  "times": {
    "received": "2026-03-01T09:00:00Z",
    "prepared": "2026-03-01T08:59:59Z",
    "ended": "2026-03-01T09:01:00Z"
  },
  "versions": {
    "relay": "RELAY",
    "config": "c1",
    "ledger": "4"
  },
  "next_command": "aws s3 cp a b"
}
"""


def delivery() -> Delivery:
    """Return a delivery with something in every field."""
    return Delivery(
        version=4,
        id="d1",
        kind="price-book",
        target="price-books/e/azure",
        source=Source(
            bucket="drops",
            key="incoming/price-books/azure/ä.csv",
            version="v1",
            etag="e1",
            sequencer="0055AED6",
            sha256="5a",
            bytes=7,
            parts=(Part(key="part-1.csv", version="v2", etag="e2", bytes=5),),
        ),
        outcome=Outcome.PARTLY_DELIVERED,
        reason="one organization refused",
        rows=Rows.model_validate({"in": 10, "accepted": 5, "filtered": 3, "rejected": 2}),
        money=Money.model_validate(
            {
                "in": Decimal("0.100000000000001"),
                "sent": Decimal("1E+2"),
                "difference": Decimal("1E-8"),
                "by_column": {"cost/amortized_cost": {"in": Decimal("-2.50")}},
            }
        ),
        usage=Usage.model_validate({"in": Decimal("1E+3")}),
        units=(
            Unit(
                seq=1,
                name="file 1",
                rows=5,
                bytes=6,
                sha256="6b",
                attempts=2,
                vendor_id="f1",
                request_id="r1",
                status="accepted",
                spool_key="price-books/d1/1.csv",
            ),
        ),
        filtered_by={"price_types": 3},
        rejected_rows="s3://drops/rejected/d1.csv",
        warnings=("mind the gap",),
        times={
            "ended": NOW + timedelta(minutes=1),
            "received": NOW,
            "prepared": NOW - timedelta(seconds=1),
        },
        config_version="c1",
        next_command="aws s3 cp a b",
        work={"slot": "https://bucket.s3.amazonaws.com/?X-Amz-Signature=5ec4e7"},
    )


def test_the_shape_of_a_receipt_is_what_others_read() -> None:
    assert delivery().receipt().as_json().decode() == GOLDEN.replace("RELAY", __version__)


def test_a_receipt_reads_back_as_it_was_written() -> None:
    receipt = delivery().receipt()
    assert Receipt.model_validate_json(receipt.as_json()) == receipt


def test_a_receipt_holds_nothing_of_the_jobs_own_memory() -> None:
    assert b"5ec4e7" not in delivery().receipt().as_json()


def test_a_receipt_of_a_later_version_is_still_read() -> None:
    later = json.loads(delivery().receipt().as_json()) | {"new_field": 1}
    later["rows"]["new"] = 0
    assert Receipt.model_validate(later).id == "d1"


# --- the law -------------------------------------------------------------------------------------------------------


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_rows_that_add_up_make_a_receipt(accepted: int, filtered: int, rejected: int, owed: int) -> None:
    parts = dict(zip(FIELDS, (accepted, filtered, rejected, owed), strict=True))
    rows = Rows.model_validate({"in": accepted + filtered + rejected + owed, **parts})
    assert Rows.model_validate_json(rows.model_dump_json(by_alias=True)) == rows


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("in", *FIELDS), st.integers(-5, 50))))
def test_the_law_cannot_be_broken(counts: dict[str, int]) -> None:
    lawful = counts.get("in", 0) == sum(counts.get(field, 0) for field in FIELDS)
    if lawful and all(count >= 0 for count in counts.values()):
        assert Rows.model_validate(counts).in_ == counts.get("in", 0)
        return
    with pytest.raises(ValidationError):
        Rows.model_validate(counts)
    with pytest.raises(ValidationError):
        delivery().but(rows=counts)


def test_a_count_cannot_be_changed_afterwards() -> None:
    rows = Rows.model_validate({"in": 1, "owed": 1})
    with pytest.raises(ValidationError):
        rows.owed = 0  # type: ignore[misc] # what must fail
    with pytest.raises(ValidationError):
        delivery().rows = rows  # type: ignore[misc] # what must fail


def test_a_delivery_whose_counts_were_copied_together_is_not_kept() -> None:
    broken = Rows.model_validate({"in": 2, "owed": 2}).model_copy(update={"owed": 1})
    with pytest.raises(ValidationError, match="the law is broken"):
        delivery().but(rows=broken.model_dump(by_alias=True))
    with pytest.raises(ValidationError, match="the law is broken"):
        Delivery.model_validate_json(delivery().model_copy(update={"rows": broken}).model_dump_json(by_alias=True))


# --- money ---------------------------------------------------------------------------------------------------------

DOLLARS = ("in", "sent", "read_back", "rejected", "difference")
AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20) | st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent), st.integers(-999, 999), st.integers(-30, 30)
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(DOLLARS, st.none() | AMOUNTS)))
def test_an_amount_is_written_in_digits_and_reads_back_to_the_last_one(amounts: dict[str, Decimal | None]) -> None:
    money = Money.model_validate({**amounts, "by_column": {"cost/cost": amounts}})
    text = money.model_dump_json(by_alias=True)
    written = json.loads(text)
    for told in (written, written["by_column"]["cost/cost"]):
        assert all(set(told[name]) <= set("-0123456789.") for name in DOLLARS if told.get(name) is not None)
    read = Money.model_validate_json(text)
    assert read == money
    assert read.by_column["cost/cost"].in_ == amounts.get("in")


def test_a_kind_without_money_says_nothing_of_it() -> None:
    money = Money()
    assert {name: value for name, value in money if value is not None} == {"by_column": {}}
    assert ColumnMoney().model_dump(by_alias=True) == dict.fromkeys(("in", "sent", "read_back", "difference"))


def test_what_was_kept_before_there_was_more_to_say_of_money_is_still_read() -> None:
    item = json.loads(delivery().model_dump_json(by_alias=True))
    for name in ("rejected", "difference", "by_column"):
        del item["money"][name]
    for held in (
        Delivery.model_validate(item),
        Receipt.model_validate(json.loads(delivery().receipt().as_json()) | {"money": item["money"]}),
    ):
        assert (held.money.sent, held.money.rejected, held.money.by_column) == (Decimal(100), None, {})
    del item["money"]
    assert Delivery.model_validate(item).money == Money()


def test_the_money_of_a_kept_delivery_is_kept_exactly() -> None:
    assert Delivery.model_validate_json(delivery().model_dump_json(by_alias=True)) == delivery()


# --- the rest ------------------------------------------------------------------------------------------------------


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.integers(-12, 12))  # noqa: DTZ001 -- hypothesis wants them bare
def test_a_receipts_times_are_utc_and_begin_with_received(bare: datetime, offset: int) -> None:
    when = bare.replace(tzinfo=timezone(timedelta(hours=offset)))
    told = delivery().at("queued", when).receipt()
    assert next(iter(told.times)) == "received"
    assert told.times["queued"] == when
    assert told.times["queued"].utcoffset() == timedelta(0)


def test_a_time_is_the_first_of_its_kind() -> None:
    later = delivery().at("uploaded", NOW).at("uploaded", NOW + timedelta(hours=1))
    assert later.times["uploaded"] == NOW


def test_a_warning_is_said_once() -> None:
    assert delivery().warn("one", "mind the gap", "one").warnings == ("mind the gap", "one")


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_but_pending_and_held_is_final(outcome: Outcome) -> None:
    assert outcome.final is (outcome not in {Outcome.PENDING, Outcome.HELD})
    ended = delivery().but(stage="delivering", intent="create", attempts=3).ended(outcome, NOW)
    assert ended.stage == ("finished" if outcome.final else "delivering")
    assert (ended.intent, ended.attempts, ended.announced) == ("", 0, False)


def test_the_outcomes_are_those_that_are_promised() -> None:
    assert [outcome.value for outcome in Outcome] == [
        "pending",
        "delivered",
        "unchanged",
        "partly_delivered",
        "rejected",
        "held",
        "superseded",
        "stale",
        "failed",
    ]


def test_receipts_and_rejected_rows_have_their_places() -> None:
    assert receipt_key("price-book", NOW, "d1") == "receipts/price-book/2026/03/01/d1.json"
    assert delivery().receipt_key == "receipts/price-book/2026/03/01/d1.json"
    assert rejected_key("d1") == "rejected/d1.csv"

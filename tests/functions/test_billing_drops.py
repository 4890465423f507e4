"""Billing drops beyond faults: forms, months, versions of a key, overlaps, decisions, folders, plans, mended rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import sleep
from typing import Any

import pytest
from finops_relay.delivery.ledger import Delivery
from finops_relay.errors import Wait
from finops_relay.jobs.billing.drop_path import FOLDERS
from finops_relay.jobs.billing.remembered import KIND
from finops_relay.jobs.config_check import check_config
from finops_relay.jobs.folders import sweep

from local.standins.cloudzero import CONNECTION
from tests.world.billing import FOLDER, MONTH, POISON, SEND, Billing, PickyStandIn, billing, cbf
from tests.world.relay import DROPS, SPOOL

A, B = ("01T05", "1.5", "EC2"), ("01T06", "2", "S3")
"""Two rows of an hour each."""
OTHER = "other-connection"
FORMER = f"incoming/billing/{CONNECTION}/2026-02"


@pytest.fixture(scope="module")
def vendors() -> Iterator[dict[str, PickyStandIn]]:
    connections = (CONNECTION, OTHER)
    with (
        PickyStandIn("live", connections=connections) as live,
        PickyStandIn("openapi", connections=connections) as openapi,
    ):
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


def configured(w: Billing, text: str) -> None:
    """Put a relay.yaml in force."""
    found = check_config(w.drop("config/relay.yaml", f"version: 1\n{text}".encode()), w.ports, w.defaults)
    assert found is not None
    assert found.outcome == "delivered"


def outcome(w: Billing, delivery: Delivery | None) -> str:
    """Return the outcome that stands in the receipt."""
    assert delivery is not None
    return str(w.receipt(delivery)["outcome"])


def reason(w: Billing, delivery: Delivery | None) -> str:
    """Return the reason that stands in the receipt."""
    assert delivery is not None
    return str(w.receipt(delivery)["reason"])


def rows(**counts: int) -> dict[str, int]:
    """Return the counts of a receipt, those not named being 0."""
    found = dict.fromkeys(("in", "accepted", "filtered", "rejected", "owed"), 0)
    return found | {("in" if name == "in_" else name): count for name, count in counts.items()}


def prepared(w: Billing, key: str, body: bytes) -> Delivery:
    """Drop and prepare a file that can be delivered."""
    found = w.prepare(w.drop(key, body))
    assert found is not None
    assert found.stage == "queued", found.reason
    return found


def starts(w: Billing, month: str = MONTH) -> list[tuple[str, str, str]]:
    """Return day and hour, cost and service of each row that the vendor holds of a month, as `cbf` takes them."""
    names = ("time/usage_start", "cost/cost", "resource/service") if w.live else ("timestamp", "cost", "service")
    held = w.held(month=month).get("rows", [])
    return [(row[names[0]][8:13], row[names[1]], row[names[2]]) for row in held]


def wide(hours: int, rows_an_hour: int, size: int, first: int = 0) -> bytes:
    """Return a CBF file whose rows have *size* bytes each, so that a few make a body."""
    lines = [
        f"{MONTH}-{1 + hour // 24:02}T{hour % 24:02}:00:00Z,0.25,{hour}-{row} ".ljust(size, "x")
        for hour in range(first, first + hours)
        for row in range(rows_an_hour)
    ]
    return "\n".join(["time/usage_start,cost/cost,lineitem/description", *lines, ""]).encode()


# --- the forms --------------------------------------------------------------------------------------------------------

FOCUS = (
    "BilledCost,EffectiveCost,ListCost,BillingCurrency,ChargePeriodStart,ChargePeriodEnd,ChargeCategory,ServiceName,"
    "SubAccountId,ResourceId,ResourceType,RegionId,Tags,ProviderName\n"
    '1.5,1.25,2,USD,2026-03-01T05:00:00Z,2026-03-01T06:00:00Z,Usage,EC2,a-1,i-1,Instance,eu-west-1,"{""team"": '
    '""core""}",AWS\n'
    "-0.5,-0.5,0,USD,2026-03-01T06:00:00Z,2026-03-01T07:00:00Z,Credit,S3,a-1,,,NULL,,AWS\n"
)
FOCUS_ROWS = [
    {
        "time/usage_start": "2026-03-01T05:00:00Z",
        "time/usage_end": "2026-03-01T06:00:00Z",
        "cost/cost": "1.5",
        "cost/discounted_cost": "1.5",
        "cost/amortized_cost": "1.25",
        "cost/discounted_amortized_cost": "1.25",
        "cost/on_demand_cost": "2",
        "lineitem/type": "Usage",
        "lineitem/cloud_provider": "AWS",
        "resource/id": "Instance/i-1",
        "resource/service": "EC2",
        "resource/account": "a-1",
        "resource/region": "eu-west-1",
        "resource/tag:team": "core",
    },
    {
        "time/usage_start": "2026-03-01T06:00:00Z",
        "time/usage_end": "2026-03-01T07:00:00Z",
        "cost/cost": "-0.5",
        "cost/discounted_cost": "-0.5",
        "cost/amortized_cost": "-0.5",
        "cost/discounted_amortized_cost": "-0.5",
        "cost/on_demand_cost": "0",
        "lineitem/type": "Credit",
        "lineitem/cloud_provider": "AWS",
        "resource/service": "S3",
        "resource/account": "a-1",
        "resource/region": "no-region",
    },
]
CBF = (
    "time/usage_start,cost/cost,lineitem/type,resource/id,resource/service,resource/tag:team\n"
    '2026-03-01T05:00:00Z,"$ 1,200.00",Usage,instance/i-1,EC2,core\n'
    "2026-03-01T07:00:00+01:00,(12.50),Discount,,S3,\n"
    "2026-03-01T06:00:00Z,$ -,Usage,,S3,\n"
)
CBF_ROWS = [
    {
        "time/usage_start": "2026-03-01T05:00:00Z",
        "cost/cost": "1200.00",
        "lineitem/type": "Usage",
        "resource/id": "instance/i-1",
        "resource/service": "EC2",
        "resource/tag:team": "core",
    },
    {
        "time/usage_start": "2026-03-01T06:00:00Z",
        "cost/cost": "-12.50",
        "lineitem/type": "Discount",
        "resource/service": "S3",
    },
    {"time/usage_start": "2026-03-01T06:00:00Z", "cost/cost": "0", "lineitem/type": "Usage", "resource/service": "S3"},
]
ITEMS = [
    {"timestamp": "2026-03-01T05:00:00Z", "cost": "1.5", "service": "EC2", "description": "an hour", "team": "core"},
    {"timestamp": "2026-03-01T06:00:00Z", "cost": "-0.25", "service": "S3", "description": "", "team": ""},
]
ITEM_ROWS = [
    {
        "time/usage_start": "2026-03-01T05:00:00Z",
        "cost/cost": "1.5",
        "lineitem/description": "an hour",
        "resource/id": "line-item/EC2",
        "resource/service": "EC2",
        "resource/tag:team": "core",
    },
    {"time/usage_start": "2026-03-01T06:00:00Z", "cost/cost": "-0.25", "resource/service": "S3"},
]


def _items_csv() -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ITEMS[0]))
    writer.writeheader()
    writer.writerows(ITEMS)
    return text.getvalue()


FORMS: dict[str, tuple[str, list[dict[str, str]]]] = {
    "cbf": (CBF, CBF_ROWS),
    "focus": (FOCUS, FOCUS_ROWS),
    "items csv": (_items_csv(), ITEM_ROWS),
    "items json": (json.dumps(ITEMS), ITEM_ROWS),
    "items ndjson": ("\n".join(map(json.dumps, ITEMS)), ITEM_ROWS),
}


def as_item(row: dict[str, str]) -> dict[str, Any]:
    """Return a row of the Common Bill Format as openapi has it (contract page, "openapi -> CBF" in reverse)."""
    row = row | {"cost/cost": f"{Decimal(row['cost/cost']).normalize():f}"}  # there it is a number
    own = {
        "time/usage_start": "timestamp",
        "cost/cost": "cost",
        "resource/service": "service",
        "lineitem/description": "description",
    }
    item: dict[str, Any] = {own[name]: value for name, value in row.items() if name in own}
    metadata = {name.removeprefix("resource/tag:"): value for name, value in row.items() if name not in own}
    return item | ({"metadata": metadata} if metadata else {})


@pytest.mark.parametrize("form", FORMS)
def test_costs_in_every_form_arrive_as_what_they_are(w: Billing, form: str) -> None:
    for packed, connection in ((False, CONNECTION), (True, OTHER)):
        assert_arrives(w, form, connection, packed=packed)


def assert_arrives(w: Billing, form: str, connection: str, *, packed: bool) -> None:
    """Deliver costs in one form to an empty connection; check every row and every sum."""
    text, expected = FORMS[form]
    body = gzip.compress(text.encode()) if packed else text.encode()
    already = len(w.posts())
    done = w.deliver_file(f"incoming/billing/{connection}/{MONTH}/costs", body)  # no suffix: the content says it
    receipt = w.receipt(done)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == rows(in_=len(expected), accepted=len(expected))
    assert w.held(connection)["rows"] == (expected if w.live else [as_item(row) for row in expected])
    assert w.modes()[already:] == ["replace_hourly" if w.live else "append"]
    total = sum((Decimal(row["cost/cost"]) for row in expected), Decimal(0))
    money = receipt["money"]
    assert Decimal(money["in"]) == Decimal(money["sent"]) == w.total(connection) == total
    if w.live:
        assert Decimal(money["read_back"]) == total
        assert Decimal(money["difference"]) == 0
        held = w.held(connection)["totals"]
        for column, amounts in money["by_column"].items():
            assert Decimal(amounts["in"]) == Decimal(amounts["sent"]) == Decimal(held[column]), column
    else:
        assert money["read_back"] is None  # the contract has no way to read back


def test_the_same_file_makes_the_same_bodies(w: Billing) -> None:
    hashes = []
    for key in ("a.csv", "b.csv"):
        found = prepared(w, f"{FOLDER}/{key}", CBF.encode())
        hashes.append([unit.sha256 for unit in found.units])
    assert hashes[0] == hashes[1]


def test_rows_that_stand_twice_are_sent_and_reported_with_their_lines(w: Billing) -> None:
    done = w.deliver_file(f"{FOLDER}/a.csv", cbf(A, B, A, A))
    receipt = w.receipt(done)
    assert receipt["rows"] == rows(in_=4, accepted=4)
    (warning,) = receipt["warnings"]
    assert warning.startswith("2 rows stand more than once in their hour, all columns alike (line 4, line 5)")
    assert "lineitem/id" in warning
    assert w.held()["count"] == 4


def test_totals_of_cost_columns_that_disagree_are_a_warning(w: Billing) -> None:
    text = "time/usage_start,cost/cost,cost/amortized_cost\n2026-03-01T05:00:00Z,10,7.5\n"
    receipt = w.receipt(w.deliver_file(f"{FOLDER}/a.csv", text.encode()))
    assert receipt["outcome"] == "delivered"
    assert any("10" in warning and "7.5" in warning for warning in receipt["warnings"]), receipt["warnings"]
    assert receipt["money"]["by_column"]["cost/amortized_cost"]["in"] == "7.5"


def test_a_bad_row_is_named_and_the_others_are_delivered(w: Billing) -> None:
    body = cbf(A, ("01T07", "a lot", "EC2"), B)
    done = w.deliver_file(f"{FOLDER}/a.csv", body)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "partly_delivered"
    assert receipt["rows"] == rows(in_=3, accepted=2, rejected=1)
    (row,) = csv.DictReader(io.StringIO(w.rejected(done)))
    assert (row["line"], row["cost/cost"], row["resource/service"]) == ("3", "a lot", "EC2")
    assert row["error"]
    assert row["fix"]
    assert f"{FOLDER}/mended/{done.id}.csv" in receipt["next_command"]
    assert starts(w) == [A, B]


def test_a_rejected_row_whose_cost_can_be_read_is_counted_in_the_money(w: Billing) -> None:
    body = cbf(A, ("01T07", "4", "EC2"), B).replace(b"2026-03-01T07", b"2026-04-01T07")
    money = w.receipt(w.deliver_file(f"{FOLDER}/a.csv", body))["money"]
    assert (money["in"], money["sent"], money["rejected"]) == ("7.5", "3.5", "4")
    assert money["by_column"]["cost/cost"]["in"] == "7.5"


NO_COSTS: dict[bytes, str] = {
    b"": "empty",
    b"a,b\n1,2\n": "no header of CBF",
    cbf(): "no rows",
    cbf(("01T05", "x", "EC2")): "all 1 rows were rejected",
    FOCUS.replace("USD", "EUR").encode(): "EUR",
    b"PK\x03\x04" + bytes(40): "zip",
}


def test_a_file_of_no_costs_is_rejected_with_the_way_to_mend_it(w: Billing) -> None:
    for body, words in NO_COSTS.items():
        receipt = w.receipt(w.deliver_file(f"{FOLDER}/a.csv", body))
        assert receipt["outcome"] == "rejected"
        assert words in receipt["reason"]
        assert "fix" in receipt["reason"] or receipt["next_command"]
        assert receipt["rows"]["owed"] == 0
    assert w.posts() == []


# --- months -----------------------------------------------------------------------------------------------------------


def test_month_replaces_the_whole_month_and_a_file_beside_it_only_its_hours(live: Billing) -> None:
    live.deliver_file(f"{FOLDER}/a.csv", cbf(A, ("02T00", "9", "EC2")))
    done = live.deliver_file(f"{FOLDER}/month/all.csv", cbf(("01T05", "3", "EC2"), ("03T00", "4", "EC2")))
    assert outcome(live, done) == "delivered"
    assert starts(live) == [("01T05", "3", "EC2"), ("03T00", "4", "EC2")]
    assert live.modes() == ["replace_hourly", "replace_drop"]
    again = live.deliver_file(f"{FOLDER}/month/all.csv", cbf(("01T05", "5", "EC2")))
    assert outcome(live, again) == "delivered"
    assert starts(live) == [("01T05", "5", "EC2")]


@pytest.mark.parametrize("folder", ["", "month/"])
def test_several_bodies_share_no_hour_and_only_the_first_wipes_the_month(live: Billing, folder: str) -> None:
    live.deliver_file(f"{FOLDER}/{folder}a.csv", cbf(("31T23", "9", "EC2")))
    name = "a.csv" if folder else "b.csv"
    done = live.deliver_file(f"{FOLDER}/{folder}{name}", wide(5, 15, 120_000))
    receipt = live.receipt(done)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert [unit["rows"] for unit in receipt["units"]] == [30, 30, 15]
    assert all(unit["bytes"] < 5_000_000 for unit in receipt["units"])
    first = "replace_drop" if folder else "replace_hourly"
    assert live.modes()[1:] == [first, "replace_hourly", "replace_hourly"]
    held = live.held()
    assert held["count"] == 75 + (not folder)
    assert (receipt["money"]["sent"], receipt["money"]["difference"]) == ("18.75", "0.00")
    assert live.total() == Decimal("18.75") + (0 if folder else 9)


@pytest.mark.parametrize("folder", ["", "month/"])
def test_an_hour_larger_than_a_body_goes_on_as_a_sum(live: Billing, folder: str) -> None:
    done = live.deliver_file(f"{FOLDER}/{folder}a.csv", wide(1, 90, 120_000))
    receipt = live.receipt(done)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert live.modes() == ["replace_drop" if folder else "replace_hourly", "sum", "sum"]
    assert live.held()["count"] == 90
    # What was sent again replaces all of it: the first body wipes the hour, the others add to it.
    again = live.deliver_file(f"{FOLDER}/{folder}a.csv", wide(1, 88, 120_000))
    assert outcome(live, again) == "delivered"
    assert live.held()["count"] == 88
    assert live.total() == 22


def test_a_closed_month_is_held_and_relay_yaml_may_open_it(w: Billing) -> None:
    """Row 26: late costs of a closed month are held; the months that are open are a setting."""
    january = cbf(A).replace(b"2026-03", b"2026-01")
    held = w.deliver_file(f"incoming/billing/{CONNECTION}/2026-01/a.csv", january)
    receipt = w.receipt(held)
    assert receipt["outcome"] == "held"
    assert "2026-01 is closed" in receipt["reason"]
    assert "months_open" in receipt["reason"]
    assert receipt["rows"] == rows(in_=1, owed=1)
    assert f"incoming/release/{held.id}.json" in receipt["next_command"]
    assert w.posts() == []
    configured(w, f"billing: {{connections: {{{CONNECTION}: {{months_open: 2}}}}}}\n")
    assert outcome(w, w.deliver_file(f"incoming/billing/{CONNECTION}/2026-01/a.csv", january)) == "delivered"
    assert w.held(month="2026-01")["count"] == 1
    other = w.deliver_file(f"incoming/billing/{CONNECTION}/2026-01/b.csv", january.replace(b"T05", b"T06"))
    assert outcome(w, other) == "delivered"


def test_last_month_may_be_replaced_and_none_that_is_to_come(w: Billing) -> None:
    """Row 26: this month and the last one are open; a person may override for one delivery."""
    assert outcome(w, w.deliver_file(f"{FORMER}/a.csv", cbf(A).replace(b"2026-03", b"2026-02"))) == "delivered"
    april = w.deliver_file(f"incoming/billing/{CONNECTION}/2026-04/a.csv", cbf(A).replace(b"2026-03", b"2026-04"))
    assert outcome(w, april) == "held"
    assert "is still to come" in w.receipt(april)["reason"]
    assert outcome(w, w.decide(april, "send")) == "delivered"
    assert w.held(month="2026-04")["count"] == 1


def test_only_this_month_is_open_where_relay_yaml_says_so(w: Billing) -> None:
    """Row 26: the policy may be stricter than the default."""
    configured(w, "billing: {months_open: 0}\n")
    assert outcome(w, w.deliver_file(f"{FORMER}/a.csv", cbf(A).replace(b"2026-03", b"2026-02"))) == "held"


def test_a_file_of_more_than_a_month_may_hold_is_rejected_before_anything_is_sent(live: Billing) -> None:
    """Row 16: a file that is too large for the month is refused with the figures."""
    receipt = live.receipt(live.deliver_file(f"{FOLDER}/a.csv", wide(60, 10, 118_000)))
    assert receipt["outcome"] == "rejected"
    assert "70,000,000 bytes a month" in receipt["reason"]
    assert "600 rows" in receipt["reason"]
    assert "aggregate" in receipt["reason"]
    assert receipt["rows"] == rows(in_=600, rejected=600)
    assert live.posts() == []
    assert live.keys(SPOOL) == []


# --- versions of a key, and other keys --------------------------------------------------------------------------------


def test_a_newer_version_of_a_key_replaces_its_hours(live: Billing) -> None:
    live.deliver_file(f"{FOLDER}/a.csv", cbf(A, B))
    done = live.deliver_file(
        f"{FOLDER}/a.csv", cbf(("01T05", "7", "EC2"), ("01T05", "1", "RDS"), B, ("01T07", "1", "S3"))
    )
    assert outcome(live, done) == "delivered"
    assert starts(live) == [("01T05", "7", "EC2"), ("01T05", "1", "RDS"), B, ("01T07", "1", "S3")]


def test_hours_that_a_newer_version_lacks_are_held_and_sending_leaves_them(live: Billing) -> None:
    live.deliver_file(f"{FOLDER}/a.csv", cbf(A, B))
    held = live.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "7", "EC2")))
    receipt = live.receipt(held)
    assert receipt["outcome"] == "held"
    assert "no row for the hours 2026-03-01T06:00Z" in receipt["reason"]
    assert "month/" in receipt["reason"]
    done = live.decide(held, "send")
    assert outcome(live, done) == "delivered"
    assert starts(live) == [("01T05", "7", "EC2"), B]
    # The key still has the hour: a version without it is held once more, the complete month ends it.
    again = live.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "8", "EC2")))
    assert outcome(live, again) == "held"
    assert outcome(live, live.deliver_file(f"{FOLDER}/month/all.csv", cbf(("01T05", "8", "EC2")))) == "delivered"
    assert outcome(live, live.ledger.delivery(again.id)) == "superseded"
    assert starts(live) == [("01T05", "8", "EC2")]


def test_another_file_for_hours_that_were_sent_is_held(w: Billing) -> None:
    w.deliver_file(f"{FOLDER}/account-a.csv", cbf(A, B))
    held = w.deliver_file(f"{FOLDER}/account-b.csv", cbf(B, ("01T07", "1", "S3")))
    receipt = w.receipt(held)
    assert receipt["outcome"] == "held"
    assert "the hours 2026-03-01T06:00Z were sent by" in receipt["reason"]
    assert "account-a.csv" in receipt["reason"]
    assert "overlap: replace" in receipt["reason"]
    assert starts(w) == [A, B]
    assert outcome(w, w.decide(held, "send")) == "delivered"
    assert starts(w) == [A, B, ("01T07", "1", "S3")] if w.live else [A, B, B, ("01T07", "1", "S3")]


def test_another_file_for_other_hours_is_delivered(w: Billing) -> None:
    w.deliver_file(f"{FOLDER}/account-a.csv", cbf(A))
    assert outcome(w, w.deliver_file(f"{FOLDER}/account-b.csv", cbf(B))) == "delivered"
    assert starts(w) == [A, B]


def test_relay_yaml_may_let_the_files_of_a_connection_overlap(w: Billing) -> None:
    configured(w, f"billing: {{connections: {{{CONNECTION}: {{overlap: replace}}}}}}\n")
    w.deliver_file(f"{FOLDER}/account-a.csv", cbf(A, B))
    done = w.deliver_file(f"{FOLDER}/account-b.csv", cbf(("01T06", "5", "RDS")))
    assert outcome(w, done) == "delivered"
    assert starts(w) == ([A, ("01T06", "5", "RDS")] if w.live else [A, B, ("01T06", "5", "RDS")])
    if w.live:  # what was replaced is not there any more: the first file is not unchanged
        assert outcome(w, w.deliver_file(f"{FOLDER}/account-a.csv", cbf(A, B))) == "delivered"
        assert starts(w) == [A, B]


@pytest.mark.parametrize("folder", ["", "month/"])
def test_the_same_costs_again_are_unchanged_whatever_the_bytes(w: Billing, folder: str) -> None:
    w.deliver_file(f"{FOLDER}/{folder}a.csv", cbf(A, B))
    for key, body in (("a.csv", cbf(A, B)), ("a.csv", gzip.compress(cbf(B, A))), ("b.csv", cbf(A, B) + b"\n")):
        receipt = w.receipt(w.deliver_file(f"{FOLDER}/{folder}{key}", body))
        assert receipt["outcome"] == "unchanged", (key, receipt["reason"])
        assert receipt["rows"] == rows(in_=2, accepted=2)
        assert {unit["status"] for unit in receipt["units"]} == {"unchanged"}
    assert len(w.posts()) == 1


def test_an_older_content_dropped_again_is_put_back(live: Billing) -> None:
    for body, cost in ((cbf(A), "1.5"), (cbf(("01T05", "2", "EC2")), "2"), (cbf(A), "1.5")):
        assert outcome(live, live.deliver_file(f"{FOLDER}/a.csv", body)) == "delivered"
        assert starts(live) == [("01T05", cost, "EC2")]


def test_a_month_that_another_file_has_touched_since_is_not_unchanged(live: Billing) -> None:
    live.deliver_file(f"{FOLDER}/month/all.csv", cbf(A, B))
    configured(live, "billing: {overlap: replace}\n")
    live.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "9", "EC2")))
    assert outcome(live, live.deliver_file(f"{FOLDER}/month/all.csv", cbf(A, B))) == "delivered"
    assert starts(live) == [A, B]


def test_a_file_within_a_month_that_was_sent_whole_is_held(live: Billing) -> None:
    live.deliver_file(f"{FOLDER}/month/all.csv", cbf(A, B))
    held = live.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "9", "EC2")))
    assert outcome(live, held) == "held"
    assert "month/all.csv" in live.receipt(held)["reason"]


def test_an_older_event_of_a_key_is_stale(w: Billing) -> None:
    """Row 4: of two events for one key the older one ends as stale, whatever came first."""
    older = w.drop(f"{FOLDER}/a.csv", cbf(A))
    assert outcome(w, w.deliver_file(f"{FOLDER}/a.csv", cbf(B))) == "delivered"
    assert outcome(w, w.prepare(older)) == "stale"
    assert starts(w) == [B]


def test_a_newer_version_ends_one_that_still_waits(w: Billing) -> None:
    """Row 15: of two versions that wait for one connection only the newer one is sent."""
    older = prepared(w, f"{FOLDER}/a.csv", cbf(A))
    newer = prepared(w, f"{FOLDER}/a.csv", cbf(A, B))
    ended = w.finish(older.id)
    assert outcome(w, ended) == "superseded"
    assert newer.id in w.receipt(ended)["reason"]
    assert outcome(w, w.finish(newer.id)) == "delivered"
    assert starts(w) == [A, B]
    assert len(w.posts()) == 1


def test_an_older_version_that_was_held_up_until_the_newer_had_been_sent_is_superseded(w: Billing) -> None:
    """Row 15: a version that comes late never replaces a newer one."""
    older = prepared(w, f"{FOLDER}/a.csv", cbf(A))
    newer = prepared(w, f"{FOLDER}/a.csv", cbf(A, B))
    assert outcome(w, w.finish(newer.id)) == "delivered"
    assert outcome(w, w.finish(older.id)) == "superseded"
    assert starts(w) == [A, B]


def test_a_whole_month_ends_older_files_of_it_that_wait_and_no_others(w: Billing) -> None:
    former = prepared(w, f"{FORMER}/a.csv", cbf(A).replace(b"2026-03", b"2026-02"))
    partial = prepared(w, f"{FOLDER}/a.csv", cbf(A))
    month = prepared(w, f"{FOLDER}/month/all.csv", cbf(A, B))
    younger = prepared(w, f"{FOLDER}/b.csv", cbf(("02T00", "3", "S3")))
    assert outcome(w, w.finish(former.id)) == "delivered"
    assert outcome(w, w.finish(partial.id)) == "superseded"
    assert outcome(w, w.finish(month.id)) == "delivered"
    assert outcome(w, w.finish(younger.id)) == "delivered"
    assert starts(w) == [A, B, ("02T00", "3", "S3")]


def test_a_file_older_than_the_month_that_was_sent_is_superseded(w: Billing) -> None:
    partial = prepared(w, f"{FOLDER}/a.csv", cbf(A))
    month = prepared(w, f"{FOLDER}/month/all.csv", cbf(B))
    assert outcome(w, w.finish(month.id)) == "delivered"
    assert outcome(w, w.finish(partial.id)) == "superseded"
    assert starts(w) == [B]


def test_a_file_older_than_another_that_has_sent_its_hours_is_held_even_where_files_may_overlap(live: Billing) -> None:
    configured(live, "billing: {overlap: replace}\n")
    older = prepared(live, f"{FOLDER}/a.csv", cbf(A))
    assert outcome(live, live.finish(prepared(live, f"{FOLDER}/b.csv", cbf(("01T05", "9", "S3"))).id)) == "delivered"
    held = live.finish(older.id)
    assert outcome(live, held) == "held"
    assert "is older than delivery" in live.receipt(held)["reason"]
    assert starts(live) == [("01T05", "9", "S3")]


# --- openapi: what is sent stays --------------------------------------------------------------------------------------


def test_a_file_that_grows_sends_only_its_new_hours(openapi: Billing) -> None:
    openapi.deliver_file(f"{FOLDER}/a.csv", cbf(A, B))
    done = openapi.deliver_file(f"{FOLDER}/a.csv", cbf(A, B, ("01T07", "4", "S3"), ("01T08", "5", "S3")))
    receipt = openapi.receipt(done)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == rows(in_=4, accepted=4)
    assert "2 rows were sent before" in " ".join(receipt["warnings"])
    assert [post["rows"] for post in openapi.posts()] == [2, 2]
    assert starts(openapi) == [A, B, ("01T07", "4", "S3"), ("01T08", "5", "S3")]
    third = openapi.deliver_file(
        f"{FOLDER}/a.csv", cbf(A, B, ("01T07", "4", "S3"), ("01T08", "5", "S3"), ("01T09", "6", "S3"))
    )
    assert outcome(openapi, third) == "delivered"
    assert [post["rows"] for post in openapi.posts()] == [2, 2, 1]


def test_a_month_that_grows_sends_only_its_new_hours(openapi: Billing) -> None:
    openapi.deliver_file(f"{FOLDER}/a.csv", cbf(A))
    openapi.deliver_file(f"{FOLDER}/b.csv", cbf(B))
    done = openapi.deliver_file(f"{FOLDER}/month/all.csv", cbf(A, B, ("01T07", "4", "S3")))
    assert outcome(openapi, done) == "delivered"
    assert starts(openapi) == [A, B, ("01T07", "4", "S3")]
    assert openapi.modes() == ["append"] * 3


@pytest.mark.parametrize("changed", [[("01T05", "7", "EC2"), B], [B], [A, B, ("01T05", "1", "RDS")]])
def test_hours_that_are_others_now_are_held_where_nothing_can_be_replaced(
    openapi: Billing, changed: list[tuple[str, str, str]]
) -> None:
    openapi.deliver_file(f"{FOLDER}/a.csv", cbf(A, B))
    held = openapi.deliver_file(f"{FOLDER}/a.csv", cbf(*changed))
    receipt = openapi.receipt(held)
    assert receipt["outcome"] == "held"
    assert "the hours 2026-03-01T05:00Z were sent before" in receipt["reason"]
    assert "counts twice" in receipt["reason"]
    assert starts(openapi) == [A, B]


def test_changed_hours_are_added_at_a_persons_word_and_then_known(openapi: Billing) -> None:
    openapi.deliver_file(f"{FOLDER}/a.csv", cbf(A, B))
    held = openapi.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "7", "EC2"), B))
    done = openapi.decide(held, "send")
    assert outcome(openapi, done) == "delivered"
    assert starts(openapi) == [A, ("01T05", "7", "EC2"), B]  # B was there just so, and is not sent again
    assert outcome(openapi, openapi.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "8", "EC2"), B))) == "held"


# --- a person's word --------------------------------------------------------------------------------------------------


def held_for(w: Billing, why: str) -> tuple[Delivery, list[tuple[str, str, str]]]:
    """Return a delivery that is held because of *why*, and what the vendor holds beside it."""
    if why == "closed":
        body = cbf(A).replace(b"2026-03", b"2026-01")
        return w.deliver_file(f"incoming/billing/{CONNECTION}/2026-01/a.csv", body), []
    w.deliver_file(f"{FOLDER}/a.csv", cbf(A, B))
    if why == "overlap":
        return w.deliver_file(f"{FOLDER}/b.csv", cbf(("01T05", "7", "RDS"))), [A, B]
    assert why == "changed"  # or lacks an hour, where hours can be replaced
    return w.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "7", "RDS"))), [A, B]


@pytest.mark.parametrize("decision", ["send", "drop", "mark as arrived"])
@pytest.mark.parametrize("why", ["closed", "overlap", "changed"])
def test_each_decision_about_a_delivery_that_sent_nothing_yet_is_kept(w: Billing, why: str, decision: str) -> None:
    held, before = held_for(w, why)
    assert outcome(w, held) == "held"
    sent = len(w.posts())
    receipt = w.receipt(w.decide(held, decision))
    month = "2026-01" if why == "closed" else MONTH
    if decision == "send":
        assert receipt["outcome"] == "delivered", receipt["reason"]
        mine = A if why == "closed" else ("01T05", "7", "RDS")
        others = before[1:] if w.live else before
        assert sorted(starts(w, month)) == sorted([mine, *others])
        assert receipt["rows"] == rows(in_=1, accepted=1)
        return
    assert len(w.posts()) == sent
    assert receipt["outcome"] == ("rejected" if decision == "drop" else "delivered"), receipt["reason"]
    counted = "rejected" if decision == "drop" else "accepted"
    assert receipt["rows"] == rows(in_=1, **{counted: 1})
    said = receipt["reason"] + " ".join(receipt["warnings"])
    assert "by a person's decision" in said
    assert receipt["next_command"] == ""


def test_what_was_marked_as_arrived_is_unchanged_when_it_comes_again(w: Billing) -> None:
    held, _ = held_for(w, "overlap")
    w.decide(held, "mark as arrived")
    assert outcome(w, w.deliver_file(f"{FOLDER}/b.csv", cbf(("01T05", "7", "RDS")))) == "unchanged"
    assert starts(w) == [A, B]


def test_what_was_dropped_is_held_again_when_it_comes_again(w: Billing) -> None:
    held, _ = held_for(w, "overlap")
    w.decide(held, "drop")
    again = w.deliver_file(f"{FOLDER}/b.csv", cbf(("01T05", "7", "RDS")))
    assert again.id != held.id
    assert outcome(w, again) == "held"


def test_the_next_command_of_a_held_delivery_is_a_release_file(w: Billing) -> None:
    held, _ = held_for(w, "closed")
    command = w.receipt(held)["next_command"]
    assert command.startswith('echo \'{"decision": "send"}\' | aws s3 cp - ')
    assert f"s3://{DROPS}/incoming/release/{held.id}.json" in command
    assert '"drop"' in command
    assert '"mark as arrived"' in command
    assert '"send"' in command


NO_DECISIONS: dict[bytes, str] = {
    b"send": "no JSON",
    b"\xff\xfe": "no JSON",
    b"[" * 5_000: "no JSON",
    b'"send"': "the file",
    b"{}": "decision",
    b'{"decision": "perhaps"}': "is none of send, drop",
    b'{"decision": ["send"]}': "decision",
    b'{"decision": "send", "delivery": "x"}': "delivery",
    b'{"decision": "' + b"x" * 20_000 + b'"}': "too large",
}


def test_a_release_file_that_decides_nothing_is_rejected_and_the_delivery_stays_held(openapi: Billing) -> None:
    held, _ = held_for(openapi, "closed")
    for body, words in NO_DECISIONS.items():
        told = openapi.release(openapi.drop(f"incoming/release/{held.id}.json", body))
        assert told is not None
        receipt = openapi.receipt(told)
        assert receipt["kind"] == "release"
        assert receipt["outcome"] == "rejected"
        assert words in receipt["reason"]
        assert '{"decision": "send"}' in receipt["reason"]
        assert len(receipt["reason"]) < 1_000
        assert outcome(openapi, held) == "held"
    assert outcome(openapi, openapi.decide(held, "Mark_as-Arrived")) == "delivered"  # spelt as people spell


def test_a_release_file_for_what_is_not_held_is_rejected(openapi: Billing) -> None:
    done = openapi.deliver_file(f"{FOLDER}/a.csv", cbf(A))
    told: dict[str, Delivery | None] = {}
    for name in (done.id, "0" * 64, "last", f"x/{done.id}"):
        key = f"incoming/release/{name}.json"
        told[name] = openapi.release(openapi.drop(key, b'{"decision": "send"}'))
    reasons = {name: openapi.receipt(found)["reason"] for name, found in told.items() if found is not None}
    assert all(outcome(openapi, found) == "rejected" for found in told.values())
    assert all("fix: " in reason for reason in reasons.values())
    assert "is not held: it is delivered" in reasons[done.id]
    assert "there is no delivery of this id" in reasons["0" * 64]
    assert "no delivery's id" in reasons["last"]
    assert "no delivery's id" in reasons[f"x/{done.id}"]
    assert openapi.release(openapi.drop("incoming/release/", b"")) is None
    assert len(openapi.posts()) == 1


def test_a_decision_dropped_twice_is_taken_once(w: Billing) -> None:
    """Row 4: neither a copy of the event nor a second file decides anything again."""
    held, _ = held_for(w, "closed")
    key, body = f"incoming/release/{held.id}.json", b'{"decision": "send"}'
    source = w.drop(key, body)
    first = w.release(source)
    assert outcome(w, w.release(source)) == "delivered"  # the same event once more
    second = w.release(w.drop(key, body))
    assert outcome(w, first) == "delivered"
    assert outcome(w, second) == "rejected"
    assert outcome(w, w.finish(held.id)) == "delivered"
    assert outcome(w, w.release(w.drop(key, body))) == "rejected"
    assert len(w.posts()) == 1


def test_a_release_goes_on_past_the_deliveries_that_wait_for_it(w: Billing) -> None:
    held, _ = held_for(w, "closed")
    behind = prepared(w, f"{FOLDER}/a.csv", cbf(A))
    w.queued()
    w.release(w.drop(f"incoming/release/{held.id}.json", b'{"decision": "drop"}'))
    (message,) = w.queued()
    assert json.loads(message["Body"])["delivery"] == held.id
    assert message["Attributes"]["MessageGroupId"] not in {behind.group, held.group}


def test_deliveries_behind_a_held_one_say_so_and_go_on_when_it_is_decided(w: Billing) -> None:
    """Row 15: what is held holds up its own connection, and the receipts of those behind it say so."""
    first = prepared(w, f"incoming/billing/{CONNECTION}/2026-01/a.csv", cbf(A).replace(b"2026-03", b"2026-01"))
    before = prepared(w, f"{FOLDER}/a.csv", cbf(A))
    held = w.finish(first.id)
    assert outcome(w, held) == "held"
    after = prepared(w, f"{FOLDER}/b.csv", cbf(B))
    for waiting in (before, after):
        receipt = w.receipt(waiting)
        assert receipt["outcome"] == "pending"
        assert f"behind delivery {held.id}" in receipt["reason"]
        with pytest.raises(Wait, match="a person must decide"):
            w.step(waiting.id)
        assert f"behind delivery {held.id}" in w.receipt(waiting)["reason"]
    assert w.posts() == []
    w.decide(held, "drop")
    for waiting in (before, after):
        done = w.finish(waiting.id)
        assert outcome(w, done) == "delivered"
        assert w.receipt(done)["reason"] == ""
    assert starts(w) == [A, B]


def test_another_connection_is_not_held_up(w: Billing) -> None:
    """Row 15: what is held holds up no other connection."""
    held, _ = held_for(w, "closed")
    assert outcome(w, held) == "held"
    assert outcome(w, w.deliver_file(f"incoming/billing/{OTHER}/{MONTH}/a.csv", cbf(A))) == "delivered"
    assert w.held(OTHER)["count"] == 1


def test_a_newer_version_ends_a_held_one_that_has_sent_nothing(w: Billing) -> None:
    w.deliver_file(f"{FOLDER}/a.csv", cbf(A, B))
    held = w.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "7", "RDS")))
    assert outcome(w, held) == "held"
    newer = w.deliver_file(f"{FOLDER}/a.csv", cbf(A, B, ("01T07", "1", "S3")))
    assert outcome(w, newer) == "delivered"
    receipt = w.receipt(held)
    assert receipt["outcome"] == "superseded"
    assert newer.id in receipt["reason"]
    assert starts(w) == [A, B, ("01T07", "1", "S3")]


# --- folders ----------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_folder_are_one_month(w: Billing) -> None:
    folder = f"{FOLDER}/month/export"
    assert w.prepare(w.drop(f"{folder}/a.csv", cbf(A, B))) is None
    w.drop(f"{folder}/b.csv.gz", gzip.compress(cbf(("01T05", "4", "RDS"))))
    w.drop(f"{folder}/_committed_1", b"not costs")
    done = w.deliver_file(f"{folder}/_SUCCESS", b"")
    receipt = w.receipt(done)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == rows(in_=3, accepted=3)
    assert [part["key"].rpartition("/")[2] for part in receipt["source"]["parts"]] == ["a.csv", "b.csv.gz"]
    assert starts(w) == [A, ("01T05", "4", "RDS"), B]
    assert w.modes() == ["replace_drop" if w.live else "append"]
    assert outcome(w, w.deliver_file(f"{folder}/_SUCCESS", b"")) == "unchanged"
    assert outcome(w, done) == "delivered"


def test_a_bad_row_of_a_folder_is_named_with_its_part_and_its_mended_row_comes_back(w: Billing) -> None:
    folder = f"{FOLDER}/month/export"
    w.drop(f"{folder}/a.csv", cbf(A))
    w.drop(f"{folder}/b.csv", cbf(("01T06", "?", "S3"), ("01T07", "1", "S3")))
    done = w.deliver_file(f"{folder}/_SUCCESS", b"")
    assert outcome(w, done) == "partly_delivered"
    (row,) = csv.DictReader(io.StringIO(w.rejected(done)))
    assert row["line"] == "b.csv:2"
    again = w.deliver_file(f"{folder}/mended/{done.id}.csv", mended(w, done, **{"cost/cost": "2"}))
    assert outcome(w, again) == "delivered", w.receipt(again)["reason"]
    assert sorted(starts(w)) == [A, B, ("01T07", "1", "S3")]


def test_a_folder_without_a_marker_is_held_once_and_ended_by_its_marker(w: Billing) -> None:
    folder = f"{FOLDER}/month/export"
    w.drop(f"{folder}/a.csv", cbf(A))
    w.drop(f"{FOLDER}/b.csv", cbf(B))  # no folder: a delivery of its own
    w.time[0] = datetime.now(UTC) + timedelta(hours=23)  # objects are dated by moto's clock, which is the real one
    assert sweep(w.ports, DROPS, timedelta(hours=24), KIND, FOLDERS) == []
    w.time[0] += timedelta(hours=2)
    (held,) = sweep(w.ports, DROPS, timedelta(hours=24), KIND, FOLDERS)
    receipt = w.receipt(held)
    assert receipt["outcome"] == "held"
    assert f"{folder}/_SUCCESS" in receipt["next_command"]
    sweep(w.ports, DROPS, timedelta(hours=24), KIND, FOLDERS)
    assert w.metrics.counts["DeliveryHeld"] == 1
    released = w.release(w.drop(f"incoming/release/{held.id}.json", b'{"decision": "send"}'))
    assert outcome(w, released) == "rejected"
    assert "_SUCCESS" in reason(w, released)
    configured(w, "billing: {months_open: 24}\n")  # the sweep has turned the clock to the real time
    assert outcome(w, w.deliver_file(f"{folder}/_SUCCESS", b"")) in {"delivered", "held"}
    assert outcome(w, w.ledger.delivery(held.id)) == "superseded"


def test_a_part_replaced_after_its_marker_refuses_the_month_rather_than_mix(live: Billing) -> None:
    """Row 3: a part that changed after its marker makes no mixture."""
    folder = f"{FOLDER}/month/export"
    live.drop(f"{folder}/a.csv", cbf(A))
    marker = live.drop(f"{folder}/_SUCCESS", b"")
    sleep(1.1)  # S3's dates are whole seconds
    live.drop(f"{folder}/a.csv", cbf(B))
    refused = live.prepare(marker)
    assert outcome(live, refused) == "rejected"
    assert "written after the marker" in reason(live, refused)
    assert live.posts() == []


def test_a_key_that_says_no_connection_and_month_is_rejected_with_the_way_to_say_it(live: Billing) -> None:
    month = f"{CONNECTION}/{MONTH}"
    for key in ("a/b/c.csv", "x.csv", f"{CONNECTION}/2026-13/x.csv", f"{month}/x/y.csv", f"{CONNECTION}/x.csv"):
        receipt = live.receipt(live.deliver_file(f"incoming/billing/{key}", cbf(A)))
        assert receipt["outcome"] == "rejected"
        assert "fix: " in receipt["reason"]
    assert live.posts() == []


# --- plan/ ------------------------------------------------------------------------------------------------------------


def planned(w: Billing, body: bytes, name: str = "a.csv", month: str = MONTH) -> dict[str, Any]:
    """Plan a file; return its receipt."""
    found = w.receipt(w.deliver_file(f"plan/billing/{CONNECTION}/{month}/{name}", body))
    assert found["outcome"] in {"unchanged", "rejected"}
    return found


def test_a_dry_run_writes_nothing_at_the_vendor_and_says_what_would_be_done(w: Billing) -> None:
    receipt = planned(w, cbf(A, B))
    assert receipt["plan"]["verdict"] == "would_deliver"
    (step,) = receipt["plan"]["steps"]
    assert step.startswith("send body 1: 2 rows, ")
    assert receipt["rows"] == rows(in_=2, owed=2)
    assert f"s3://{DROPS}/{FOLDER}/a.csv" in receipt["next_command"]
    assert w.posts() == []
    assert w.state()["counts"].get(SEND, 0) == 0
    assert w.ledger.target(f"billing/{CONNECTION}").version == 0


def test_a_dry_run_says_each_verdict(w: Billing) -> None:
    w.deliver_file(f"{FOLDER}/a.csv", cbf(A, B))
    assert planned(w, cbf(A, B))["plan"]["verdict"] == "unchanged"
    overlap = planned(w, cbf(("01T05", "9", "S3")), "b.csv")["plan"]
    assert overlap["verdict"] == "would_be_held"
    assert "were sent by" in overlap["why"]
    closed = planned(w, cbf(A).replace(b"2026-03", b"2026-01"), month="2026-01")["plan"]
    assert closed["verdict"] == "would_be_held"
    assert "is closed" in closed["why"]
    bad = planned(w, cbf(("01T05", "x", "S3")))
    assert (bad["outcome"], bad["plan"]["verdict"]) == ("rejected", "would_be_rejected")
    assert len(w.posts()) == 1


def test_a_dry_run_neither_supersedes_nor_waits_behind_the_real_thing(w: Billing) -> None:
    held, _ = held_for(w, "overlap")
    real = prepared(w, f"{FOLDER}/c.csv", cbf(("02T00", "1", "S3")))
    plan = prepared(w, f"plan/billing/{CONNECTION}/{MONTH}/c.csv", cbf(("02T00", "2", "S3")))
    assert plan.group != real.group
    assert w.receipt(w.finish(plan.id))["plan"]["verdict"] == "would_deliver"
    assert outcome(w, held) == "held"
    assert outcome(w, real) == "pending"


def test_a_dry_run_of_a_version_that_would_lack_hours_says_so(live: Billing) -> None:
    live.deliver_file(f"{FOLDER}/a.csv", cbf(A, B))
    plan = planned(live, cbf(A))["plan"]
    assert plan["verdict"] == "would_be_held", plan
    assert "no row for" in plan["why"]
    assert planned(live, cbf(A, ("01T06", "9", "S3")))["plan"]["verdict"] == "would_deliver"


def test_a_dry_run_of_a_folder_says_how_to_drop_it_for_real(w: Billing) -> None:
    folder = f"plan/billing/{CONNECTION}/{MONTH}/month/export"
    w.drop(f"{folder}/a.csv", cbf(A))
    command = w.receipt(w.deliver_file(f"{folder}/_SUCCESS", b""))["next_command"]
    assert command.index(f"{FOLDER}/month/export/a.csv") < command.index(f"{FOLDER}/month/export/_SUCCESS")


# --- mended rows ------------------------------------------------------------------------------------------------------


def mended(w: Billing, delivery: Delivery, **changes: str) -> bytes:
    """Return a delivery's rejected rows with values written into each."""
    reader = csv.DictReader(io.StringIO(w.rejected(delivery)))
    out = io.StringIO()
    writer = csv.DictWriter(out, reader.fieldnames or [])
    writer.writeheader()
    for row in reader:
        writer.writerow(row | changes)
    return out.getvalue().encode()


def test_a_mended_hour_goes_whole_where_hours_are_replaced(live: Billing) -> None:
    first = live.deliver_file(f"{FOLDER}/a.csv", cbf(A, ("01T05", "?", "RDS"), B))
    assert outcome(live, first) == "partly_delivered"
    done = live.deliver_file(f"{FOLDER}/mended/{first.id}.csv", mended(live, first, **{"cost/cost": "4"}))
    receipt = live.receipt(done)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == rows(in_=3, accepted=3)
    assert starts(live) == [A, ("01T05", "4", "RDS"), B]
    assert live.modes() == ["replace_hourly"] * 2
    # The hours are the key's own: its next version replaces them, and is not held for an overlap.
    again = live.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "6", "RDS"), B))
    assert outcome(live, again) == "delivered"


def test_mended_rows_of_an_older_version_never_replace_a_newer_one(live: Billing) -> None:
    first = live.deliver_file(f"{FOLDER}/a.csv", cbf(A, ("01T05", "?", "RDS")))
    live.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "8", "S3")))
    late = live.deliver_file(f"{FOLDER}/mended/{first.id}.csv", mended(live, first, **{"cost/cost": "4"}))
    assert outcome(live, late) == "superseded"
    assert starts(live) == [("01T05", "8", "S3")]


def test_mended_rows_of_nothing_are_refused(w: Billing) -> None:
    good = w.deliver_file(f"{FOLDER}/a.csv", cbf(A))
    for name in ("x", "0" * 64, good.id):
        refused = w.deliver_file(f"{FOLDER}/mended/{name}.csv", b"cost/cost,line,error,fix\n1,2,,\n")
        assert outcome(w, refused) == "rejected", name
    assert len(w.posts()) == 1


def test_rows_mended_of_a_file_of_which_nothing_was_taken_go_with_it(w: Billing) -> None:
    first = w.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "?", "EC2"), ("01T06", "?", "S3")))
    assert outcome(w, first) == "rejected"
    second = w.deliver_file(f"{FOLDER}/mended/{first.id}.csv", mended(w, first, **{"cost/cost": "1"}))
    receipt = w.receipt(second)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == rows(in_=2, accepted=2)
    assert starts(w) == [("01T05", "1", "EC2"), ("01T06", "1", "S3")]


def test_only_the_mended_rows_go_where_drops_append(openapi: Billing) -> None:
    first = openapi.deliver_file(f"{FOLDER}/a.csv", cbf(A, ("01T05", "?", "RDS"), B, ("01T07", "?", "S3")))
    assert openapi.receipt(first)["rows"] == rows(in_=4, accepted=2, rejected=2)
    done = openapi.deliver_file(f"{FOLDER}/mended/{first.id}.csv", mended(openapi, first, **{"cost/cost": "4"}))
    receipt = openapi.receipt(done)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == rows(in_=2, accepted=2)
    assert (receipt["money"]["in"], receipt["money"]["sent"]) == ("8", "8")
    assert sorted(starts(openapi)) == sorted([A, ("01T05", "4", "RDS"), B, ("01T07", "4", "S3")])
    assert [post["rows"] for post in openapi.posts()] == [2, 2]
    # Once more is nothing new, and the file itself goes on to grow beside them.
    body = openapi.text(done.source.key)
    assert outcome(openapi, openapi.deliver_file(f"{FOLDER}/mended/{first.id}.csv", body)) == "unchanged"
    grown = openapi.deliver_file(f"{FOLDER}/a.csv", cbf(A, ("01T05", "?", "RDS"), B, ("01T09", "9", "S3")))
    assert openapi.receipt(grown)["rows"] == rows(in_=4, accepted=3, rejected=1)
    assert [post["rows"] for post in openapi.posts()] == [2, 2, 1]


def test_a_row_that_was_not_rejected_is_not_sent_again_as_mended(openapi: Billing) -> None:
    first = openapi.deliver_file(f"{FOLDER}/a.csv", cbf(A, ("01T05", "?", "RDS"), B))
    text = mended(openapi, first, **{"cost/cost": "4"}).replace(b",3,", b",2,")
    refused = openapi.deliver_file(f"{FOLDER}/mended/{first.id}.csv", text)
    receipt = openapi.receipt(refused)
    assert receipt["outcome"] == "rejected"
    assert "this row was not rejected by delivery" in receipt["reason"]
    assert "'2'" in receipt["reason"]
    assert starts(openapi) == [A, B]


def test_rows_mended_before_their_delivery_has_ended_are_refused_where_nobody_knows_what_went(openapi: Billing) -> None:
    first = prepared(openapi, f"{FOLDER}/a.csv", cbf(A, ("01T05", "?", "RDS"), B))
    text = mended(openapi, first, **{"cost/cost": "4"})
    early = openapi.deliver_file(f"{FOLDER}/mended/{first.id}.csv", text)
    assert outcome(openapi, early) == "rejected"
    assert f"delivery {first.id} has not ended" in openapi.receipt(early)["reason"]
    assert outcome(openapi, openapi.finish(first.id)) == "partly_delivered"
    assert outcome(openapi, openapi.deliver_file(f"{FOLDER}/mended/{first.id}.csv", text)) == "delivered"
    assert sorted(starts(openapi)) == sorted([A, ("01T05", "4", "RDS"), B])


def test_rows_mended_before_their_delivery_has_ended_take_its_place_where_hours_are_replaced(live: Billing) -> None:
    first = prepared(live, f"{FOLDER}/a.csv", cbf(A, ("01T05", "?", "RDS"), B))
    early = prepared(live, f"{FOLDER}/mended/{first.id}.csv", mended(live, first, **{"cost/cost": "4"}))
    assert outcome(live, live.finish(first.id)) == "superseded"
    assert outcome(live, live.finish(early.id)) == "delivered"
    assert starts(live) == [A, ("01T05", "4", "RDS"), B]


def test_rows_that_are_mended_in_two_steps_all_arrive_once(w: Billing) -> None:
    first = w.deliver_file(f"{FOLDER}/a.csv", cbf(A, ("01T06", "?", "RDS"), ("01T07", "?", "S3")))
    lines = mended(w, first, **{"cost/cost": "4"}).decode().splitlines()
    lines[2] = lines[2].replace(",4,", ",nought,", 1)
    second = w.deliver_file(f"{FOLDER}/mended/{first.id}.csv", "\n".join(lines).encode())
    assert outcome(w, second) == "partly_delivered", w.receipt(second)["reason"]
    third = w.deliver_file(f"{FOLDER}/mended/{second.id}.csv", mended(w, second, **{"cost/cost": "5"}))
    receipt = w.receipt(third)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == (rows(in_=3, accepted=3) if w.live else rows(in_=1, accepted=1))
    assert starts(w) == [A, ("01T06", "4", "RDS"), ("01T07", "5", "S3")]


def test_rows_that_stay_bad_through_two_mendings_send_nothing_twice(openapi: Billing) -> None:
    first = openapi.deliver_file(f"{FOLDER}/a.csv", cbf(("01T05", "?", "EC2"), ("01T06", "?", "S3")))
    lines = mended(openapi, first, **{"cost/cost": "4"}).decode().splitlines()
    lines[2] = lines[2].replace(",4,", ",nought,", 1)
    second = openapi.deliver_file(f"{FOLDER}/mended/{first.id}.csv", "\n".join(lines).encode())
    assert openapi.receipt(second)["rows"] == rows(in_=2, accepted=1, rejected=1)
    third = openapi.deliver_file(f"{FOLDER}/mended/{second.id}.csv", mended(openapi, second))
    assert openapi.receipt(third)["rows"] == rows(in_=1, rejected=1)
    fourth = openapi.deliver_file(f"{FOLDER}/mended/{third.id}.csv", mended(openapi, third, **{"cost/cost": "5"}))
    assert openapi.receipt(fourth)["rows"] == rows(in_=1, accepted=1), openapi.receipt(fourth)["reason"]
    assert starts(openapi) == [("01T05", "4", "EC2"), ("01T06", "5", "S3")]


def test_rows_that_cloudzero_refused_come_back_mended(w: Billing) -> None:
    first = w.deliver_file(f"{FOLDER}/a.csv", cbf(A, ("01T05", "4", POISON), B))
    assert outcome(w, first) == "partly_delivered"
    text = mended(w, first, **{"resource/service": "RDS"})
    done = w.deliver_file(f"{FOLDER}/mended/{first.id}.csv", text)
    receipt = w.receipt(done)
    assert receipt["outcome"] == "delivered", receipt["reason"]
    assert receipt["rows"] == (rows(in_=3, accepted=3) if w.live else rows(in_=1, accepted=1))
    assert sorted(starts(w)) == sorted([A, ("01T05", "4", "RDS"), B])


def test_a_dry_run_of_mended_rows_says_what_would_go(w: Billing) -> None:
    first = w.deliver_file(f"{FOLDER}/a.csv", cbf(A, ("01T05", "?", "RDS"), B))
    text = mended(w, first, **{"cost/cost": "4"})
    plan = planned(w, text, f"mended/{first.id}.csv")
    assert plan["plan"]["verdict"] == "would_deliver", plan
    count = 3 if w.live else 1
    assert f"send body 1: {count} rows" in plan["plan"]["steps"][0]
    assert f"s3://{DROPS}/{FOLDER}/mended/{first.id}.csv" in plan["next_command"]
    assert starts(w) == [A, B]


def test_rows_of_a_plan_that_were_mended_are_a_file_of_their_own(w: Billing) -> None:
    plan = w.deliver_file(f"plan/billing/{CONNECTION}/{MONTH}/a.csv", cbf(A, ("01T06", "?", "S3")))
    assert w.receipt(plan)["rows"] == rows(in_=2, rejected=1, owed=1)
    done = w.deliver_file(f"{FOLDER}/mended/{plan.id}.csv", mended(w, plan, **{"cost/cost": "2"}))
    assert w.receipt(done)["rows"] == rows(in_=2, accepted=2), w.receipt(done)["reason"]
    assert starts(w) == [A, B]
    assert outcome(w, w.deliver_file(f"{FOLDER}/a.csv", cbf(A, B))) == "unchanged"


# --- reading ----------------------------------------------------------------------------------------------------------


def test_an_overwritten_file_of_costs_is_read_as_its_event_named_it(w: Billing) -> None:
    """Row 3: each event's own version is read; the older one is superseded, and nothing is mixed."""
    first = w.drop(f"{FOLDER}/a.csv", cbf(A))
    second = w.drop(f"{FOLDER}/a.csv", cbf(B, ("01T07", "4", "S3")))
    older, newer = w.prepare(first), w.prepare(second)
    assert older is not None
    assert newer is not None
    assert (older.rows.in_, newer.rows.in_) == (1, 2)
    assert outcome(w, w.finish(older.id)) == "superseded"
    assert outcome(w, w.finish(newer.id)) == "delivered"
    assert starts(w) == [B, ("01T07", "4", "S3")]


def test_a_file_overwritten_between_event_and_read_is_superseded_where_there_are_no_versions(w: Billing) -> None:
    """Row 3: without versions the ETag pins: what was overwritten after its event is never read."""
    w.s3.create_bucket(Bucket="unversioned", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    first = w.drop(f"{FOLDER}/a.csv", cbf(A), "unversioned")
    second = w.drop(f"{FOLDER}/a.csv", cbf(B), "unversioned")
    assert outcome(w, w.prepare(first)) == "superseded"
    newer = w.prepare(second)
    assert newer is not None
    assert (newer.stage, newer.rows.owed) == ("queued", 1)
    assert w.posts() == []


def test_a_duplicate_event_of_costs_sends_nothing(w: Billing) -> None:
    """Row 4: the same event again, at any time, neither prepares nor queues nor sends again."""
    source = w.drop(f"{FOLDER}/a.csv", cbf(A))
    first = w.prepare(source)
    assert first is not None
    w.prepare(source)
    assert len(w.queued()) == 1
    done = w.finish(first.id)
    assert w.prepare(source) == done
    assert w.queued() == []
    assert len(w.posts()) == len(w.receipts()) == 1


def test_a_bom_crlf_and_a_newline_in_quotes_are_read_and_other_bytes_rejected_by_line(w: Billing) -> None:
    """Row 5: what spreadsheets write is read; a row with bytes that are not UTF-8 is named with its line."""
    text = (
        b"\xef\xbb\xbftime/usage_start,cost/cost,lineitem/description\r\n"
        b'2026-03-01T05:00:00Z,1.5,"two\r\nlines \xe2\x80\xa8"\r\n'
        b"2026-03-01T06:00:00Z,2,\xff\xfe\r\n"
        b"2026-03-01T07:00:00Z,4,last"
    )
    done = w.deliver_file(f"{FOLDER}/a.csv", text)
    assert w.receipt(done)["rows"] == rows(in_=3, accepted=2, rejected=1)
    body = w.text(done.rejected_rows.removeprefix(f"s3://{DROPS}/"))
    assert b"\xff\xfe,4," in body  # the bytes as they came, and their line
    name = "lineitem/description" if w.live else "description"
    assert [row[name] for row in w.held()["rows"]] == ["two\r\nlines \u2028", "last"]


def test_a_truncated_gzip_of_costs_is_refused_and_nothing_is_sent(w: Billing) -> None:
    """Row 6: a short file is never taken for a whole one."""
    packed = gzip.compress(cbf(*[(f"01T{hour:02}", str(hour), f"service {hour}") for hour in range(20)]))
    for cut in (1, 9, 30):
        assert outcome(w, w.deliver_file(f"{FOLDER}/month/a.csv.gz", packed[:-cut])) == "rejected"
    assert w.posts() == []
    assert w.keys(SPOOL) == []


def test_a_document_that_no_memory_could_hold_is_refused_and_leaves_nothing(live: Billing) -> None:
    """Row 7: a small gzip of a huge JSON document is refused before it fills anything."""
    document = gzip.compress(b"[" + b" " * 70_000_000 + json.dumps(ITEMS).encode()[1:])
    receipt = live.receipt(live.deliver_file(f"{FOLDER}/a.json.gz", document))
    assert receipt["outcome"] == "rejected"
    assert "larger than 10,000,000 bytes" in receipt["reason"]
    assert live.keys(SPOOL) == []


def test_a_file_that_does_not_fit_into_an_invocation_is_refused_with_the_way_out(live: Billing) -> None:
    """Row 7: while there is time to say so, and not by a time-out."""
    live.remaining[0] = 10
    receipt = live.receipt(live.deliver_file(f"{FOLDER}/a.csv", cbf(A)))
    assert receipt["outcome"] == "rejected"
    assert "PrepareMemoryMb" in receipt["reason"]
    assert live.keys(SPOOL) == []


def test_what_is_sent_in_a_month_counts_for_all_its_files(w: Billing) -> None:
    """Row 16: a file that would fill the month past its limits is refused with what was sent before."""
    w.deliver_file(f"{FOLDER}/a.csv", cbf(A))
    record = w.ledger.record(f"hours#{CONNECTION}#{MONTH}")
    (owner,) = record.content["owners"]
    w.ledger.save_record(record.but(content={"owners": [owner | {"rows": 999_999}]}))
    receipt = w.receipt(w.deliver_file(f"{FOLDER}/b.csv", cbf(B, ("01T07", "4", "S3"))))
    assert receipt["outcome"] == "rejected"
    assert "2026-03 would hold 1,000,001 rows" in receipt["reason"]
    assert "(999,999 rows, " in receipt["reason"]
    assert receipt["rows"] == rows(in_=2, rejected=2)
    assert receipt["money"]["rejected"] == "6"
    assert outcome(w, w.deliver_file(f"{FOLDER}/b.csv", cbf(B))) == "delivered"

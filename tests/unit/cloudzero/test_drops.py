"""What a drop looks like on the wire, and what it does to a month: money arrives exactly, and where it belongs."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Context, Decimal, Inexact
from functools import reduce
from typing import Any

import httpx
import pytest
from finops_relay.cloudzero.advice import MAX_BODY_BYTES
from finops_relay.cloudzero.idempotency import HEADER, IdempotencyKeys
from finops_relay.cloudzero.records import (
    CBF_COLUMNS,
    COST_COLUMNS,
    BillingDrop,
    BillingRow,
    DropOperation,
    HeldHour,
    HeldRow,
)
from finops_relay.delivery import packer
from finops_relay.errors import (
    AnswerNotUnderstood,
    BodyTooLarge,
    Conflict,
    CredentialRefused,
    InputRefused,
    NotFound,
    NotInContract,
    OutcomeUnknown,
    RateLimited,
    RequestRefused,
    VendorError,
    VendorUnavailable,
)
from finops_relay.formats import cost_rows
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from local.standins.cloudzero import CONNECTION
from tests.unit.cloudzero.conftest import Tenant
from tests.unit.cloudzero.wires import KEY, ONE_TRY, answer, client, nobody, vendor

FEB = datetime(2026, 2, 1, tzinfo=UTC)
FEBRUARY, MARCH = date(2026, 2, 1), date(2026, 3, 1)
SUM, HOURLY, REPLACE = DropOperation.SUM, DropOperation.REPLACE_HOURLY, DropOperation.REPLACE_DROP
EXACT = Context(prec=200, traps=[Inexact])
AWKWARD = [
    Decimal(text) for text in ("1E+3", "1E-7", "-1E-15", "0", "-0", "0.10", "-12345678901234567890.123456789012345")
]
amounts = (
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**18), max_value=10**18, places=15)
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20)
    | st.sampled_from(AWKWARD)
    | st.builds(lambda digits, exponent: Decimal(digits).scaleb(exponent), st.integers(-999, 999), st.integers(-12, 15))
).filter(lambda amount: int(amount.as_tuple().exponent) >= -30)


def row(hours: int = 0, cost: Decimal | int | str = 1, **columns: str) -> BillingRow:
    """Make a row of an hour since the beginning of February; a double underscore stands for a slash."""
    named = {name.replace("__", "/"): value for name, value in columns.items()}
    return BillingRow.model_validate({"usage_start": FEB + timedelta(hours=hours), "cost": cost, "columns": named})


def drop(*rows: BillingRow, operation: DropOperation = SUM, month: date | None = None) -> BillingDrop:
    return BillingDrop(rows=rows, operation=operation, month=month)


def held_as(sent: BillingRow) -> HeldRow:
    """Return a row as it is read back."""
    return HeldRow.model_validate(sent.model_dump())


def total(rows: list[BillingRow]) -> Decimal:
    """Add without rounding."""
    found = Decimal(0)
    for each in rows:
        found = EXACT.add(found, each.cost)
    return found


def costs(tenant: Tenant, month: str = "2026-02") -> list[Any]:
    """Return the amounts that the vendor holds, as Decimals."""
    column = "cost/cost" if tenant.live else "cost"
    return [Decimal(held[column]) for held in tenant.month(month)["rows"]]


# --- money ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.builds(row, st.integers(0, 671), amounts), min_size=1, max_size=8))
@example([row(cost=amount) for amount in AWKWARD])
def test_money_arrives_to_the_last_digit(tenant: Tenant, rows: list[BillingRow]) -> None:
    tenant.vendor.reset()
    tenant.client.create_billing_drop(CONNECTION, drop(*rows))
    held = tenant.month()
    column = "cost/cost" if tenant.live else "cost"
    assert Decimal(held["totals"][column]) == total(rows)
    assert held["count"] == len(rows)
    assert sorted(costs(tenant)) == sorted(each.cost for each in rows)
    if tenant.live:
        read = tenant.client.billing_drop_rows(CONNECTION, FEBRUARY)
        assert sorted(each.cost for each in read) == sorted(each.cost for each in rows)


@given(amounts)
def test_no_exponent_is_written_under_live(amount: Decimal) -> None:
    body = json.loads(client("live", nobody()).drop_body(drop(row(cost=amount))))
    written = body["data"][0]["cost/cost"]
    assert set(written) <= set("-0123456789.")
    assert Decimal(written) == amount


@given(amounts)
def test_an_amount_is_a_number_with_all_its_digits_under_openapi(amount: Decimal) -> None:
    body = client("openapi", nobody()).drop_body(drop(row(cost=amount)))
    item = json.loads(body, parse_float=Decimal, parse_int=Decimal)["billing_drops"][0]["line_items"][0]
    assert item["cost"] == amount
    assert isinstance(item["cost"], Decimal), "a number, not a text"


@pytest.mark.parametrize(
    "amount", [0.1, 1.0, float("nan"), "NaN", "Infinity", "-Infinity", "1E+31", "1E-31", "", "a", None]
)
def test_what_is_no_exact_amount_is_no_cost(amount: object) -> None:
    with pytest.raises(ValidationError):
        BillingRow.model_validate({"usage_start": FEB, "cost": amount})


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [{"minutes": 1}, {"seconds": 1}, {"microseconds": 1}])
def test_a_row_that_does_not_begin_on_the_hour_is_refused(off: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="on the hour"):
        BillingRow(usage_start=FEB + timedelta(**off), cost=Decimal(1))


def test_a_time_without_an_offset_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        BillingRow(usage_start=datetime(2026, 2, 1), cost=Decimal(1))  # noqa: DTZ001 -- that is the case


def test_a_time_of_half_an_hours_zone_is_not_on_the_hour() -> None:
    with pytest.raises(ValidationError, match="on the hour"):
        BillingRow(usage_start=datetime(2026, 2, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))), cost=Decimal(1))


def test_other_zones_become_utc_and_say_the_month(tenant: Tenant) -> None:
    zone = timezone(timedelta(hours=-5))
    late = BillingRow(usage_start=datetime(2026, 1, 31, 20, tzinfo=zone), cost=Decimal(5))
    assert late.usage_start == FEB + timedelta(hours=1)
    assert late.usage_start.tzinfo is UTC
    assert late.month == FEBRUARY
    tenant.client.create_billing_drop(CONNECTION, drop(late))
    assert tenant.month()["hours"] == {"2026-02-01T01:00:00Z": 1}


# --- the body ---------------------------------------------------------------------------------------------------------

COLUMNS = {
    "resource/service": "Support",
    "lineitem/description": "Plan",
    "resource/id": "plan/one",
    "resource/tag:team": "a",
    "resource/tag:Cost:Center/x": "b",
    "usage/amount": "1.50",
    "cost/amortized_cost": "0.75",
}


def test_openapi_has_two_columns_of_its_own_and_the_rest_is_metadata(openapi: Tenant) -> None:
    openapi.client.create_billing_drop(
        CONNECTION, drop(BillingRow(usage_start=FEB, cost=Decimal("1.15"), columns=COLUMNS))
    )
    assert openapi.month()["rows"] == [
        {
            "timestamp": "2026-02-01T00:00:00Z",
            "cost": "1.15",
            "service": "Support",
            "description": "Plan",
            "metadata": {
                "resource/id": "plan/one",
                "team": "a",
                "Cost:Center/x": "b",
                "usage/amount": "1.50",
                "cost/amortized_cost": "0.75",
            },
        }
    ]


def test_a_row_without_further_columns_has_no_metadata_under_openapi() -> None:
    body = json.loads(client("openapi", nobody()).drop_body(drop(row(resource__service="S"))))
    assert body == {
        "billing_drops": [{"line_items": [{"timestamp": "2026-02-01T00:00:00Z", "cost": 1, "service": "S"}]}]
    }


def test_live_writes_the_columns_as_they_are(live: Tenant) -> None:
    sent = BillingRow(usage_start=FEB, cost=Decimal("1.15"), columns=COLUMNS)
    live.client.create_billing_drop(CONNECTION, drop(sent))
    expected = {"time/usage_start": "2026-02-01T00:00:00Z", "cost/cost": "1.15", **COLUMNS}
    assert live.month()["rows"] == [expected]
    assert live.client.billing_drop_rows(CONNECTION, date(2026, 2, 28)) == (held_as(sent),)


@pytest.mark.parametrize("operation", list(DropOperation))
@pytest.mark.parametrize("month", [None, FEBRUARY])
def test_live_always_writes_the_month_and_the_operation(operation: DropOperation, month: date | None) -> None:
    body = json.loads(client("live", nobody()).drop_body(drop(row(5), operation=operation, month=month)))
    assert (body["month"], body["operation"]) == ("2026-02-01T00:00:00Z", operation.value)


def test_rows_of_two_months_are_refused_before_anything_is_sent(live: Tenant) -> None:
    with pytest.raises(InputRefused, match="one month, and the first is of 2026-02"):
        live.client.create_billing_drop(CONNECTION, drop(row(0), row(24 * 28)))
    with pytest.raises(ValidationError, match="month 2026-02"):
        drop(row(24 * 28), month=FEBRUARY)
    assert live.state()["calls"] == []


def test_openapi_takes_rows_of_two_months(openapi: Tenant) -> None:
    openapi.client.create_billing_drop(CONNECTION, drop(row(0, 1), row(24 * 28, 2)))
    assert (costs(openapi), costs(openapi, "2026-03")) == ([1], [2])


def test_a_month_is_named_by_its_first_day() -> None:
    with pytest.raises(ValidationError, match="first day"):
        drop(row(), month=date(2026, 2, 2))


@pytest.mark.parametrize(
    ("operation", "month"), [(SUM, FEBRUARY), (HOURLY, FEBRUARY), (REPLACE, None), (SUM, None), (HOURLY, None)]
)
def test_a_drop_without_rows_that_does_not_empty_a_month_is_refused(
    operation: DropOperation, month: date | None
) -> None:
    with pytest.raises(ValidationError, match="which month it empties"):
        drop(operation=operation, month=month)


@pytest.mark.parametrize(
    "name",
    [
        "cost/cost",
        "time/usage_start",
        "COST/COST",
        "cost/cost ",
        "cost",
        "timestamp",
        "metadata",
        "resource/tag:",
        "resource/tag:a b",
        "resource/tag:größe",
        "resource/tag:a\n",
        "resource/tagteam",
        "Resource/id",
        "",
    ],
)
def test_a_column_that_replaces_the_amount_or_that_cbf_has_not_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ValidationError, match="Common Bill Format has no column") as caught:
        BillingRow(usage_start=FEB, cost=Decimal("1.10"), columns={"resource/id": "a", name: "999"})
    assert repr(name) in str(caught.value)


def test_every_column_of_cbf_and_any_tag_is_taken(live: Tenant) -> None:
    assert not {"cost/cost", "time/usage_start"} & CBF_COLUMNS
    names = [*CBF_COLUMNS, "resource/tag:team", "resource/tag:Cost:Center/x", "resource/tag:a.b_c-d=e+f@g"]
    sent = BillingRow(usage_start=FEB, cost=Decimal("1.10"), columns=dict.fromkeys(names, "1"))
    assert set(sent.columns) == set(names)
    held = json.loads(live.client.drop_body(drop(sent)))["data"]
    assert [each.keys() for each in held] == [{"time/usage_start", "cost/cost", *names}]


@pytest.mark.parametrize("column", ["resource/id", "usage/amount", "lineitem/type"])
@pytest.mark.parametrize("first", [True, False])
def test_no_column_is_lost_in_the_metadata_of_openapi(column: str, first: bool) -> None:  # noqa: FBT001 -- a parameter
    both = [(column, "vm/one"), (f"resource/tag:{column}", "mine")]
    sent = BillingRow(usage_start=FEB, cost=Decimal(1), columns=dict(both if first else both[::-1]))
    made = client("openapi", nobody())
    for call in (lambda: made.drop_body(drop(sent)), lambda: made.create_billing_drop(CONNECTION, drop(sent))):
        with pytest.raises(InputRefused, match="tag has the name of a column") as caught:
            call()
        assert caught.value.value == column


def test_a_tag_called_like_a_field_of_its_own_collides_with_nothing() -> None:
    columns = {"resource/service": "S", "resource/tag:resource/service": "mine", "resource/tag:service": "too"}
    sent = BillingRow(usage_start=FEB, cost=Decimal(1), columns=columns)
    item = json.loads(client("openapi", nobody()).drop_body(drop(sent)))["billing_drops"][0]["line_items"][0]
    assert item["service"] == "S"
    assert item["metadata"] == {"resource/service": "mine", "service": "too"}


# --- what a drop does to a month --------------------------------------------------------------------------------------


def test_a_sum_appends(tenant: Tenant) -> None:
    for cost in (1, 2, 2):
        tenant.client.create_billing_drop(CONNECTION, drop(row(0, cost)))
    assert costs(tenant) == [1, 2, 2]
    assert [post["mode"] for post in tenant.state()["posts"]] == ["sum" if tenant.live else "append"] * 3


def test_replace_hourly_replaces_the_hours_that_it_has_rows_of(live: Tenant) -> None:
    live.client.create_billing_drop(CONNECTION, drop(row(0, 1), row(0, 2), row(1, 4)))
    live.client.create_billing_drop(CONNECTION, drop(row(0, 8), row(2, 16), operation=HOURLY))
    assert costs(live) == [8, 4, 16]


def test_replace_drop_wipes_the_whole_month_and_no_other(live: Tenant) -> None:
    live.client.create_billing_drop(CONNECTION, drop(row(0, 1), row(1, 2)))
    live.client.create_billing_drop(CONNECTION, drop(row(24 * 28, 4)))
    told = live.client.create_billing_drop(CONNECTION, drop(row(5, 8), operation=REPLACE))
    assert (costs(live), costs(live, "2026-03")) == ([8], [4])
    assert (told.month, told.row_count) == ("2026-02-01T00:00:00Z", 1)
    assert told.drop_id
    assert told.request_id == live.state()["posts"][-1]["request_id"]


def test_a_drop_without_rows_empties_its_month_and_no_other(live: Tenant) -> None:
    live.client.create_billing_drop(CONNECTION, drop(row(0, 1)))
    live.client.create_billing_drop(CONNECTION, drop(row(24 * 28, 4)))
    told = live.client.create_billing_drop(CONNECTION, drop(operation=REPLACE, month=FEBRUARY))
    assert told.row_count == 0
    assert (costs(live), costs(live, "2026-03")) == ([], [4])


def test_the_answer_of_openapi_is_only_a_request(openapi: Tenant) -> None:
    told = openapi.client.create_billing_drop(CONNECTION, drop(row()))
    assert told.model_dump(exclude={"request_id"}) == {"drop_id": "", "month": "", "row_count": None}
    assert told.request_id == openapi.state()["posts"][0]["request_id"]


def test_a_connection_that_is_not_there_is_told_with_what_to_check(tenant: Tenant) -> None:
    with pytest.raises(NotFound, match=r"Settings > Connections.*CLOUDZERO_CONTRACT"):
        tenant.client.create_billing_drop("nobody", drop(row()))


@pytest.mark.parametrize("connection", ["", ".", ".."])
def test_a_connection_that_names_nothing_is_never_called(connection: str) -> None:
    for contract in ("openapi", "live"):
        with pytest.raises(RequestRefused, match="nothing was sent"):
            client(contract, nobody()).create_billing_drop(connection, drop(row()))


def test_a_connections_id_stays_one_part_of_the_address() -> None:
    wire = vendor({"connection": {}})
    client("live", wire).create_billing_drop("a/../b?c#d", drop(row()))
    assert wire.seen[0].url.raw_path == b"/v2/connections/billing/anycost/a%2F..%2Fb%3Fc%23d/billing_drops"


# --- what openapi lacks -----------------------------------------------------------------------------------------------


def test_openapi_refuses_what_it_lacks_and_nothing_is_sent() -> None:
    without = client("openapi", nobody())
    asked: list[Any] = [
        lambda: without.create_billing_drop(CONNECTION, drop(row(), operation=REPLACE)),
        lambda: without.create_billing_drop(CONNECTION, drop(row(), operation=HOURLY)),
        lambda: without.create_billing_drop(CONNECTION, drop(operation=REPLACE, month=FEBRUARY)),
        lambda: without.create_billing_drop(CONNECTION, drop(row()), keys=IdempotencyKeys()),
        lambda: without.create_billing_drop(CONNECTION, without.drop_body(drop(row())), keys=IdempotencyKeys()),
        lambda: without.drop_body(drop(row(), operation=REPLACE)),
        lambda: without.billing_drops(CONNECTION),
        lambda: without.billing_drop_rows(CONNECTION, FEBRUARY),
        lambda: without.billing_drop_hours(CONNECTION, FEBRUARY),
        lambda: without.validate_billing_drop(drop(row())),
        lambda: without.validate_billing_drop(b"{}"),
    ]
    for call in asked:
        with pytest.raises(NotInContract, match=r"'openapi'.*CLOUDZERO_CONTRACT"):
            call()


# --- bodies made ahead ------------------------------------------------------------------------------------------------


def test_a_body_made_ahead_is_sent_byte_for_byte(tenant: Tenant) -> None:
    body = tenant.client.drop_body(drop(row(0, "1E-7"), row(1, "-2.50", resource__service="Größe")))
    padded = b" " + body + b"\n"
    for sent in (body, padded):
        tenant.client.create_billing_drop(CONNECTION, sent)
    posts = tenant.state()["posts"]
    assert [post["sha256"] for post in posts] == [hashlib.sha256(sent).hexdigest() for sent in (body, padded)]
    assert [post["bytes"] for post in posts] == [len(body), len(padded)]
    assert sorted(costs(tenant)) == sorted([Decimal("1E-7"), Decimal("-2.50")] * 2)


def test_a_drop_and_the_body_made_of_it_are_the_same_bytes(tenant: Tenant) -> None:
    sent = drop(row(0, "0.10", resource__region="eu-west-1"))
    tenant.client.create_billing_drop(CONNECTION, sent)
    tenant.client.create_billing_drop(CONNECTION, tenant.client.drop_body(sent))
    one, other = tenant.state()["posts"]
    assert one["sha256"] == other["sha256"]


OTHERS = {"openapi": "live", "live": "openapi"}
NO_DROPS: dict[str, bytes] = {
    "nothing": b"",
    "half": b'{"month":"2026-02-01T00:00:00Z","operation":"sum","data":[',
    "text": b"sum",
    "a-list": b"[]",
    "null": b"null",
    "no-members": b"{}",
    "no-utf-8": b'{"month":"\xff","operation":"sum","data":[]}',
    "nested": b'{"billing_drops":' + b"[" * 100_000,
    "default-operation": b'{"month":"2026-02-01T00:00:00Z","data":[]}',
    "null-operation": b'{"month":"2026-02-01T00:00:00Z","operation":null,"data":[]}',
    "unknown-operation": b'{"month":"2026-02-01T00:00:00Z","operation":"add","data":[]}',
    "shouted-operation": b'{"month":"2026-02-01T00:00:00Z","operation":"SUM","data":[]}',
    "operation-further-down": b'{"month":"2026-02-01T00:00:00Z","data":[{"operation":"sum"}]}',
    "no-rows": b'{"month":"2026-02-01T00:00:00Z","operation":"sum"}',
    "no-month": b'{"operation":"sum","data":[]}',
    "more": b'{"month":"2026-02-01T00:00:00Z","operation":"sum","data":[],"more":1}',
    "drops-that-are-none": b'{"billing_drops":{}}',
    "drops-and-more": b'{"billing_drops":[],"operation":"sum"}',
    "two-bodies": b'{"billing_drops":[]}{"billing_drops":[]}',
}


@pytest.mark.parametrize("body", NO_DROPS.values(), ids=NO_DROPS)
@pytest.mark.parametrize("contract", OTHERS)
def test_bytes_that_are_no_drop_are_refused_and_nothing_is_sent(contract: str, body: bytes) -> None:
    with pytest.raises(InputRefused, match="no billing drop of this contract") as caught:
        client(contract, nobody()).create_billing_drop(CONNECTION, body)
    assert "drop_body" in caught.value.fix


@pytest.mark.parametrize("contract", OTHERS)
def test_a_body_of_the_other_contract_is_refused_and_nothing_is_sent(contract: str) -> None:
    body = client(OTHERS[contract], nobody()).drop_body(drop(row()))
    with pytest.raises(InputRefused, match="no billing drop of this contract"):
        client(contract, nobody()).create_billing_drop(CONNECTION, body)


@pytest.mark.parametrize(("operation", "tries"), [(SUM, 1), (HOURLY, 4), (REPLACE, 4)])
def test_a_body_made_ahead_is_repeated_only_when_it_says_that_it_replaces(operation: DropOperation, tries: int) -> None:
    wire = vendor(answer({}, 500))
    made = client("live", wire)
    body = made.drop_body(drop(row(resource__service="operation", lineitem__description='"operation":"sum"')))
    body = body.replace(b'"operation":"sum","data"', f'"operation":"{operation}","data"'.encode())
    error = OutcomeUnknown if operation is SUM else VendorUnavailable
    with pytest.raises(error):
        made.create_billing_drop(CONNECTION, body)
    assert len(wire.seen) == tries


def test_of_an_operation_that_is_named_twice_the_last_counts() -> None:
    """As nearly everywhere; a body of ours names it once."""
    wire = vendor(answer({}, 502))
    body = b'{"month":"2026-02-01T00:00:00Z","operation":"replace_drop","data":[],"operation":"sum"}'
    with pytest.raises(OutcomeUnknown):
        client("live", wire).create_billing_drop(CONNECTION, body)
    assert len(wire.seen) == 1


def test_a_body_over_the_limit_is_refused_with_size_and_limit_and_nothing_is_sent(tenant: Tenant) -> None:
    body = tenant.client.drop_body(drop(row()))
    padded = body + b" " * (5_000_001 - len(body))
    with pytest.raises(BodyTooLarge, match=r"5,000,001 bytes.*limit is 5,000,000 a body.*nothing was sent") as caught:
        tenant.client.create_billing_drop(CONNECTION, padded)
    assert caught.value.call.sent_bytes == 5_000_001
    assert tenant.state()["calls"] == []
    tenant.client.create_billing_drop(CONNECTION, padded[:-1])
    assert [post["bytes"] for post in tenant.state()["posts"]] == [5_000_000]


def test_a_drop_whose_rows_make_too_large_a_body_is_refused_before_anything_is_sent() -> None:
    rows = [row(hour % 600, resource__id="x" * 60_000) for hour in range(90)]
    for contract in OTHERS:
        with pytest.raises(BodyTooLarge, match="nothing was sent"):
            client(contract, nobody()).create_billing_drop(CONNECTION, drop(*rows))


def test_a_vendor_with_a_lower_limit_is_told_with_what_was_sent(tenant: Tenant) -> None:
    tenant.fault(DROP, "status", status=413)
    with pytest.raises(BodyTooLarge, match=r"bytes were sent.*limit is 5,000,000 bytes a body") as caught:
        tenant.client.create_billing_drop(CONNECTION, drop(row()))
    assert caught.value.call.status == 413


# --- idempotency keys -------------------------------------------------------------------------------------------------

DROP = "createAnyCostBillingDrop"


def keys_sent(tenant: Tenant) -> list[str]:
    """Return the key of each body that the vendor took."""
    return [post["idempotency_key"] for post in tenant.state()["posts"]]


@pytest.mark.parametrize("operation", [HOURLY, REPLACE])
def test_a_replacement_whose_answer_was_lost_is_sent_again_by_its_caller_with_its_key_and_counted_once(
    live: Tenant, operation: DropOperation
) -> None:
    """Not at once: the vendor may still be at it, and takes one request at a time."""
    live.fault(DROP, "lost_answer")
    keys = IdempotencyKeys()
    first = keys.current
    with pytest.raises(OutcomeUnknown):
        live.client.create_billing_drop(CONNECTION, drop(row(0, 7), operation=operation), keys=keys)
    assert live.count(DROP) == 1
    told = live.client.create_billing_drop(CONNECTION, drop(row(0, 7), operation=operation), keys=keys)
    state = live.state()
    assert (state["counts"][DROP], state["replays"], len(state["posts"])) == (2, 1, 1)
    assert keys_sent(live) == [first]
    assert keys.current == first
    assert (costs(live), told.row_count) == ([7], 1)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_an_error_is_never_replayed_another_key_is_used(live: Tenant, status: int) -> None:
    live.fault(DROP, "status", times=2, status=status)
    keys = IdempotencyKeys()
    first = keys.current
    for _ in range(2 if status in {502, 504} else 0):  # a gateway's answer: the vendor may still be at it
        with pytest.raises(VendorUnavailable):
            live.client.create_billing_drop(CONNECTION, drop(row(0, 7), operation=HOURLY), keys=keys)
    live.client.create_billing_drop(CONNECTION, drop(row(0, 7), operation=HOURLY), keys=keys)
    state = live.state()
    assert (state["counts"][DROP], state["replays"], len(state["posts"])) == (3, 0, 1)
    assert keys_sent(live) != [first]
    assert keys_sent(live) == [keys.current]
    assert costs(live) == [7]


def test_an_error_behind_which_the_vendor_had_acted_is_not_replayed_either(live: Tenant) -> None:
    live.fault(DROP, "lost_answer_status", status=502)
    keys = IdempotencyKeys()
    with pytest.raises(VendorUnavailable):
        live.client.create_billing_drop(CONNECTION, drop(row(0, 7), operation=HOURLY), keys=keys)
    live.client.create_billing_drop(CONNECTION, drop(row(0, 7), operation=HOURLY), keys=keys)
    state = live.state()
    assert (state["replays"], len(state["posts"])) == (0, 2)
    assert costs(live) == [7]


def test_a_sum_whose_answer_was_lost_is_made_once_and_repeated_by_its_caller_with_the_same_keys(live: Tenant) -> None:
    live.fault(DROP, "lost_answer")
    keys, sent = IdempotencyKeys(), drop(row(0, 7))
    with pytest.raises(OutcomeUnknown, match="may have been acted on"):
        live.client.create_billing_drop(CONNECTION, sent, keys=keys)
    assert live.count(DROP) == 1
    told = live.client.create_billing_drop(CONNECTION, sent, keys=keys)
    state = live.state()
    assert (state["counts"][DROP], state["replays"], len(state["posts"])) == (2, 1, 1)
    assert (costs(live), told.row_count) == ([7], 1)


def test_a_sum_that_never_arrived_is_acted_on_when_its_caller_repeats_it(live: Tenant) -> None:
    live.fault(DROP, "reset")
    keys, sent = IdempotencyKeys(), drop(row(0, 7))
    with pytest.raises(OutcomeUnknown):
        live.client.create_billing_drop(CONNECTION, sent, keys=keys)
    restored = IdempotencyKeys(keys.current)  # kept with the intent
    live.client.create_billing_drop(CONNECTION, sent, keys=restored)
    state = live.state()
    assert (state["replays"], len(state["posts"])) == (0, 1)
    assert costs(live) == [7]


def test_keys_that_served_one_body_lose_another(live: Tenant) -> None:
    """Why each call has keys of its own: the vendor looks at path and key, not at the body."""
    keys = IdempotencyKeys()
    for cost in (1, 2):
        live.client.create_billing_drop(CONNECTION, drop(row(cost, cost)), keys=keys)
    assert costs(live) == [1]
    for cost in (1, 2):
        live.client.create_billing_drop(CONNECTION, drop(row(cost, cost)))
    assert costs(live) == [1, 1, 2]
    assert len(set(keys_sent(live))) == 3


@dataclass
class Forgetful:
    """Acts on a key once; its first answer is lost, and its second question meets a busy door in front."""

    seen: int = 0
    acted: set[str] = field(default_factory=set)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen += 1
        if self.seen == 2:
            return answer({}, 503)
        self.acted.add(request.headers["cloudzero-idempotency-key"])
        if self.seen == 1:
            raise httpx.ReadTimeout("no answer")
        return answer({"connection": {"row_count": len(self.acted)}})


@pytest.mark.parametrize("restored", [True, False])
def test_a_key_in_doubt_is_kept_when_the_repetition_is_told_to_slow_down(restored: bool) -> None:  # noqa: FBT001 -- a parameter
    wire = Forgetful()
    keys, sent = IdempotencyKeys(), drop(row(0, 7))
    with pytest.raises(OutcomeUnknown):
        client("live", wire).create_billing_drop(CONNECTION, sent, keys=keys)
    if restored:
        keys = IdempotencyKeys(keys.current)
    client("live", wire).create_billing_drop(CONNECTION, sent, keys=keys)
    assert len(wire.acted) == 1, "the vendor counts the money twice"


@pytest.mark.parametrize("status", [401, 403, 404, 409, 413, 429, 400])
def test_a_sum_that_was_refused_is_sent_with_another_key_next(status: int) -> None:
    wire = vendor(answer({}, status), {"connection": {}})
    made = client("live", wire, ONE_TRY)
    keys, sent = IdempotencyKeys(), drop(row(0, 7))
    with pytest.raises(VendorError):
        made.create_billing_drop(CONNECTION, sent, keys=keys)
    made.create_billing_drop(CONNECTION, sent, keys=keys)
    assert len({request.headers[HEADER] for request in wire.seen}) == 2
    assert keys.current == wire.seen[-1].headers[HEADER]


@pytest.mark.parametrize(
    "said",
    [
        answer({}, 500),
        answer({}, 502),
        httpx.Response(200, html="<h1>Sign in</h1>"),
        httpx.Response(200, content=b"\n <html>"),
        httpx.ReadTimeout("no answer"),
    ],
    ids=["500", "502", "html", "html-untold", "none"],
)
def test_a_sum_whose_outcome_is_unknown_keeps_its_key_whatever_is_answered_later(said: object) -> None:
    wire = vendor(said, answer({}, 403), answer({}, 429), answer({}, 409), {"connection": {}})
    made = client("live", wire, ONE_TRY)
    keys, sent = IdempotencyKeys(), drop(row(0, 7))
    for error in (OutcomeUnknown, CredentialRefused, RateLimited, Conflict):
        with pytest.raises(error):
            made.create_billing_drop(CONNECTION, sent, keys=keys)
        assert keys.in_doubt
    made.create_billing_drop(CONNECTION, sent, keys=keys)
    assert {request.headers[HEADER] for request in wire.seen} == {keys.current}
    assert len(wire.seen) == 5


@pytest.mark.parametrize("said", [answer({}, 500), answer({}, 429), httpx.Response(200, html="<h1>Sign in</h1>")])
def test_a_replacement_has_another_key_after_any_answered_error(said: httpx.Response) -> None:
    wire = vendor(httpx.ReadTimeout("no answer"), said, {"connection": {}})
    made = client("live", wire, ONE_TRY)
    keys, sent = IdempotencyKeys(), drop(row(0, 7), operation=HOURLY)
    for _ in range(2):
        with pytest.raises(VendorError):
            made.create_billing_drop(CONNECTION, sent, keys=keys)
    made.create_billing_drop(CONNECTION, sent, keys=keys)
    first, second, third = (request.headers[HEADER] for request in wire.seen)
    assert first == second != third
    assert keys.in_doubt is False


def test_keys_that_were_refused_are_fresh_for_the_next_call(live: Tenant) -> None:
    live.fault(DROP, "status", status=429, headers={"Retry-After": "3600"})
    keys, sent = IdempotencyKeys(), drop(row(0, 7))
    with pytest.raises(RateLimited):
        live.client.create_billing_drop(CONNECTION, sent, keys=keys)
    live.client.create_billing_drop(CONNECTION, sent, keys=keys)
    assert costs(live) == [7]


def test_a_sum_that_was_made_ahead_is_no_safer(live: Tenant) -> None:
    live.fault(DROP, "lost_answer_status", status=502)
    body = live.client.drop_body(drop(row(0, 7)))
    with pytest.raises(OutcomeUnknown):
        live.client.create_billing_drop(CONNECTION, body)
    assert costs(live) == [7]


def test_a_sum_that_was_answered_with_an_error_stays_in_doubt_for_its_keys(live: Tenant) -> None:
    """The vendor may have acted, and gives its first answer again: only reading back can tell."""
    live.fault(DROP, "status", status=500)
    keys, sent = IdempotencyKeys(), drop(row(0, 7))
    for _ in range(2):
        with pytest.raises(OutcomeUnknown) as caught:
            live.client.create_billing_drop(CONNECTION, sent, keys=keys)
        assert caught.value.call.status == 500
    assert (live.count(DROP), live.state()["replays"], live.state()["posts"]) == (2, 1, [])


def test_a_test_key_sends_drops_to_the_sandbox(live: Tenant) -> None:
    sandbox = replace(live.client, test_key="smoke")
    sandbox.create_billing_drop(CONNECTION, drop(row(0, 7)))
    assert live.state()["drops"] == {}
    assert live.state()["sandbox_drops"]["smoke"][CONNECTION]["2026-02"]["count"] == 1


def test_a_sandbox_can_be_read_back(live: Tenant) -> None:
    sandbox = replace(live.client, test_key="smoke")
    sandbox.create_billing_drop(CONNECTION, drop(row(0, 7)))
    assert [held.row_count for held in sandbox.billing_drops(CONNECTION)] == [1]
    assert [held.cost for held in sandbox.billing_drop_rows(CONNECTION, FEBRUARY)] == [7]


# --- read back --------------------------------------------------------------------------------------------------------


def test_what_was_sent_is_read_back_by_month(live: Tenant) -> None:
    assert live.client.billing_drops(CONNECTION) == ()
    live.client.create_billing_drop(CONNECTION, drop(row(0, "1E-7"), row(3, "-2.50", resource__id="a/b")))
    live.client.create_billing_drop(CONNECTION, drop(row(24 * 28, 4)))
    assert [(held.month, held.row_count) for held in live.client.billing_drops(CONNECTION)] == [
        ("2026-02-01T00:00:00Z", 2),
        ("2026-03-01T00:00:00Z", 1),
    ]
    assert live.client.billing_drop_rows(CONNECTION, date(2026, 2, 14)) == (
        held_as(row(0, "0.0000001")),
        held_as(row(3, "-2.50", resource__id="a/b")),
    )
    assert live.client.billing_drop_rows(CONNECTION, MARCH) == (held_as(row(24 * 28, 4)),)


def test_a_month_that_nothing_was_sent_to_is_not_found(live: Tenant) -> None:
    with pytest.raises(NotFound, match="the month"):
        live.client.billing_drop_rows(CONNECTION, FEBRUARY)


def test_reading_back_may_lag_behind_and_catches_up(live: Tenant) -> None:
    live.client.create_billing_drop(CONNECTION, drop(row(0, 1)))
    live.configure(read_lag_reads=2)
    live.client.create_billing_drop(CONNECTION, drop(row(1, 2)))
    read = [len(live.client.billing_drop_rows(CONNECTION, FEBRUARY)) for _ in range(3)]
    assert read == [1, 1, 2]


ROW = {"time/usage_start": "2026-02-01T00:00:00Z", "cost/cost": "1.10"}


@pytest.mark.parametrize("name", ["billing_drop", "billing_drops", "data", "rows"])
def test_the_rows_are_taken_from_whichever_single_list_there_is(name: str) -> None:
    wire = vendor({name: [ROW], "month": "2026-02", "pagination": {"x": 1}})
    assert client("live", wire).billing_drop_rows("c", FEBRUARY) == (held_as(row(0, "1.10")),)
    assert wire.calls == [("GET", "/v2/connections/billing/anycost/c/billing_drops/2026-02")]


def test_numbers_that_are_read_back_keep_all_digits_and_nulls_are_left_out() -> None:
    said = b"""{"rows": [{"time/usage_start": "2026-02-01T01:00:00+01:00", "cost/cost": 0.12345678901234567890,
        "cost/amortized_cost": -1.10, "resource/id": null, "usage/amount": 2}]}"""
    (read,) = client("live", vendor(said)).billing_drop_rows("c", FEBRUARY)
    assert read.usage_start == FEB
    assert read.cost == Decimal("0.12345678901234567890")
    assert read.columns == {"cost/amortized_cost": "-1.10", "usage/amount": "2"}


@pytest.mark.parametrize("start", ["2026-02-01T00:00:00", "2026-02-01", "1769904000", "1769904000000"])
def test_a_time_without_an_offset_that_is_read_back_is_utc(start: str) -> None:
    wire = vendor({"rows": [{**ROW, "time/usage_start": start}]})
    assert client("live", wire).billing_drop_rows("c", FEBRUARY) == (held_as(row(0, "1.10")),)


def test_rows_of_others_are_read_back_whatever_their_time_and_columns() -> None:
    said = {**ROW, "time/usage_start": "2026-02-01T00:30:05Z", "theirs/own": "x", "resource/tag:a b": ""}
    (read,) = client("live", vendor({"rows": [said]})).billing_drop_rows("c", FEBRUARY)
    assert isinstance(read, BillingRow)
    assert read.usage_start == FEB + timedelta(minutes=30, seconds=5)
    assert read.columns == {"theirs/own": "x", "resource/tag:a b": ""}
    assert read.month == FEBRUARY


@pytest.mark.parametrize(
    "wrong", [{"cost/cost": None}, {"cost/cost": True}, {"time/usage_start": None}, {"resource/id": {"a": 1}}]
)
def test_a_row_that_is_none_is_told_when_it_is_read_back(wrong: dict[str, object]) -> None:
    with pytest.raises(AnswerNotUnderstood):
        client("live", vendor({"rows": [{**ROW, **wrong}]})).billing_drop_rows("c", FEBRUARY)


@pytest.mark.parametrize("said", [{}, {"rows": {}}, {"rows": [], "more": []}, [], "x", {"rows": [5]}])
def test_an_answer_without_one_list_of_rows_is_told(said: object) -> None:
    with pytest.raises(AnswerNotUnderstood):
        client("live", vendor(said)).billing_drop_rows("c", FEBRUARY)


# --- read back by hour ------------------------------------------------------------------------------------------------

FIRST = int(FEB.timestamp()) // 3600
"""The first hour of February, since the epoch."""


def hours_of(*rows: Mapping[str, object]) -> Mapping[int, HeldHour]:
    """Read back a month of these rows."""
    return client("live", vendor({"billing_drop": rows})).billing_drop_hours("c", FEBRUARY)


def added_up(rows: Iterable[BillingRow]) -> dict[int, HeldHour]:
    """Add up rows that were read back one by one."""
    hours: dict[int, list[dict[str, str]]] = defaultdict(list)
    for each in rows:
        hours[int(each.usage_start.timestamp() // 3600)].append(each.cells)
    found = {}
    for hour, held in hours.items():
        costs: list[Decimal | None] = []
        for column in COST_COLUMNS:
            there = [Decimal(cells[column]) for cells in held if cells.get(column, "") != ""]
            costs.append(reduce(EXACT.add, there) if there else None)
        found[hour] = HeldHour(len(held), tuple(costs))
    return found


columns_of_costs = st.dictionaries(
    st.sampled_from(COST_COLUMNS[1:]), st.just("") | amounts.map(lambda amount: format(amount, "f"))
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(
            lambda hours, cost, columns: BillingRow(
                usage_start=FEB + timedelta(hours=hours), cost=cost, columns=columns
            ),
            st.integers(0, 5) | st.integers(0, 671),
            amounts,
            columns_of_costs,
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_read_back_by_hour_is_what_the_rows_add_up_to(live: Tenant, rows: list[BillingRow]) -> None:
    live.vendor.reset()
    live.client.create_billing_drop(CONNECTION, drop(*rows))
    held = live.client.billing_drop_hours(CONNECTION, date(2026, 2, 14))
    assert held == added_up(rows) == added_up(live.client.billing_drop_rows(CONNECTION, FEBRUARY))
    assert list(held) == sorted(held)
    assert sum(hour.rows for hour in held.values()) == live.month()["count"]


def test_a_month_is_read_back_by_hour_with_one_request_from_whichever_single_list_there_is() -> None:
    for name in ("billing_drop", "billing_drops", "data", "rows"):
        wire = vendor({"month": "2026-02", name: [ROW], "pagination": {"x": [1]}})
        held = client("live", wire).billing_drop_hours("c", date(2026, 2, 28))
        assert held == {FIRST: HeldHour(1, (Decimal("1.10"), None, None, None, None))}
        assert wire.calls == [("GET", "/v2/connections/billing/anycost/c/billing_drops/2026-02")]
    assert hours_of() == {}


def test_a_sandbox_can_be_read_back_by_hour(live: Tenant) -> None:
    sandboxed = replace(live.client, test_key="smoke")
    sandboxed.create_billing_drop(CONNECTION, drop(row(0, 5)))
    assert sandboxed.billing_drop_hours(CONNECTION, FEBRUARY)[FIRST].costs[0] == 5
    with pytest.raises(NotFound):
        live.client.billing_drop_hours(CONNECTION, FEBRUARY)


def test_a_month_that_nothing_was_sent_to_is_not_found_by_hour_either(live: Tenant) -> None:
    with pytest.raises(NotFound, match="the month"):
        live.client.billing_drop_hours(CONNECTION, FEBRUARY)


def test_numbers_and_texts_add_up_to_the_last_digit() -> None:
    said = b"""{"rows": [
        {"time/usage_start": "2026-02-01T00:00:00Z", "cost/cost": 12345678901234567890.5},
        {"time/usage_start": "2026-02-01T00:00:00Z", "cost/cost": "0.000000000000000000001"},
        {"time/usage_start": "2026-02-01T00:00:00Z", "cost/cost": 1e-22},
        {"time/usage_start": "2026-02-01T00:00:00Z", "cost/cost": -3}]}"""
    held = client("live", vendor(said)).billing_drop_hours("c", FEBRUARY)
    assert held[FIRST].costs[0] == Decimal("12345678901234567887.5000000000000000000011")


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("blank", [(), (None,), ("",)], ids=["absent", "null", "empty"])
def test_a_blank_cost_is_none_and_a_zero_is_not(column: int, blank: tuple[object, ...]) -> None:
    start: dict[str, object] = {"time/usage_start": "2026-02-01T00:00:00Z"}
    name = COST_COLUMNS[column]
    without = {**start, **dict(zip([name], blank, strict=False))}
    assert hours_of(without, without)[FIRST] == HeldHour(2, (None,) * 5)
    held = hours_of(without, start | {name: 0}, without)[FIRST]
    assert held == HeldHour(3, (None,) * column + (Decimal(0),) + (None,) * (4 - column))


@pytest.mark.parametrize(
    ("start", "hour"),
    [
        ("2026-02-01T00:00:00+00:00", 0),
        ("2026-02-01T05:30:00+05:30", 0),
        ("2026-01-31T20:00:00-05:00", 1),
        ("2026-02-01T00:59:59.999999Z", 0),
        ("2026-02-01T02:00:00", 2),
        ("2026-02-01", 0),
        ("20260201T030000Z", 3),
        ("1769904000", 0),
        (1769904000, 0),
        ("1769904000000", 0),
        ("1969-12-31T23:30:00Z", -1 - FIRST),
    ],
)
def test_a_row_counts_in_the_hour_that_it_begins_in(start: object, hour: int) -> None:
    assert list(hours_of({**ROW, "time/usage_start": start})) == [FIRST + hour]


@pytest.mark.parametrize("start", [None, "", "424242", "noon", True, [], {}, "9999-12-31T23:00:00-09:00"], ids=str)
def test_a_row_whose_time_is_none_is_told(start: object) -> None:
    with pytest.raises(AnswerNotUnderstood, match="row 2 of the month") as caught:
        hours_of(ROW, {**ROW, "time/usage_start": start})
    assert "4242" not in repr(caught.value)


NO_COSTS = [
    True,
    "4242 USD",
    "4242,5",
    "NaN",
    "-Infinity",
    "sNaN",
    " ",
    [4242],
    {"x": 4242},
    "4242E+424242",
    "4242E-424242",
    "4242E+99999999999999999999",
    "4242" * 300,
]


@pytest.mark.parametrize("column", ["cost/cost", "cost/on_demand_cost"])
@pytest.mark.parametrize("cost", NO_COSTS, ids=lambda cost: str(cost)[:30])
def test_an_amount_that_cannot_be_added_up_is_told_and_not_quoted(column: str, cost: object) -> None:
    with pytest.raises(AnswerNotUnderstood, match="cannot be understood") as caught:
        hours_of(ROW, {**ROW, column: cost})
    assert "4242" not in repr(caught.value)


def test_the_row_that_cannot_be_added_up_is_named() -> None:
    with pytest.raises(AnswerNotUnderstood, match="row 3 of the month"):
        hours_of(ROW, ROW, {**ROW, "cost/cost": "a"})


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"rows": {}},
        {"rows": [], "more": []},
        [],
        [ROW],
        "x",
        {"rows": [5]},
        {"rows": [[]]},
        b"",
        b'{"rows": [',
        b'{"rows": [{"cost/cost": 1]}',
        b'{"rows": [{}]} []',
        b'{"rows": ' + b"[" * 100_000,
        b'{"rows": [{"cost/cost": 1E+99999999999999999999}]}',
        b'{"rows": [{"cost/cost": ' + b"9" * 5000 + b"}]}",
    ],
    ids=lambda said: str(said)[:30],
)
def test_an_answer_without_one_list_of_rows_is_not_added_up(said: object) -> None:
    with pytest.raises(AnswerNotUnderstood):
        client("live", vendor(said if not isinstance(said, bytes) else answer(said))).billing_drop_hours("c", FEBRUARY)


def test_a_month_is_added_up_without_its_rows_becoming_objects() -> None:
    """The answer stands in memory twice while it is read, which is the most; its rows as objects are five times it."""
    columns = {f"resource/tag:t{number}": "x" * 20 for number in range(10)}
    said = json.dumps({"rows": [{**ROW, **columns}] * 20_000}).encode()
    made = client("live", vendor(answer(said)))
    tracemalloc.start()
    try:
        held = made.billing_drop_hours("c", FEBRUARY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held[FIRST] == HeldHour(20_000, (Decimal(22_000), None, None, None, None))
    assert peak < 2.5 * len(said)


# --- what is said of a drop that was taken ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", {}),
        (b"OK", {}),
        (b"null", {}),
        (b"[]", {}),
        (b"[" * 100_000, {}),
        (b'{"connection": {"drop_id": "d"', {}),
        (b'{"drop": {}}', {}),
        (b'{"connection": null}', {}),
        (b'{"connection": ["d"]}', {}),
        (b'{"connection": {"drop_id": 5, "month": null, "row_count": "many"}}', {}),
        (b'{"connection": {"drop_id": "d", "row_count": {}}}', {"drop_id": "d"}),
        (b'{"connection": {"drop_id": "d", "row_count": 1E+10000000}}', {"drop_id": "d"}),
        (b'{"connection": {"drop_id": "d", "row_count": 1e99999999999999999999}}', {}),
        (b'{"connection": {"drop_id": "d", "month": "2026-02", "row_count": 7}}', {"drop_id": "d", "row_count": 7}),
    ],
    ids=lambda part: repr(part)[:40],
)
@pytest.mark.parametrize("operation", [SUM, HOURLY])
def test_a_drop_that_was_taken_is_taken_whatever_is_said_of_it(
    said: bytes, told: dict[str, object], operation: DropOperation
) -> None:
    reply = httpx.Response(202, content=said, headers={"x-request-id": "r-1"})
    wire = vendor(reply)
    taken = client("live", wire).create_billing_drop(CONNECTION, drop(row(), operation=operation))
    month = "2026-02" if "row_count" in told else ""
    assert taken.model_dump() == {"request_id": "r-1", "drop_id": "", "month": month, "row_count": None, **told}
    assert len(wire.seen) == 1


@pytest.mark.parametrize(
    "page",
    [
        httpx.Response(200, html="<h1>Sign in</h1>"),
        httpx.Response(200, content=b"{}", headers={"content-type": "Text/HTML; charset=UTF-8"}),
        httpx.Response(200, content=b"", headers={"content-type": "application/XHTML+xml"}),
        httpx.Response(202, content=b" \r\n\t<!DOCTYPE html>", headers={"content-type": "application/json"}),
        httpx.Response(200, content=b"<?xml version='1.0'?><Error/>"),
    ],
)
@pytest.mark.parametrize("contract", OTHERS)
def test_a_page_of_html_is_no_answer_to_a_drop(contract: str, page: httpx.Response) -> None:
    wire = vendor(page)
    with pytest.raises(OutcomeUnknown, match=r"HTML.*may have been acted on"):
        client(contract, wire).create_billing_drop(CONNECTION, drop(row()))
    if contract == "live":
        with pytest.raises(AnswerNotUnderstood, match="HTML"):
            client(contract, wire).create_billing_drop(CONNECTION, drop(row(), operation=HOURLY))
    with pytest.raises(AnswerNotUnderstood, match="HTML"):
        client(contract, wire).dimensions()


# --- the dry run ------------------------------------------------------------------------------------------------------


def test_a_valid_drop_is_said_to_be_so_and_nothing_is_kept(live: Tenant) -> None:
    check = live.client.validate_billing_drop(drop(row(), operation=REPLACE))
    assert (check.is_valid, check.errors) == (True, ())
    assert live.state()["drops"] == {}


def test_what_is_wrong_with_a_drop_is_said_and_is_no_error(live: Tenant) -> None:
    wrong = drop(row(cost=1), row(1, 2, lineitem__type="Refund"), row(2, 3, **{"resource/tag:team": "a"}))
    check = live.client.validate_billing_drop(wrong)
    assert check.is_valid is False
    assert [error.split()[:2] for error in check.errors] == [["Row", "1"], ["Row", "2"]]
    with pytest.raises(RequestRefused, match="/data/1/lineitem/type"):
        live.client.create_billing_drop(CONNECTION, wrong)


def test_a_body_made_ahead_is_judged_as_it_is(live: Tenant) -> None:
    check = live.client.validate_billing_drop(b'{"data": [], "operation": "add", "more": 1}')
    assert check.is_valid is False
    assert len(check.errors) == 2


def test_the_vendors_words_are_short_and_printable() -> None:
    said = ["x" * 5000, "a\x00b\nc", "see https://a.example/?sig=s3cr3t"]
    check = client("live", vendor({"connection": {"is_valid": False, "errors": said}})).validate_billing_drop(b"{}")
    assert [len(error) for error in check.errors] == [500, 5, 31]
    assert check.errors[1:] == ("a b c", "see https://a.example/?REDACTED")


@pytest.mark.parametrize("contract", ["openapi", "live"])
def test_a_body_put_together_row_by_row_is_the_one_of_the_whole_drop(contract: str) -> None:
    """What packs rows into bodies knows no contract: it is given the rows' bytes, and what stands around them."""
    made, whole = client(contract, nobody()), drop(row(5), row(6, 7), operation=SUM)
    head, tail = made.drop_envelope(SUM, FEBRUARY)
    assert head + b",".join(made.drop_row(each.cells) for each in whole.rows) + tail == made.drop_body(whole)
    assert b"\n" not in made.drop_row({**row().cells, "lineitem/description": "two\nlines\u2028"})


def test_the_format_has_the_same_columns_and_the_body_the_same_limit_wherever_they_are_known() -> None:
    """Readers, packer and client may not import each other; what they know alike is compared here."""
    assert set(cost_rows.CBF_COLUMNS) == CBF_COLUMNS | {"time/usage_start", "cost/cost"}
    assert cost_rows.COSTS == COST_COLUMNS
    assert packer.MAX_BODY_BYTES == MAX_BODY_BYTES


def test_what_is_said_of_a_body_or_a_drop_holds_no_key_and_is_short() -> None:
    """Row 29: it goes into receipts and files of rejected rows, whatever the vendor echoes."""
    echo = f"Authorization: {KEY} is not a number" + "x" * 10_000
    wire = vendor(answer({"connection": {"is_valid": False, "errors": [echo] * 500}}))
    check = client("live", wire).validate_billing_drop(drop(row()))
    assert len(check.errors) == 100
    assert all(KEY not in error and len(error) < 1_000 for error in check.errors)
    wire = vendor(answer({"connection": {"drop_id": echo, "month": echo, "row_count": 1}}))
    told = client("live", wire).create_billing_drop(CONNECTION, drop(row()))
    assert KEY not in told.drop_id + told.month
    assert len(told.drop_id) < 1_000

"""Costs: the question arrives whole, every page is read as it is asked for, and no digit is lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from finops_relay.cloudzero.records import CostGranularity, CostQuery, CostRow, CostType
from finops_relay.errors import AnswerNotUnderstood, Expired, NotInContract, RateLimited, RequestRefused
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.cloudzero.conftest import Tenant
from tests.unit.cloudzero.wires import BASE, client, nobody, vendor

FEB, MAR = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
GROUPED = CostQuery(start=FEB, end=MAR, group_by=("Account", "Service"))
HELD = [
    ("2026-02-01", "111111111111", "AmazonEC2", Decimal("10.25")),
    ("2026-02-01", "111111111111", "AmazonS3", Decimal("0.000000000000015")),
    ("2026-02-01", "222222222222", "AmazonEC2", Decimal("7.10")),
    ("2026-02-02", "111111111111", "AmazonEC2", Decimal("11.75")),
    ("2026-02-02", "222222222222", "AmazonEC2", Decimal("-1.05")),
    ("2026-02-03", "222222222222", "AmazonS3", Decimal(0)),
]
COSTS = "/v2/billing/costs"


def query(**more: Any) -> CostQuery:  # noqa: ANN401 -- as CostQuery takes them
    return CostQuery(start=FEB, end=MAR, **more)


def flat(rows: list[CostRow]) -> list[tuple[str, str, str, Decimal]]:
    """Return rows as `HELD` has them."""
    return sorted((f"{row.at:%Y-%m-%d}", row.group["Account"], row.group["Service"], row.value) for row in rows)


# --- against the stand-ins --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 2, 4, 100])
def test_all_pages_are_read_and_no_digit_is_lost(tenant: Tenant, page: int) -> None:
    tenant.configure(costs_page_rows=page)
    rows = list(tenant.client.costs(GROUPED))
    assert flat(rows) == HELD
    assert all(row.at is not None and row.at.tzinfo is UTC for row in rows)
    items = 6 if tenant.live else 4  # rows, or series
    assert tenant.count("getBillingCosts") == -(-items // page)


def test_costs_are_asked_for_as_they_are_read(tenant: Tenant) -> None:
    tenant.configure(costs_page_rows=1)
    rows = tenant.client.costs(GROUPED)
    assert tenant.count("getBillingCosts") == 0
    next(rows)
    assert tenant.count("getBillingCosts") == 1
    if not tenant.live:
        next(rows)  # of the same series
        assert tenant.count("getBillingCosts") == 1
    next(rows)
    assert tenant.count("getBillingCosts") == 2


def test_without_groups_there_is_one_amount_a_period(tenant: Tenant) -> None:
    rows = list(tenant.client.costs(query()))
    assert sorted((row.at, row.value, row.group) for row in rows if row.at) == [
        (FEB, Decimal("17.350000000000015"), {}),
        (FEB + timedelta(days=1), Decimal("10.70"), {}),
        (FEB + timedelta(days=2), 0, {}),
    ]


def test_only_what_is_filtered_for_is_answered(tenant: Tenant) -> None:
    asked = query(filters={"Service": ("AmazonEC2",), "Account": ("111111111111", "3")}, group_by=("Service",))
    assert [(row.value, row.group) for row in tenant.client.costs(asked)] == [
        (Decimal("10.25"), {"Service": "AmazonEC2"}),
        (Decimal("11.75"), {"Service": "AmazonEC2"}),
    ]


def test_the_end_does_not_count_and_other_zones_are_the_same_moment(tenant: Tenant) -> None:
    zone = timezone(timedelta(hours=2))
    asked = CostQuery(start=datetime(2026, 2, 1, 2, tzinfo=zone), end=datetime(2026, 2, 2, 2, tzinfo=zone))
    assert [row.value for row in tenant.client.costs(asked)] == [Decimal("17.350000000000015")]


def test_a_dimension_that_a_row_lacks_is_answered_empty(tenant: Tenant) -> None:
    rows = list(tenant.client.costs(query(group_by=("User:Defined:Team",))))
    assert {row.group["User:Defined:Team"] for row in rows} == {""}


@pytest.mark.parametrize("granularity", list(CostGranularity))
def test_each_granularity_is_answered_or_not_in_the_contract(tenant: Tenant, granularity: CostGranularity) -> None:
    lacking = {"cumulative"} if tenant.live else {"hourly", "weekly", "yearly"}
    if granularity in lacking:
        with pytest.raises(NotInContract, match=granularity.value):
            tenant.client.costs(query(granularity=granularity))  # said at once, not when the first row is asked for
        assert tenant.state()["calls"] == []
    else:
        assert sum(row.value for row in tenant.client.costs(query(granularity=granularity))) == Decimal(
            "28.050000000000015"
        )


@pytest.mark.parametrize("cost_type", list(CostType))
def test_each_type_of_cost_is_answered_or_not_in_the_contract(tenant: Tenant, cost_type: CostType) -> None:
    at, amounts = "2026-02-01", {name.value: str(n) for n, name in enumerate(CostType, 1)}
    tenant.configure(costs=[{"at": at, "cost": "99", "by_type": amounts}])
    if cost_type is CostType.USAGE_AMOUNT and not tenant.live:
        with pytest.raises(NotInContract, match="usage_amount"):
            tenant.client.costs(query(cost_type=cost_type))
        assert tenant.state()["calls"] == []
    else:
        assert [row.value for row in tenant.client.costs(query(cost_type=cost_type))] == [
            Decimal(amounts[cost_type.value])
        ]


def test_an_expired_cursor_is_told_with_what_to_do(live: Tenant) -> None:
    live.configure(costs_page_rows=1)
    rows = live.client.costs(GROUPED)
    next(rows)
    live.configure(cursors_expired=True)
    with pytest.raises(Expired, match=r"24 hours: ask again from the first page"):
        next(rows)
    assert live.count("getBillingCosts") == 2


def test_more_questions_than_a_day_has_are_told_with_the_limit_and_pages_are_free(live: Tenant) -> None:
    live.configure(costs_page_rows=1, costs_per_day=1)
    assert len(list(live.client.costs(GROUPED))) == 6
    with pytest.raises(RateLimited, match=r"60 questions a day.*pages of one do not count"):
        list(live.client.costs(GROUPED))


def test_an_unknown_dimension_is_told_by_the_vendor(tenant: Tenant) -> None:
    with pytest.raises(RequestRefused, match="Colour"):
        list(tenant.client.costs(query(group_by=("Colour",))))


def test_dimensions_are_listed(tenant: Tenant) -> None:
    tenant.configure(dimensions=[{"id": "User:Défini", "name": "Équipe", "type": "custom"}])
    (known,) = tenant.client.dimensions()
    assert (known.id, known.name, known.type) == ("User:Défini", "Équipe", "" if tenant.live else "custom")


# --- what the vendor sees ---------------------------------------------------------------------------------------------

WHOLE = query(
    group_by=("Account", "User:Defined:Team & co"),
    filters={"Service": ("A+B=C", "ü"), "!Region": ("x",)},
    granularity=CostGranularity.MONTHLY,
    cost_type=CostType.DISCOUNTED_AMORTIZED,
)


def test_every_parameter_reaches_openapi_in_the_body() -> None:
    wire = vendor({"data": []})
    assert list(client("openapi", wire).costs(WHOLE)) == []
    assert wire.calls == [("POST", COSTS)]
    assert wire.bodies == [
        {
            "start": "2026-02-01T00:00:00Z",
            "end": "2026-03-01T00:00:00Z",
            "group_by": ["Account", "User:Defined:Team & co"],
            "filter": {"Service": ["A+B=C", "ü"], "!Region": ["x"]},
            "granularity": "monthly",
            "cost_type": "discounted_amortized",
        }
    ]


def test_every_parameter_reaches_live_in_the_query() -> None:
    wire = vendor({"costs": []})
    assert list(client("live", wire).costs(WHOLE)) == []
    assert wire.calls == [("GET", COSTS)]
    assert wire.seen[0].content == b""
    items = wire.seen[0].url.params.multi_items()
    filters = json.loads(next(value for name, value in items if name == "filters"))
    assert filters == {"Service": ["A+B=C", "ü"], "!Region": ["x"]}
    assert [item for item in items if item[0] != "filters"] == [
        ("start_date", "2026-02-01T00:00:00Z"),
        ("end_date", "2026-03-01T00:00:00Z"),
        ("granularity", "monthly"),
        ("group_by", "Account"),
        ("group_by", "User:Defined:Team & co"),
        ("cost_type", "discounted_amortized_cost"),
    ]


def test_what_is_not_asked_for_is_not_said() -> None:
    one, other = vendor({"data": []}), vendor({"costs": []})
    list(client("openapi", one).costs(query()))
    list(client("live", other).costs(query()))
    assert one.bodies[0].keys() == {"start", "end"}
    assert other.seen[0].url.params.keys() == {"start_date", "end_date"}


@pytest.mark.parametrize("cost_type", list(CostType))
def test_live_has_a_suffix_on_all_types_but_the_amount_of_usage(cost_type: CostType) -> None:
    wire = vendor({"costs": []})
    list(client("live", wire).costs(query(cost_type=cost_type)))
    suffix = "" if cost_type is CostType.USAGE_AMOUNT else "_cost"
    assert wire.seen[0].url.params["cost_type"] == cost_type.value + suffix


def page(cursor: object, *, more: object = True) -> dict[str, Any]:
    return {"costs": [], "pagination": {"cursor": {"next_cursor": cursor, "has_next": more}}}


@given(st.text(min_size=1, max_size=40))
def test_whatever_a_cursor_is_it_arrives_as_it_was_given_beside_the_question(cursor: str) -> None:
    wire = vendor(page(cursor), page(None, more=False))
    list(client("live", wire).costs(WHOLE))
    first, second = (request.url.params.multi_items() for request in wire.seen)
    assert second == [*first, ("cursor", cursor)]


@pytest.mark.parametrize("told", [None, "", 5, ["a"], True])
def test_a_next_page_without_a_cursor_is_not_taken_for_the_end(told: object) -> None:
    with pytest.raises(AnswerNotUnderstood, match="no cursor for it"):
        list(client("live", vendor(page(told))).costs(query()))


@pytest.mark.parametrize("cursor", [{"next_cursor": "a"}, {"next_cursor": "a", "has_next": None}])
def test_a_cursor_that_does_not_say_whether_there_is_more_is_followed(cursor: object) -> None:
    wire = vendor({"costs": [], "pagination": {"cursor": cursor}}, page(None, more=False))
    assert list(client("live", wire).costs(query())) == []
    assert [request.url.params.get("cursor") for request in wire.seen] == [None, "a"]


@pytest.mark.parametrize(
    "pagination", ["x", 5, {"cursor": "a"}, {"cursor": {"next_cursor": "a", "has_next": 0}}, {"next": 5}, {"next": {}}]
)
@pytest.mark.parametrize("contract", ["openapi", "live"])
def test_pages_that_nobody_can_tell_of_are_not_the_end(contract: str, pagination: object) -> None:
    said = {"data": [], "costs": [], "pagination": pagination}
    if contract == "openapi" and isinstance(pagination, dict) and "cursor" in pagination:
        return  # openapi knows no cursors
    if contract == "live" and isinstance(pagination, dict) and "next" in pagination:
        return  # and live no addresses
    with pytest.raises(AnswerNotUnderstood, match="has a next page, but no"):
        list(client(contract, vendor(said)).costs(query()))


NO_PAGES: list[object] = [None, {}, {"cursor": None}, {"cursor": {}}, {"next": None}, {"next": ""}]


@pytest.mark.parametrize("pagination", NO_PAGES)
@pytest.mark.parametrize("contract", ["openapi", "live"])
def test_a_list_that_names_no_next_page_ends(contract: str, pagination: object) -> None:
    said = {"data": [], "costs": [], "pagination": pagination}
    for wire in (vendor(said), vendor({"data": [], "costs": []})):
        assert list(client(contract, wire).costs(query())) == []
        assert len(wire.seen) == 1


@pytest.mark.parametrize("pagination", [5, 0, 0.5, True, False, [], ["a"]])
@pytest.mark.parametrize("contract", ["openapi", "live"])
def test_pages_that_are_announced_in_an_unknown_way_are_not_taken_for_the_end(
    contract: str, pagination: object
) -> None:
    wire = vendor({"data": [], "costs": [], "pagination": pagination})
    with pytest.raises(AnswerNotUnderstood, match="has a next page"):
        list(client(contract, wire).costs(query()))
    assert len(wire.seen) == 1


@pytest.mark.parametrize("more", [1, "true", "no", [True], {"a": 1}])
def test_whether_there_is_more_is_yes_or_no(more: object) -> None:
    with pytest.raises(AnswerNotUnderstood, match="no cursor for it"):
        list(client("live", vendor(page("a", more=more))).costs(query()))


def test_a_list_of_costs_that_leads_back_ends_with_an_error() -> None:
    with pytest.raises(AnswerNotUnderstood, match="leads back"):
        list(client("live", vendor(page("a"), page("b"), page("a"))).costs(query()))


def test_the_body_is_sent_again_to_the_next_address_of_openapi() -> None:
    wire = vendor({"data": [], "pagination": {"next": f"{BASE}{COSTS}?page=2&a=b%2Bc"}}, {"data": []})
    list(client("openapi", wire).costs(WHOLE))
    assert [str(request.url) for request in wire.seen] == [f"{BASE}{COSTS}", f"{BASE}{COSTS}?page=2&a=b%2Bc"]
    assert wire.seen[0].content == wire.seen[1].content
    assert [request.method for request in wire.seen] == ["POST", "POST"]


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/v2/billing/costs?page=2",
        "http://api.vendor.example/",
        "//evil.example/",
        "https://api.vendor.example@evil.example/",
    ],
)
def test_a_next_page_on_another_host_is_never_asked_for(address: str) -> None:
    wire = vendor({"data": [{"cost": [{"value": 1}]}], "pagination": {"next": address}})
    rows = client("openapi", wire).costs(query())
    assert next(rows).value == 1
    with pytest.raises(AnswerNotUnderstood, match="it was not asked for"):
        next(rows)
    assert len(wire.seen) == 1


# --- what the vendor answers ------------------------------------------------------------------------------------------


def series(**more: object) -> dict[str, Any]:
    return {"data": [{"group": {"Account": "1"}, "cost": [{"timestamp": "2026-02-01T00:00:00Z", "value": 1}], **more}]}


exact = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20)


@given(exact.filter(lambda amount: int(amount.as_tuple().exponent) >= -300))
def test_amounts_are_read_to_the_last_digit(amount: Decimal) -> None:
    digits = str(amount).encode()
    one = vendor(b'{"data": [{"cost": [{"value": %s}]}]}' % digits)
    other = vendor(b'{"costs": [{"usage_date": "2026-02-01", "cost": %s}]}' % digits)
    for contract, wire in (("openapi", one), ("live", other)):
        (row,) = client(contract, wire).costs(query())
        assert row.value.as_tuple() == amount.as_tuple() or row.value == amount


@pytest.mark.parametrize("contract", ["openapi", "live"])
def test_what_adding_up_floats_leaves_is_an_amount(contract: str) -> None:
    """A vendor that adds 0.1 and 0.2 and takes 0.3 away answers this; it must not make a month unreadable."""
    said: dict[str, bytes] = {
        "openapi": b'{"data": [{"cost": [{"value": 5.551115123125783e-17}]}]}',
        "live": b'{"costs": [{"usage_date": "2026-02-01", "cost": 5.551115123125783e-17}]}',
    }
    (row,) = client(contract, vendor(said[contract])).costs(query())
    assert row.value == Decimal("5.551115123125783e-17")


def test_a_cumulative_amount_may_have_no_time() -> None:
    said = {"data": [{"group": {}, "cost": [{"value": "12.50", "currency": "USD"}], "name": "x"}], "more": 1}
    (row,) = client("openapi", vendor(said)).costs(query(granularity=CostGranularity.CUMULATIVE))
    assert (row.at, row.value, row.group) == (None, Decimal("12.50"), {})


def test_rows_may_have_no_value_of_a_dimension_and_further_columns() -> None:
    first = {"usage_date": "2026-02-01", "cost": 1, "Account": "1", "Service": None, "Region": "x"}
    second = {"usage_date": "2026-02-01", "cost": 2, "Account": None, "Service": None}
    rows = client("live", vendor({"costs": [first, second]})).costs(query(group_by=("Service", "Account")))
    assert [row.group for row in rows] == [{"Account": "1"}, {}]


@pytest.mark.parametrize("row", [{"Account": "1"}, {"service": "S", "Account": "1"}, {}])
def test_a_row_without_a_column_that_was_grouped_by_is_told_by_its_name(row: dict[str, str]) -> None:
    wire = vendor({"costs": [{"usage_date": "2026-02-01", "cost": 1, **row}]})
    with pytest.raises(AnswerNotUnderstood, match="no 'Service', which was grouped by"):
        list(client("live", wire).costs(query(group_by=("Service", "Account"))))


@pytest.mark.parametrize("contract", ["openapi", "live"])
def test_a_row_whose_dimension_is_null_is_read_as_one_that_lacks_it(contract: str) -> None:
    live = {"costs": [{"usage_date": "2026-02-01", "cost": 1, "Account": None}]}
    said = live if contract == "live" else series(group={"Account": None})
    (row,) = client(contract, vendor(said)).costs(query(group_by=("Account",)))
    assert row.group == {}


@pytest.mark.parametrize("key", ["cost", "usage_amount"])
def test_usage_is_read_under_either_name(key: str) -> None:
    said = {"costs": [{"usage_date": "2026-02-01T00:00:00", key: 1.5}]}
    (row,) = client("live", vendor(said)).costs(query(cost_type=CostType.USAGE_AMOUNT))
    assert (row.at, row.value) == (FEB, Decimal("1.5"))


@pytest.mark.parametrize(
    "said",
    [
        {"costs": {}},
        {"costs": None},
        {"data": []},
        {"costs": ["x"]},
        {"costs": [{"usage_date": "2026-02-01"}]},
        {"costs": [{"usage_date": "2026-02-01", "cost": None}]},
        {"costs": [{"usage_date": "soon", "cost": 1}]},
        {"costs": [{"usage_date": "2026-02-01", "cost": "NaN"}]},
        {"costs": [{"usage_date": "2026-02-01", "cost": True}]},
        [],
    ],
)
def test_an_answer_that_is_not_lives_is_told(said: object) -> None:
    with pytest.raises(AnswerNotUnderstood):
        list(client("live", vendor(said)).costs(query(group_by=("Account",))))


@pytest.mark.parametrize(
    "said",
    [
        {"data": {}},
        {"costs": []},
        series(cost=[{"value": None}]),
        series(cost=["x"]),
        series(cost=[{"value": 1, "timestamp": "soon"}]),
        series(group=["Account"]),
        series(cost="x"),
        series(cost={"value": 1}),
        series(cost=5),
        series(cost=True),
        {"data": ["x"]},
        {"data": [None]},
        {"data": [[]]},
        {"data": [{"group": {}, "costs": [{"value": 1}]}]},
        series(cost=None),
        series(cost={}),
        series(cost=[{"timestamp": "2026-02-01T00:00:00Z"}]),
        series(group="Account"),
        series(group={"Account": 5}),
    ],
)
def test_an_answer_that_is_not_openapis_is_told(said: object) -> None:
    with pytest.raises(AnswerNotUnderstood):
        list(client("openapi", vendor(said)).costs(query(group_by=("Account",))))


# --- the question itself ----------------------------------------------------------------------------------------------


def test_a_question_without_an_offset_or_with_unknown_words_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        CostQuery(start=datetime(2026, 2, 1), end=MAR)  # noqa: DTZ001 -- that is the case
    with pytest.raises(ValidationError):
        CostQuery.model_validate({"start": FEB, "end": MAR, "groups": ["Account"]})
    with pytest.raises(ValidationError):
        CostQuery.model_validate({"start": FEB, "end": MAR, "granularity": "minutely"})
    with pytest.raises(NotInContract):
        client("live", nobody()).costs(query(granularity=CostGranularity.CUMULATIVE))

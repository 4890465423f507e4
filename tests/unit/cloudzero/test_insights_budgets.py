"""Insights and budgets under both contracts: made, read, changed in part, listed whole, deleted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from finops_relay.cloudzero.client import CloudZero
from finops_relay.cloudzero.idempotency import HEADER, IdempotencyKeys
from finops_relay.cloudzero.records import BudgetChange, Insight, InsightChange, Notification, Period
from finops_relay.errors import (
    AnswerNotUnderstood,
    InputRefused,
    NotFound,
    NotInContract,
    OutcomeUnknown,
    RateLimited,
    RequestRefused,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.cloudzero.conftest import Tenant
from tests.unit.cloudzero.wires import ONE_TRY, Vendor, answer, client, nobody, vendor

FEB, MAR = date(2026, 2, 1), date(2026, 3, 1)
BOTH = ("openapi", "live")
FILTERS = {"Service": ["AmazonEC2"], "nested": {"a": [1, None, True]}}
NEW_INSIGHTS = {
    "openapi": InsightChange(title="Idle", description="Since May", filters=FILTERS, group_by=("Account",)),
    "live": InsightChange(
        title="Idle",
        description="Since May",
        category="waste",
        status="new",
        effort="low",
        cost_impact=Decimal("1234.50"),
        link="https://a.example/?b=c",
    ),
}
NEW_BUDGETS = {
    "openapi": BudgetChange(
        name="Team",
        amount=Decimal("1000.10"),
        period=Period.QUARTERLY,
        view_id="v1",
        notifications=(Notification(threshold=Decimal("80.5"), recipients=("a@b.example",)),),
    ),
    "live": BudgetChange(
        name="Team", view_id="v1", monthly_limits={FEB: Decimal("100.10"), MAR: Decimal("1E+3")}, alerts={"80": "N"}
    ),
}


def fields(change: InsightChange | BudgetChange) -> dict[str, Any]:
    """Return what a change names, or a thing holds."""
    return {name: value for name, value in dict(change).items() if value is not None}


def kept(tenant: Tenant, kind: str) -> list[dict[str, Any]]:
    """Return the insights or budgets that the vendor holds."""
    found: list[dict[str, Any]] = tenant.state()[kind]
    return found


def only(tenant: Tenant, kind: str) -> dict[str, Any]:
    """Return the content of the only one, as the vendor holds it."""
    (thing,) = kept(tenant, kind)
    own = {"id", "created", "last_updated", "created_at", "updated_at", "cost_type"}
    return {name: value for name, value in thing.items() if name not in own and name != "granularity"}


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_an_insight_is_made_read_changed_listed_and_deleted(tenant: Tenant) -> None:
    new = NEW_INSIGHTS[tenant.vendor.contract]
    made = tenant.client.create_insight(new)
    assert {name: getattr(made, name) for name in fields(new)} == fields(new)
    assert tenant.client.insight(made.id) == made
    changed = tenant.client.update_insight(made.id, InsightChange(title="Busy"))
    assert {**fields(made), "title": "Busy", "updated_at": changed.updated_at} == fields(changed)
    assert tenant.client.insights() == (changed,)
    tenant.client.delete_insight(made.id)
    assert kept(tenant, "insights") == []
    with pytest.raises(NotFound, match="the insight's id"):
        tenant.client.delete_insight(made.id)
    with pytest.raises(NotFound):
        tenant.client.insight(made.id)
    with pytest.raises(NotFound):
        tenant.client.update_insight(made.id, InsightChange(title="Gone"))


def test_a_budget_is_made_read_changed_listed_and_deleted(tenant: Tenant) -> None:
    new = NEW_BUDGETS[tenant.vendor.contract]
    made = tenant.client.create_budget(new)
    assert made.model_dump(include=set(fields(new))) == new.model_dump(exclude_none=True)
    assert tenant.client.budget(made.id) == made
    changed = tenant.client.update_budget(made.id, BudgetChange(name="Crew"))
    assert {**fields(made), "name": "Crew", "updated_at": changed.updated_at} == fields(changed)
    assert tenant.client.budgets() == (changed,)
    tenant.client.delete_budget(made.id)
    assert kept(tenant, "budgets") == []
    with pytest.raises(NotFound, match="the budget's id"):
        tenant.client.budget(made.id)


def test_what_the_vendor_holds_of_an_insight_is_what_was_given(tenant: Tenant) -> None:
    tenant.client.create_insight(NEW_INSIGHTS[tenant.vendor.contract])
    given = {"description": "Since May"}
    if tenant.live:
        given |= {"title": "Idle", "category": "waste", "status": "new", "effort": "low"}
        assert only(tenant, "insights") == given | {"cost_impact": "1234.50", "link": "https://a.example/?b=c"}
    else:
        filters = {"Service": ["AmazonEC2"], "nested": {"a": ["1", None, True]}}
        assert only(tenant, "insights") == given | {"name": "Idle", "filters": filters, "group_by": ["Account"]}


def test_what_the_vendor_holds_of_a_budget_is_what_was_given(tenant: Tenant) -> None:
    tenant.client.create_budget(NEW_BUDGETS[tenant.vendor.contract])
    held = only(tenant, "budgets")
    if tenant.live:
        monthly = {"2026-02-01T00:00:00Z": {"amount": "100.10"}, "2026-03-01T00:00:00Z": {"amount": "1000"}}
        assert held == {
            "name": "Team",
            "view": {"id": "v1"},
            "planned_limits": {"monthly": monthly},
            "alerts": {"80": "N"},
        }
    else:
        told = {"threshold": "80.5", "recipients": ["a@b.example"]}
        assert held == {
            "name": "Team",
            "amount": "1000.1",
            "period": "quarterly",
            "view_id": "v1",
            "notifications": [told],
        }


def test_times_of_creation_and_change_are_aware_and_recent(tenant: Tenant) -> None:
    insight = tenant.client.create_insight(NEW_INSIGHTS[tenant.vendor.contract])
    budget = tenant.client.create_budget(NEW_BUDGETS[tenant.vendor.contract])
    for thing in (insight, budget):
        for moment in (thing.created_at, thing.updated_at):
            assert moment is not None
            assert moment.tzinfo is UTC
            assert abs(datetime.now(UTC) - moment) < timedelta(minutes=5)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_lists_are_read_to_their_last_page(tenant: Tenant, count: int) -> None:
    tenant.configure(page_items=1)
    for n in range(count):
        tenant.client.create_insight(InsightChange(title=f"i{n}"))
        tenant.client.create_budget(NEW_BUDGETS[tenant.vendor.contract].model_copy(update={"name": f"b{n}"}))
    assert [held.title for held in tenant.client.insights()] == [f"i{n}" for n in range(count)]
    assert [held.name for held in tenant.client.budgets()] == [f"b{n}" for n in range(count)]
    assert tenant.count("getInsights") == tenant.count("getBudgets") == max(1, count)


# --- amounts ----------------------------------------------------------------------------------------------------------

dollars = st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**15, places=6)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dollars | st.sampled_from([Decimal("1E+3"), Decimal("1E-7"), Decimal("0.10")]))
def test_amounts_arrive_and_come_back_to_the_last_digit(tenant: Tenant, amount: Decimal) -> None:
    tenant.vendor.reset()
    if tenant.live:
        insight = tenant.client.create_insight(InsightChange(title="Idle", cost_impact=amount))
        assert tenant.client.insight(insight.id).cost_impact == amount
        new = BudgetChange(name="Team", view_id="v", monthly_limits={FEB: amount})
        limits = tenant.client.budget(tenant.client.create_budget(new).id).monthly_limits
        assert limits == {FEB: amount}
        (held,) = kept(tenant, "budgets")
        assert "E" not in held["planned_limits"]["monthly"]["2026-02-01T00:00:00Z"]["amount"]
        return
    share = Notification(threshold=amount, recipients=())
    new = BudgetChange(name="Team", amount=amount, period=Period.ANNUAL, notifications=(share,))
    budget = tenant.client.update_budget(tenant.client.create_budget(new).id, BudgetChange(name="Crew"))
    assert budget.amount == amount
    assert [held.model_dump() for held in budget.notifications or ()] == [share.model_dump()]


@pytest.mark.parametrize("amount", [0.1, "NaN", "Infinity", "1E+40"])
def test_what_is_no_exact_amount_is_refused(amount: object) -> None:
    with pytest.raises(ValidationError):
        InsightChange.model_validate({"cost_impact": amount})
    with pytest.raises(ValidationError):
        BudgetChange.model_validate({"amount": amount})
    with pytest.raises(ValidationError):
        BudgetChange.model_validate({"monthly_limits": {FEB: amount}})
    with pytest.raises(ValidationError):
        Notification.model_validate({"threshold": amount})


def test_an_amount_of_nothing_is_an_amount(tenant: Tenant) -> None:
    nothing: dict[str, Any] = {"monthly_limits": {FEB: Decimal(0)}} if tenant.live else {"amount": Decimal(0)}
    new = NEW_BUDGETS[tenant.vendor.contract].model_copy(update=nothing)
    made = tenant.client.create_budget(new)
    assert {name: getattr(made, name) for name in nothing} == nothing


@pytest.mark.parametrize("day", [2, 15, 28])
def test_a_limit_is_of_a_month_that_is_named_by_its_first_day(day: int) -> None:
    with pytest.raises(ValidationError, match="named by its first day"):
        BudgetChange(monthly_limits={FEB: Decimal(1), FEB.replace(day=day): Decimal(2)})
    limits = {"budget": {"id": "b", "planned_limits": {"monthly": {f"2026-02-{day:02}": {"amount": "5"}}}}}
    with pytest.raises(AnswerNotUnderstood, match="monthly_limits"):
        client("live", vendor(limits)).budget("b")


# --- changes ----------------------------------------------------------------------------------------------------------

HELD_INSIGHT = {"id": "i", "name": "Idle", "description": "", "filters": {"a": [1.50]}, "group_by": [], "more": 1}
HELD_BUDGET = {"id": "b", "name": "Team", "amount": 5, "period": "annual", "view_id": "v1", "notifications": []}


def test_openapi_reads_first_and_sends_the_whole_insight_back() -> None:
    wire = vendor({"data": HELD_INSIGHT})
    client("openapi", wire).update_insight("i", InsightChange(title="Busy"))
    assert wire.calls == [("GET", "/v2/insights/i"), ("PUT", "/v2/insights/i")]
    assert wire.bodies[1] == {"name": "Busy", "description": "", "filters": {"a": [1.5]}, "group_by": []}
    assert b"1.5" in wire.seen[1].content


def test_openapi_reads_first_and_sends_the_whole_budget_back() -> None:
    wire = vendor({"data": {**HELD_BUDGET, "created_at": "2026-02-01T00:00:00Z", "owner": "me"}})
    client("openapi", wire).update_budget("b", BudgetChange(amount=Decimal("7.50")))
    assert wire.calls == [("GET", "/v2/budgets/b"), ("PUT", "/v2/budgets/b")]
    assert wire.bodies[1] == {
        "name": "Team",
        "amount": 7.5,
        "period": "annual",
        "view_id": "v1",
        "notifications": [],
    }
    assert b'"amount":7.50' in wire.seen[1].content


def test_openapi_replaces_each_field_that_a_change_names(openapi: Tenant) -> None:
    insight = openapi.client.create_insight(NEW_INSIGHTS["openapi"])
    openapi.client.update_insight(insight.id, InsightChange(description="", filters={}, group_by=()))
    assert only(openapi, "insights") == {"name": "Idle", "description": "", "filters": {}, "group_by": []}
    budget = openapi.client.create_budget(NEW_BUDGETS["openapi"])
    openapi.client.update_budget(budget.id, BudgetChange(period=Period.ANNUAL, notifications=()))
    held = only(openapi, "budgets")
    assert (held["period"], held["notifications"], held["view_id"]) == ("annual", [], "v1")


def test_an_update_that_finds_nothing_to_read_writes_nothing() -> None:
    updates: list[Callable[[CloudZero], object]] = [
        lambda made: made.update_insight("i", InsightChange(title="Busy")),
        lambda made: made.update_budget("b", BudgetChange(name="Crew")),
    ]
    for update in updates:
        wire = vendor(answer({}, 404))
        with pytest.raises(NotFound):
            update(client("openapi", wire))
        assert [method for method, _ in wire.calls] == ["GET"]


LIVE_INSIGHT = {"insight": {"id": "i", "title": "Idle", "created": "1769904000.5", "last_updated": "1769904001"}}
LIVE_BUDGET = {
    "budget": {
        "id": "b",
        "name": "Team",
        "view": {"id": "v1"},
        "planned_limits": {"monthly": {"2026-02-01T00:00:00+00:00": {"amount": "5"}}},
        "created": "1769904000",
        "last_updated": "1769904001",
    }
}


def test_live_sends_one_patch_with_what_changed_and_nothing_else() -> None:
    wire = vendor(LIVE_INSIGHT, LIVE_INSIGHT, LIVE_BUDGET, LIVE_BUDGET)
    made = client("live", wire)
    made.update_insight("i", InsightChange(status="addressed"))
    made.update_insight("i", InsightChange(cost_impact=Decimal("1E+3"), description=""))
    made.update_budget("b", BudgetChange(alerts={}))
    made.update_budget("b", BudgetChange(monthly_limits={date(2026, 2, 1): Decimal("1E-2")}))
    assert wire.calls == [("PATCH", "/v2/insights/i")] * 2 + [("PATCH", "/v2/budgets/b")] * 2
    assert wire.bodies == [
        {"status": "addressed"},
        {"cost_impact": "1000", "description": ""},
        {"alerts": {}},
        {"planned_limits": {"monthly": {"2026-02-01T00:00:00Z": {"amount": "0.01"}}}},
    ]
    assert len({request.headers[HEADER] for request in wire.seen}) == 4, "each write has a key of its own"


def test_a_budget_of_openapi_can_lose_its_view_and_nothing_else(openapi: Tenant) -> None:
    budget = openapi.client.create_budget(NEW_BUDGETS["openapi"])
    before = only(openapi, "budgets")
    openapi.client.update_budget(budget.id, BudgetChange(view_id=""))
    assert only(openapi, "budgets") == {name: value for name, value in before.items() if name != "view_id"}


def test_a_new_budget_of_openapi_may_have_no_view(openapi: Tenant) -> None:
    openapi.client.create_budget(NEW_BUDGETS["openapi"].model_copy(update={"view_id": ""}))
    assert "view_id" not in only(openapi, "budgets")


def test_a_budget_of_live_keeps_a_view() -> None:
    with pytest.raises(NotInContract, match="no budgets without a view"):
        client("live", nobody()).update_budget("b", BudgetChange(view_id="", name="Crew"))


LIVE_ONLY_INSIGHT = {"category": "c", "status": "open", "effort": "low", "cost_impact": "1.5", "link": "l"}
LIVE_ONLY_BUDGET = {"monthly_limits": {"2026-02-01": "5"}, "alerts": {"80": "N"}}


def test_what_openapi_does_not_name_is_read_and_neither_hinders_an_update_nor_is_sent_back() -> None:
    wire = vendor({"data": {**HELD_INSIGHT, **LIVE_ONLY_INSIGHT}})
    held = client("openapi", wire).update_insight("i", InsightChange(title="Busy"))
    assert held.status == "open"
    assert wire.calls[-1] == ("PUT", "/v2/insights/i")
    assert wire.bodies[-1].keys() == {"name", "description", "filters", "group_by"}
    wire = vendor({"data": {**HELD_BUDGET, **LIVE_ONLY_BUDGET}})
    client("openapi", wire).update_budget("b", BudgetChange(name="Crew"))
    assert wire.calls[-1] == ("PUT", "/v2/budgets/b")
    assert wire.bodies[-1].keys() == {"name", "amount", "period", "view_id", "notifications"}


@pytest.mark.parametrize("contract", BOTH)
def test_a_change_that_names_nothing_is_refused_and_nothing_is_sent(contract: str) -> None:
    made = client(contract, nobody())
    with pytest.raises(InputRefused, match="change of the insight names nothing"):
        made.update_insight("i", InsightChange())
    with pytest.raises(InputRefused, match="change of the budget names nothing") as caught:
        made.update_budget("b", BudgetChange())
    assert caught.value.fix


# --- what a contract lacks, and what a new thing needs ----------------------------------------------------------------

LACKING: list[tuple[str, str, Any]] = [
    ("openapi", "category", "waste"),
    ("openapi", "status", "new"),
    ("openapi", "effort", ""),
    ("openapi", "cost_impact", Decimal(0)),
    ("openapi", "link", "https://a.example"),
    ("live", "filters", {}),
    ("live", "group_by", ()),
]
LACKING_BUDGETS: list[tuple[str, str, Any]] = [
    ("openapi", "monthly_limits", {}),
    ("openapi", "alerts", {"80": "Y"}),
    ("live", "amount", Decimal(0)),
    ("live", "period", Period.MONTHLY),
    ("live", "notifications", ()),
]


@pytest.mark.parametrize(("contract", "name", "value"), LACKING)
def test_a_field_of_insights_that_the_contract_lacks_is_said_and_nothing_is_sent(
    contract: str, name: str, value: object
) -> None:
    made, change = client(contract, nobody()), InsightChange.model_validate({"title": "Idle", name: value})
    said = f"'{contract}' has no {name} in an insight"
    with pytest.raises(NotInContract, match=said):
        made.create_insight(change)
    with pytest.raises(NotInContract, match=said):
        made.update_insight("i", change)


@pytest.mark.parametrize(("contract", "name", "value"), LACKING_BUDGETS)
def test_a_field_of_budgets_that_the_contract_lacks_is_said_and_nothing_is_sent(
    contract: str, name: str, value: object
) -> None:
    made = client(contract, nobody())
    change = NEW_BUDGETS[contract].model_copy(update={name: value})
    said = f"'{contract}' has no {name} in a budget"
    with pytest.raises(NotInContract, match=said):
        made.create_budget(change)
    with pytest.raises(NotInContract, match=said):
        made.update_budget("b", change)


def test_several_lacking_fields_are_all_named() -> None:
    change = InsightChange(title="Idle", status="new", link="x")
    with pytest.raises(NotInContract, match="status, link"):
        client("openapi", nobody()).create_insight(change)


@pytest.mark.parametrize("contract", BOTH)
def test_a_new_insight_needs_a_title(contract: str) -> None:
    with pytest.raises(InputRefused, match="title"):
        client(contract, nobody()).create_insight(InsightChange(description="x"))
    with pytest.raises(ValidationError):
        InsightChange(title="")


@pytest.mark.parametrize(
    ("contract", "missing"),
    [("openapi", name) for name in ("name", "amount", "period")]
    + [("live", name) for name in ("name", "view_id", "monthly_limits")],
)
def test_a_new_budget_needs_what_its_contract_requires(contract: str, missing: str) -> None:
    made = client(contract, nobody())
    with pytest.raises(InputRefused, match=missing) as caught:
        made.create_budget(NEW_BUDGETS[contract].model_copy(update={missing: None}))
    assert caught.value.fix
    with pytest.raises(InputRefused, match=" and "):
        made.create_budget(BudgetChange())


def test_an_empty_view_or_no_limits_at_all_are_missing_under_live() -> None:
    empty: dict[str, Any] = {"view_id": "", "monthly_limits": {}}
    for name, value in empty.items():
        with pytest.raises(InputRefused, match=name):
            client("live", nobody()).create_budget(NEW_BUDGETS["live"].model_copy(update={name: value}))


@pytest.mark.parametrize("identifier", ["", ".", ".."])
@pytest.mark.parametrize("contract", BOTH)
def test_an_id_that_names_nothing_is_never_asked_for(contract: str, identifier: str) -> None:
    made = client(contract, nobody())
    calls: list[Callable[[], object]] = [
        lambda: made.insight(identifier),
        lambda: made.update_insight(identifier, InsightChange(title="x")),
        lambda: made.delete_insight(identifier),
        lambda: made.budget(identifier),
        lambda: made.update_budget(identifier, BudgetChange(name="x")),
        lambda: made.delete_budget(identifier),
    ]
    for call in calls:
        with pytest.raises(RequestRefused, match="nothing was sent"):
            call()


# --- idempotency keys -------------------------------------------------------------------------------------------------


def test_openapi_has_no_idempotency_keys() -> None:
    made = client("openapi", nobody())
    with pytest.raises(NotInContract, match="idempotency"):
        made.create_insight(NEW_INSIGHTS["openapi"], IdempotencyKeys())
    with pytest.raises(NotInContract, match="idempotency"):
        made.create_budget(NEW_BUDGETS["openapi"], IdempotencyKeys())


@pytest.mark.parametrize("kind", ["insights", "budgets"])
def test_a_creation_whose_answer_was_lost_is_repeated_harmlessly_with_the_same_keys(live: Tenant, kind: str) -> None:
    def create(keys: IdempotencyKeys) -> str:
        if kind == "insights":
            return live.client.create_insight(NEW_INSIGHTS["live"], keys).id
        return live.client.create_budget(NEW_BUDGETS["live"], keys).id

    operation = "createInsight" if kind == "insights" else "createBudget"
    live.fault(operation, "lost_answer")
    keys = IdempotencyKeys()
    with pytest.raises(OutcomeUnknown):
        create(keys)
    made = create(keys)
    assert [thing["id"] for thing in kept(live, kind)] == [made]
    assert (live.count(operation), live.state()["replays"]) == (2, 1)


@pytest.mark.parametrize("said", [{}, {"insight": None}, {"insight": {"id": ""}}, b"", b"OK"])
def test_a_creation_whose_answer_cannot_be_read_keeps_its_key_whatever_is_answered_later(said: object) -> None:
    wire = vendor(answer(said), answer({}, 429), LIVE_INSIGHT)
    made, keys = client("live", wire, ONE_TRY), IdempotencyKeys()
    for error in ((AnswerNotUnderstood, OutcomeUnknown), RateLimited):
        with pytest.raises(error):
            made.create_insight(NEW_INSIGHTS["live"], keys)
    assert made.create_insight(NEW_INSIGHTS["live"], keys).id == "i"
    assert len({request.headers[HEADER] for request in wire.seen}) == 1, "the vendor makes a second insight"


def test_two_creations_make_two(tenant: Tenant) -> None:
    for _ in range(2):
        tenant.client.create_insight(NEW_INSIGHTS[tenant.vendor.contract])
    assert len(kept(tenant, "insights")) == 2


# --- answers ----------------------------------------------------------------------------------------------------------

UNKNOWN: dict[str, Any] = {"owner": {"name": "me"}, "tags": ["a"], "x": None}


def test_what_is_not_known_of_a_thing_is_passed_over() -> None:
    one = client("openapi", vendor({"data": {**HELD_INSIGHT, **UNKNOWN}, "meta": 1}))
    assert one.insight("i").title == "Idle"
    other = client("live", vendor({"insight": {**LIVE_INSIGHT["insight"], **UNKNOWN}, "meta": 1}))
    assert other.insight("i").created_at == datetime(2026, 2, 1, tzinfo=UTC)
    budget = client("openapi", vendor({"data": {**HELD_BUDGET, **UNKNOWN}})).budget("b")
    assert budget.name == "Team"
    assert budget.amount == 5
    planned = client("live", vendor({"budget": {**LIVE_BUDGET["budget"], **UNKNOWN}})).budget("b")
    assert planned.monthly_limits == {FEB: Decimal(5)}


def test_what_is_not_known_of_a_notification_is_passed_over() -> None:
    held = {**HELD_BUDGET, "notifications": [{"threshold": 80.5, "recipients": ["a"], "channel": "mail"}]}
    (told,) = client("openapi", vendor({"data": held})).budget("b").notifications or ()
    assert (told.threshold, told.recipients) == (Decimal("80.5"), ("a",))


def test_a_period_that_is_new_to_us_is_read_and_sent_back_as_it_is() -> None:
    wire = vendor({"data": {**HELD_BUDGET, "period": "weekly"}})
    assert client("openapi", vendor({"data": [{**HELD_BUDGET, "period": "weekly"}]})).budgets()[0].period == "weekly"
    client("openapi", wire).update_budget("b", BudgetChange(name="Crew"))
    assert wire.bodies[-1]["period"] == "weekly"
    with pytest.raises(ValidationError):
        BudgetChange.model_validate({"period": "weekly"})


def test_a_thing_may_hold_next_to_nothing() -> None:
    bare: list[tuple[str, Any, Callable[[CloudZero], Any]]] = [
        ("openapi", {"data": {"id": "i"}}, lambda made: made.insight("i")),
        ("live", {"insight": {"id": "i"}}, lambda made: made.insight("i")),
        ("openapi", {"data": {"id": "i"}}, lambda made: made.budget("i")),
        ("live", {"budget": {"id": "i"}}, lambda made: made.budget("i")),
    ]
    for contract, said, read in bare:
        found = read(client(contract, vendor(said)))
        assert (found.id, found.created_at, found.updated_at) == ("i", None, None)


@pytest.mark.parametrize(
    "said", [{}, [], {"data": []}, {"insight": None}, {"data": {"id": ""}}, {"insight": {"id": 5}}]
)
@pytest.mark.parametrize("contract", BOTH)
def test_an_answer_without_the_thing_is_told(contract: str, said: object) -> None:
    with pytest.raises(AnswerNotUnderstood):
        client(contract, vendor(said)).insight("i")


def test_a_thing_cannot_be_changed_in_hand() -> None:
    insight = Insight(id="i", title="Idle")
    with pytest.raises(ValidationError, match="frozen"):
        insight.title = "Busy"  # type: ignore[misc]  # that is the case
    with pytest.raises(ValidationError):
        InsightChange.model_validate({"titel": "Idle"})
    with pytest.raises(ValidationError):
        BudgetChange.model_validate({"name": "Team", "limit": 5})


def test_lists_follow_next_pages_only_at_the_own_host() -> None:
    wire: Vendor = vendor({"data": [HELD_INSIGHT], "pagination": {"next": "https://evil.example/v2/insights?page=2"}})
    with pytest.raises(AnswerNotUnderstood, match="not asked for"):
        client("openapi", wire).insights()
    assert len(wire.seen) == 1

"""Costs, insights and budgets at the CloudZero stand-in: grouped, paged and kept as each contract does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.contracts.cloudzero_api import Api, running

if TYPE_CHECKING:
    from collections.abc import Iterator

COSTS = "/v2/billing/costs"
YEAR = {"start": "2026-01-01T00:00:00Z", "end": "2027-01-01T00:00:00Z"}
SINCE = {"start_date": "2026-01-01"}
ROWS = [
    {"at": "2026-02-01T05:00:00Z", "cost": "0.1", "dimensions": {"Account": "1", "Service": "a"}},
    {"at": "2026-02-01T06:00:00Z", "cost": "0.2", "dimensions": {"Account": "1", "Service": "a"}},
    {"at": "2026-02-02", "cost": "4", "dimensions": {"Account": "2", "Service": "a"}, "by_type": {"billed": "5"}},
    {
        "at": "2026-03-01",
        "cost": "-8",
        "dimensions": {"Account": "1", "Service": "b"},
        "by_type": {"usage_amount": "3"},
    },
]
INSIGHT = {
    "title": "Idle disks",
    "status": "new",
    "effort": "low",
    "cost_impact": "12.50",
    "link": "https://example.com",
}
BUDGET = {
    "name": "Team",
    "view": {"id": "v1"},
    "planned_limits": {"monthly": {"2026-02-01T00:00:00+00:00": {"amount": "1000.00"}}},
    "alerts": {"80": "N", "100": "Y"},
}
SEED_BUDGET = {"name": "Team", "amount": 1000.1, "period": "monthly", "view_id": "v1"}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """Made once, because it reads the machine's certificates."""
    with httpx.Client() as client:
        yield client


@pytest.fixture
def live(http: httpx.Client) -> Iterator[Api]:
    with running("live", http, costs=ROWS) as api:
        yield api


@pytest.fixture
def openapi(http: httpx.Client) -> Iterator[Api]:
    with running("openapi", http, costs=ROWS) as api:
        yield api


def flat(api: Api, **params: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401 - query parameters
    rows = api.get(COSTS, **SINCE, **params).raise_for_status().json()["costs"]
    return [(row.pop("usage_date")[:13], row.pop("cost"), *row.values()) for row in rows]


# --- costs ----------------------------------------------------------------------------------------------------------


def test_live_costs_are_flat_rows_by_date(live: Api) -> None:
    assert flat(live) == [("2026-02-01T00", 0.3), ("2026-02-02T00", 4), ("2026-03-01T00", -8)]
    assert '"cost":0.3}' in live.get(COSTS, **SINCE).text
    assert flat(live, granularity="hourly")[0] == ("2026-02-01T05", 0.1)
    assert flat(live, granularity="weekly")[0] == ("2026-01-26T00", 0.3)
    assert flat(live, granularity="monthly") == [("2026-02-01T00", 4.3), ("2026-03-01T00", -8)]
    assert flat(live, granularity="yearly") == [("2026-01-01T00", -3.7)]


def test_live_costs_are_grouped_filtered_and_of_a_type(live: Api) -> None:
    assert flat(live, granularity="monthly", group_by=["Account", "Service"]) == [
        ("2026-02-01T00", 0.3, "1", "a"),
        ("2026-02-01T00", 4, "2", "a"),
        ("2026-03-01T00", -8, "1", "b"),
    ]
    assert flat(live, granularity="yearly", filters=json.dumps({"Service": ["a"], "!Account": ["2"]})) == [
        ("2026-01-01T00", 0.3)
    ]
    assert flat(live, granularity="yearly", cost_type="billed_cost") == [("2026-01-01T00", -2.7)]
    assert flat(live, granularity="yearly", cost_type="usage_amount") == [("2026-01-01T00", 3)]
    assert flat(live, end_date="2026-02-02T00:00:00Z") == [("2026-02-01T00", 0.3)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"start_date": "soon"},
        {"start_date": "2026-02-30"},
        {"granularity": "daily2"},
        {"group_by": "Colour"},
        {"filters": "{"},
        {"filters": '{"Account": 1}'},
        {"filters": "[]"},
        {"cost_type": "real"},
        {"limit": "5"},
        {"cursor": "made up"},
    ],
    ids=str,
)
def test_a_wrong_live_query_is_refused(live: Api, wrong: dict[str, str]) -> None:
    assert live.get(COSTS, **{**SINCE, **wrong}).status_code == 400


def test_live_pages_follow_a_cursor_that_must_be_encoded(live: Api) -> None:
    live.configure(costs_page_rows=2, costs_per_day=1)
    first = live.get(COSTS, **SINCE).json()
    pagination = first["pagination"]
    assert {name: pagination[name] for name in ("page_count", "item_count", "total_count")} == {
        "page_count": 2,
        "item_count": 2,
        "total_count": 3,
    }
    cursor = pagination["cursor"]["next_cursor"]
    assert {"+", "/", "=", "&"} <= set(cursor)
    second = live.get(COSTS, **SINCE, cursor=cursor).json()
    assert [row["cost"] for row in first["costs"] + second["costs"]] == [0.3, 4, -8]
    assert second["pagination"]["cursor"]["has_next"] is False
    assert second["pagination"]["cursor"]["next_cursor"] is None
    before = second["pagination"]["cursor"]["previous_cursor"]
    assert live.get(COSTS, **SINCE, cursor=before).json()["costs"] == first["costs"]
    raw = live.call("GET", f"{COSTS}?start_date=2026-01-01&cursor={cursor}")
    assert raw.status_code == 400
    assert live.get(COSTS, start_date="2026-02-01", cursor=cursor).status_code == 400


def test_live_queries_are_counted_by_the_day_and_pages_are_free(live: Api) -> None:
    live.configure(costs_per_day=2, costs_page_rows=1)
    cursor = live.get(COSTS, **SINCE).json()["pagination"]["cursor"]["next_cursor"]
    assert live.get(COSTS, **SINCE).status_code == 200
    refused = live.get(COSTS, **SINCE)
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit")
    assert live.get(COSTS, **SINCE, cursor=cursor).status_code == 200


def test_a_cursor_grows_old(live: Api) -> None:
    live.configure(costs_page_rows=1)
    cursor = live.get(COSTS, **SINCE).json()["pagination"]["cursor"]["next_cursor"]
    live.configure(cursors_expired=True)
    assert live.get(COSTS, **SINCE, cursor=cursor).status_code == 410
    assert live.get(COSTS, **SINCE).status_code == 200


def test_what_a_cursor_pages_through_does_not_change(live: Api) -> None:
    live.configure(costs_page_rows=2)
    cursor = live.get(COSTS, **SINCE).json()["pagination"]["cursor"]["next_cursor"]
    live.configure(costs=[])
    assert [row["cost"] for row in live.get(COSTS, **SINCE, cursor=cursor).json()["costs"]] == [-8]


def test_openapi_costs_are_series_by_group(openapi: Api) -> None:
    body = {**YEAR, "group_by": ["Account"], "granularity": "monthly", "filter": {"Service": ["a", "b"]}}
    response = openapi.post(COSTS, body)
    assert '"value":0.3}' in response.text
    assert response.json() == {
        "data": [
            {
                "group": {"Account": "1"},
                "cost": [
                    {"timestamp": "2026-02-01T00:00:00Z", "value": 0.3},
                    {"timestamp": "2026-03-01T00:00:00Z", "value": -8},
                ],
            },
            {"group": {"Account": "2"}, "cost": [{"timestamp": "2026-02-01T00:00:00Z", "value": 4}]},
        ],
        "pagination": {"total": 2},
    }
    total = openapi.post(
        COSTS, {**YEAR, "granularity": "cumulative", "cost_type": "billed", "filter": {"Account": "2"}}
    )
    assert total.json()["data"] == [{"group": {}, "cost": [{"timestamp": "2026-01-01T00:00:00Z", "value": 5}]}]


@pytest.mark.parametrize(
    "wrong", [{"start": 1}, {"group_by": ["Colour"]}, {"filter": {"Account": 5}}, {"cost_type": "x"}]
)
def test_a_wrong_openapi_query_is_refused(openapi: Api, wrong: dict[str, Any]) -> None:
    assert openapi.post(COSTS, {**YEAR, **wrong}).status_code == 400


def test_openapi_pages_of_costs_are_the_same_body_posted_to_the_next_address(openapi: Api) -> None:
    openapi.configure(costs_page_rows=1)
    body = {**YEAR, "group_by": ["Account"]}
    first = openapi.post(COSTS, body).json()
    following = first["pagination"]["next"]
    assert urlsplit(following)[:3] == urlsplit(f"{openapi.server.api_url}{COSTS}")[:3]
    path = following.removeprefix(openapi.server.api_url)
    second = openapi.post(path, body).json()
    assert [series["group"]["Account"] for page in (first, second) for series in page["data"]] == ["1", "2"]
    assert second["pagination"].keys() == {"total", "previous"}
    assert openapi.post(path, {**body, "group_by": ["Service"]}).status_code == 400


def test_without_more_said_there_are_costs(http: httpx.Client) -> None:
    with running("live", http) as api:
        assert len(api.get(COSTS, **SINCE, group_by="Account").json()["costs"]) == 5


# --- insights and budgets -------------------------------------------------------------------------------------------


def test_a_live_insight_is_kept_changed_and_deleted(live: Api) -> None:
    made = live.post("/v2/insights", INSIGHT).json()["insight"]
    assert made.items() >= INSIGHT.items()
    path = f"/v2/insights/{made['id']}"
    changed = live.call("PATCH", path, json={"status": "addressed", "cost_impact": 3.25}).json()["insight"]
    assert changed.items() >= {**INSIGHT, "status": "addressed", "cost_impact": "3.25"}.items()
    assert float(changed["last_updated"]) > float(made["last_updated"])
    assert changed["created"] == made["created"]
    assert live.get(path).json() == {"insight": changed}
    assert live.state()["insights"] == [changed]
    assert live.call("DELETE", path).json() == {"insight": {"id": made["id"]}, "comments": []}
    for method in ("GET", "DELETE"):
        assert live.call(method, path).status_code == 404
    assert live.call("PATCH", path, json={}).status_code == 404


@pytest.mark.parametrize("wrong", [{"status": "done"}, {"effort": "huge"}, {"cost_impact": "1e3"}, {"name": "n"}])
def test_a_wrong_live_insight_is_refused(live: Api, wrong: dict[str, str]) -> None:
    assert live.post("/v2/insights", {**INSIGHT, **wrong}).status_code == 400


def test_a_live_budget_is_kept_changed_and_deleted(live: Api) -> None:
    made = live.post("/v2/budgets", BUDGET).json()["budget"]
    assert made.items() >= BUDGET.items()
    path = f"/v2/budgets/{made['id']}"
    limits = {"monthly": {"2026-03-01T00:00:00Z": {"amount": "5"}}}
    changed = live.call("PATCH", path, json={"planned_limits": limits}).json()["budget"]
    assert changed.items() >= {**BUDGET, "planned_limits": limits}.items()
    assert live.get(path).json() == {"budget": changed}
    assert live.call("DELETE", path).json() == {"budget": {"id": made["id"]}}
    assert live.state()["budgets"] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"view": "v1"},
        {"planned_limits": {"monthly": {"2026-02": {"amount": "1"}}}},
        {"planned_limits": {"monthly": {"2026-02-01T00:00:00Z": {"amount": 1}}}},
        {"planned_limits": {"daily": {}}},
        {"alerts": {"101": "Y"}},
        {"alerts": {"80": True}},
        {"amount": 5},
    ],
    ids=str,
)
def test_a_wrong_live_budget_is_refused(live: Api, wrong: dict[str, Any]) -> None:
    assert live.post("/v2/budgets", {**BUDGET, **wrong}).status_code == 400


def test_a_view_has_no_two_live_budgets_of_one_name(live: Api) -> None:
    live.post("/v2/budgets", BUDGET).raise_for_status()
    assert live.post("/v2/budgets", BUDGET).status_code == 400
    other = live.post("/v2/budgets", {**BUDGET, "view": {"id": "v2"}}).json()["budget"]
    assert live.call("PATCH", f"/v2/budgets/{other['id']}", json={"view": {"id": "v1"}}).status_code == 400


@pytest.mark.parametrize("kind", ["insights", "budgets"])
def test_live_lists_are_paged_by_cursors(live: Api, kind: str) -> None:
    body = INSIGHT if kind == "insights" else BUDGET
    name = "title" if kind == "insights" else "name"
    for place in range(5):
        live.post(f"/v2/{kind}", {**body, name: f"n{place}"}).raise_for_status()
    names: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = live.get(f"/v2/{kind}", **params).raise_for_status().json()
        names += [each[name] for each in page[kind]]
        cursor = page["pagination"]["cursor"]
        if not cursor["has_next"]:
            break
        params["cursor"] = cursor["next_cursor"]
    assert names == ["n0", "n1", "n2", "n3", "n4"]
    assert live.get(f"/v2/{kind}", cursor="made up").status_code == 400
    assert live.get(f"/v2/{kind}", page=2).status_code == 400


def test_an_openapi_insight_is_kept_replaced_and_deleted(openapi: Api) -> None:
    response = openapi.post("/v2/insights", {"name": "n", "description": "d", "filters": {"Account": [1.10]}})
    assert response.status_code == 201
    made = response.json()["data"]
    path = f"/v2/insights/{made['id']}"
    changed = openapi.call("PUT", path, json={"name": "m", "group_by": ["Account"]}).json()["data"]
    assert changed == {
        "id": made["id"],
        "created_at": made["created_at"],
        "updated_at": changed["updated_at"],
        "name": "m",
        "group_by": ["Account"],
    }
    assert openapi.get(path).json() == {"data": changed}
    deleted = openapi.call("DELETE", path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert openapi.call("PUT", path, json={"name": "m"}).status_code == 404
    assert openapi.call("DELETE", path).status_code == 404


def test_an_openapi_budget_keeps_its_amount_exactly(openapi: Api) -> None:
    made = openapi.post("/v2/budgets", SEED_BUDGET)
    assert '"amount":1000.1,' in made.text
    path = f"/v2/budgets/{made.json()['data']['id']}"
    notes = [{"threshold": 80, "recipients": ["finops@example.com"]}]
    changed = openapi.call("PUT", path, json={**SEED_BUDGET, "amount": 5, "notifications": notes}).json()["data"]
    assert (changed["amount"], changed["notifications"]) == (5, notes)
    assert openapi.state()["budgets"][0]["amount"] == "5"
    assert openapi.call("PUT", path, json={"name": "n"}).status_code == 400
    assert openapi.call("DELETE", path).status_code == 204


def test_openapi_lists_are_paged_by_addresses_on_the_same_host(openapi: Api) -> None:
    for place in range(5):
        openapi.post("/v2/budgets", {**SEED_BUDGET, "name": f"n{place}"}).raise_for_status()
    names: list[str] = []
    path = "/v2/budgets?page_size=2"
    while path:
        page = openapi.call("GET", path).raise_for_status().json()
        names += [each["name"] for each in page["data"]]
        assert page["pagination"]["total"] == 5
        path = page["pagination"].get("next", "").removeprefix(openapi.server.api_url)
    assert names == ["n0", "n1", "n2", "n3", "n4"]
    assert openapi.get("/v2/budgets", page=0).status_code == 400
    assert openapi.get("/v2/budgets", cursor="x").status_code == 400
    openapi.configure(page_items=3)
    assert len(openapi.get("/v2/budgets").json()["data"]) == 3

"""Telemetry at the CloudZero stand-in: what adds up, what replaces, what a stream's first record freezes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from local.standins.cloudzero_account import MAX_BODY_BYTES
from tests.contracts.cloudzero_api import Api, running

if TYPE_CHECKING:
    from collections.abc import Iterator

METRIC = "/unit-cost/v1/telemetry/metric/orders"
ALLOCATION = "/unit-cost/v1/telemetry/allocation/cpu"
STREAM = "/unit-cost/v1/telemetry"
SEED_METRIC = "/v1/telemetry/orders"
SEED_ALLOCATION = "/v1/telemetry/allocation/cpu"


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """Made once, because it reads the machine's certificates."""
    with httpx.Client() as client:
        yield client


@pytest.fixture
def live(http: httpx.Client) -> Iterator[Api]:
    with running("live", http) as api:
        yield api


@pytest.fixture
def openapi(http: httpx.Client) -> Iterator[Api]:
    with running("openapi", http) as api:
        yield api


def metric(value: float = 1, timestamp: str = "2026-02-01", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - members
    return {"timestamp": timestamp, "value": value, **more}


def share(value: float = 1, element: str = "a", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - members
    return {
        "timestamp": "2026-02-01T05:10:00Z",
        "granularity": "HOURLY",
        "value": value,
        "element_name": element,
        **more,
    }


def seed(value: float = 1, timestamp: str = "2026-02-01T05:10:00Z", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - members
    return {"timestamp": timestamp, "granularity": "DAILY", "value": value, **more}


def send(api: Api, path: str, *records: dict[str, Any]) -> httpx.Response:
    return api.post(path, {"records": [*records]})


def held(api: Api, stream: str) -> dict[str, str]:
    """Give a stream's values by timestamp, dimensions and element."""
    records = api.state()["telemetry"][stream]["records"]
    keys = {name: json.loads(name) for name in records}
    return {f"{key[0]} {json.dumps(key[2])} {key[3]}".strip(): records[name] for name, key in keys.items()}


# --- sum and replace ------------------------------------------------------------------------------------------------


def test_live_sums_add_up_by_period_dimensions_and_element(live: Api) -> None:
    first = send(live, f"{ALLOCATION}/sum", share(1), share(0.25), share(4, "b"))
    assert (first.status_code, first.content) == (200, b"")
    send(live, f"{ALLOCATION}/sum", {**share(8), "timestamp": "2026-02-01T05:59:59+00:00"}).raise_for_status()
    assert held(live, "cpu") == {"2026-02-01T05:00:00Z {} b": "4", "2026-02-01T05:00:00Z {} a": "9.25"}


def test_live_replace_sets_one_key_and_leaves_the_others(live: Api) -> None:
    path = f"{METRIC}/replace"
    send(live, path, metric(1, associated_cost={"T": "a"}), metric(2, associated_cost={"T": "b"})).raise_for_status()
    send(live, path, metric(5, associated_cost={"T": "b"}), metric(7, associated_cost={"T": "b"})).raise_for_status()
    assert held(live, "orders") == {
        '2026-02-01T00:00:00Z {"T": "a"}': "1",
        '2026-02-01T00:00:00Z {"T": "b"}': "7",
    }


def test_a_metric_of_a_time_of_day_counts_for_its_day(live: Api) -> None:
    send(live, f"{METRIC}/sum", metric(1), metric(2, "2026-02-01T23:30:00-02:00")).raise_for_status()
    assert held(live, "orders") == {"2026-02-01T00:00:00Z {}": "1", "2026-02-02T00:00:00Z {}": "2"}


def test_the_order_of_dimensions_and_of_their_values_does_not_matter(live: Api) -> None:
    path = f"{ALLOCATION}/sum"
    send(live, path, share(1, filter={"A": ["x", "y"], "B": ["z"]})).raise_for_status()
    send(live, path, share(2, filter={"B": ["z"], "A": ["y", "x"]})).raise_for_status()
    assert held(live, "cpu") == {'2026-02-01T05:00:00Z {"A": ["x", "y"], "B": ["z"]} a': "3"}


def test_openapi_metric_records_add_up(openapi: Api) -> None:
    for _ in range(2):
        assert send(openapi, f"{SEED_METRIC}/records", seed(0.1, filter={"k": "v"})).status_code == 202
    assert held(openapi, "orders") == {'2026-02-01T00:00:00Z {"k": "v"}': "0.2"}


def test_openapi_allocation_records_add_up_or_replace(openapi: Api) -> None:
    send(openapi, f"{SEED_ALLOCATION}/sum", seed(1, element={"k": "v"}), seed(2, element={"k": "v"})).raise_for_status()
    assert held(openapi, "cpu") == {'2026-02-01T00:00:00Z {"k": "v"}': "3"}
    send(openapi, f"{SEED_ALLOCATION}/replace", seed(-5.5, element={"k": "v"})).raise_for_status()
    assert held(openapi, "cpu") == {'2026-02-01T00:00:00Z {"k": "v"}': "-5.5"}


def test_values_are_kept_exactly(openapi: Api) -> None:
    values = ["0.1", "0.2", "1e-20", "123456789012345678"]
    records = ",".join(
        f'{{"timestamp":"2026-02-01T00:00:00Z","granularity":"HOURLY","value":{value}}}' for value in values
    )
    headers = {"Content-Type": "application/json"}
    openapi.call("POST", f"{SEED_METRIC}/records", content=f'{{"records":[{records}]}}', headers=headers)
    assert held(openapi, "orders") == {"2026-02-01T00:00:00Z {}": "123456789012345678.30000000000000000001"}


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": 0},
        {"value": -1},
        {"value": "1"},
        {"value": 1234567890.1234567},
        {"granularity": "HOURLY"},
        {"timestamp": "yesterday"},
        {"timestamp": "2026-02-30"},
        {"filter": {"a": "b"}},
        {"associated_cost": {"a": ["b"]}},
        {"associated_cost": dict.fromkeys("abcdef", "x")},
    ],
    ids=str,
)
def test_a_wrong_live_metric_record_is_refused_and_nothing_is_taken_in(live: Api, wrong: dict[str, Any]) -> None:
    response = send(live, f"{METRIC}/sum", metric(), {**metric(), **wrong})
    assert response.status_code == 400
    assert "/records/1" in response.json()["error"]["message"]
    assert live.state()["telemetry"] == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"element_name": ""},
        {"element_name": None},
        {"granularity": None},
        {"filter": {"a": "b"}},
        {"filter": {"a": []}},
        {"filter": {"a": [str(place) for place in range(21)]}},
        {"filter": {name: ["x"] for name in "abcdef"}},
        {"element": {"a": "b"}},
    ],
    ids=str,
)
def test_a_wrong_live_allocation_record_is_refused(live: Api, wrong: dict[str, Any]) -> None:
    assert send(live, f"{ALLOCATION}/sum", {**share(), **wrong}).status_code == 400
    many = [share(1, f"element-{place}" * 5) for place in range(500)]
    response = send(live, f"{ALLOCATION}/sum", *many, {**share(), **wrong})
    assert response.status_code == 400
    assert "/records/500" in response.json()["error"]["message"]
    assert live.state()["telemetry"] == {}


def test_fifteen_significant_digits_are_enough_whatever_their_size(live: Api) -> None:
    send(live, f"{METRIC}/sum", metric(123456789012345000), metric(0.000123456789012345)).raise_for_status()


@pytest.mark.parametrize(
    "wrong",
    [
        {"timestamp": "2026-02-01"},
        {"timestamp": "2026-02-01T00:00:00"},
        {"granularity": "WEEKLY"},
        {"element_name": "a"},
        {"filter": {"a": 1}},
        {"filter": dict.fromkeys("abcdef", "x")},
    ],
    ids=str,
)
def test_a_wrong_openapi_record_is_refused(openapi: Api, wrong: dict[str, Any]) -> None:
    assert send(openapi, f"{SEED_METRIC}/records", {**seed(), **wrong}).status_code == 400
    assert openapi.state()["telemetry"] == {}


@pytest.mark.parametrize("name", ["a%20b", "a%2Fb", "ä" * 257, "a:b"])
def test_a_stream_must_have_a_proper_name(live: Api, name: str) -> None:
    assert send(live, f"{STREAM}/metric/{name}/sum", metric()).status_code in {400, 404}
    assert live.state()["telemetry"] == {}


def test_a_stream_keeps_the_granularity_and_the_dimensions_of_its_first_record(live: Api, openapi: Api) -> None:
    send(live, f"{METRIC}/sum", metric(associated_cost={"A": "1"})).raise_for_status()
    for other in ({}, {"associated_cost": {"B": "1"}}, {"associated_cost": {"A": "1"}, "granularity": "MONTHLY"}):
        response = send(live, f"{METRIC}/replace", metric(**other))
        assert "All records in a stream" in response.json()["error"]["message"]
    send(openapi, f"{SEED_METRIC}/records", seed(filter={"A": "1"})).raise_for_status()
    assert send(openapi, f"{SEED_METRIC}/records", seed(filter={"A": "1", "B": "2"})).status_code == 400
    assert len(live.state()["posts"]) == len(openapi.state()["posts"]) == 1


def test_all_records_of_a_body_share_granularity_and_dimensions(live: Api) -> None:
    mixed = (metric(granularity="DAILY"), metric(granularity="MONTHLY"))
    assert send(live, f"{METRIC}/sum", *mixed).status_code == 400
    assert send(live, f"{METRIC}/sum", metric(), metric(associated_cost={"A": "1"})).status_code == 400
    assert live.state()["telemetry"] == {}


def test_a_stream_is_of_one_kind(live: Api) -> None:
    send(live, f"{METRIC}/sum", metric()).raise_for_status()
    assert send(live, f"{STREAM}/allocation/orders/sum", share()).status_code == 400


def test_a_body_too_large_is_refused(live: Api, openapi: Api) -> None:
    content = b" " * (MAX_BODY_BYTES + 1)
    headers = {"Content-Type": "application/json"}
    assert live.call("POST", f"{METRIC}/sum", content=content, headers=headers).status_code == 413
    assert openapi.call("POST", f"{SEED_METRIC}/records", content=content, headers=headers).status_code == 413


def test_who_sends_too_fast_is_told_to_slow_down(live: Api) -> None:
    live.configure(burst=3)
    assert send(live, f"{METRIC}/sum", *[metric()] * 5).status_code == 200
    response = send(live, f"{METRIC}/sum", metric())
    assert response.status_code == 503
    assert "slow down" in response.json()["message"].lower()
    assert len(live.state()["posts"]) == 1
    live.configure(burst=None)
    assert send(live, f"{METRIC}/sum", metric()).status_code == 200


# --- deletion -------------------------------------------------------------------------------------------------------


def test_live_metric_records_are_deleted_by_what_is_given_of_them(live: Api) -> None:
    records = [metric(1, day, associated_cost={"A": name}) for day in ("2026-02-01", "2026-02-02") for name in "xy"]
    send(live, f"{METRIC}/sum", *records).raise_for_status()
    match = {"timestamp": "2026-02-01T10:00:00Z", "associated_cost": {"A": "x"}}
    assert send(live, f"{METRIC}/delete", match).status_code == 201
    assert len(held(live, "orders")) == 3
    send(live, f"{METRIC}/delete", {"timestamp": "2026-02-02"}, {"timestamp": "2026-03-01"}).raise_for_status()
    assert held(live, "orders") == {'2026-02-01T00:00:00Z {"A": "y"}': "1"}


def test_live_allocation_records_are_deleted_by_what_is_given_of_them(live: Api) -> None:
    send(live, f"{ALLOCATION}/sum", share(1, "a"), share(1, "b")).raise_for_status()
    match = {"timestamp": "2026-02-01T05:00:00Z", "granularity": "HOURLY", "element_name": "a"}
    assert send(live, f"{ALLOCATION}/delete", match).status_code == 201
    assert held(live, "cpu") == {"2026-02-01T05:00:00Z {} b": "1"}
    assert send(live, f"{ALLOCATION}/delete", {**match, "value": 1}).status_code == 400


def test_openapi_records_are_deleted_by_one_object(openapi: Api) -> None:
    send(openapi, f"{SEED_METRIC}/records", seed(1), seed(2, "2026-02-02T00:00:00Z")).raise_for_status()
    match = {"timestamp": "2026-02-01T00:00:00Z"}
    assert openapi.call("DELETE", f"{SEED_METRIC}/records", json=match).status_code == 200
    assert held(openapi, "orders") == {"2026-02-02T00:00:00Z {}": "2"}
    send(openapi, f"{SEED_ALLOCATION}/sum", seed(1)).raise_for_status()
    assert openapi.post(f"{SEED_ALLOCATION}/delete", match).status_code == 400
    assert openapi.post(f"{SEED_ALLOCATION}/delete", {**match, "granularity": "DAILY"}).status_code == 200
    assert held(openapi, "cpu") == {}


def test_records_of_a_stream_that_does_not_exist_cannot_be_deleted(live: Api, openapi: Api) -> None:
    assert send(live, f"{METRIC}/delete", {"timestamp": "2026-02-01"}).status_code == 400
    response = openapi.call("DELETE", f"{SEED_METRIC}/records", json={"timestamp": "2026-02-01T00:00:00Z"})
    assert response.status_code == 400


def test_a_stream_can_be_deleted_and_begun_anew(live: Api, openapi: Api) -> None:
    send(live, f"{METRIC}/sum", metric()).raise_for_status()
    assert live.call("DELETE", f"{STREAM}/orders").status_code == 200
    assert live.call("DELETE", f"{STREAM}/orders").status_code == 404
    assert send(live, f"{STREAM}/allocation/orders/sum", share()).status_code == 200
    send(openapi, f"{SEED_METRIC}/records", seed()).raise_for_status()
    assert openapi.call("DELETE", SEED_METRIC).status_code == 204
    assert openapi.call("DELETE", SEED_METRIC).status_code == 404
    assert openapi.state()["telemetry"] == {}


def test_a_live_deletion_takes_its_time(live: Api) -> None:
    live.configure(delete_lag_reads=2)
    send(live, f"{METRIC}/sum", metric()).raise_for_status()
    assert live.call("DELETE", f"{STREAM}/orders").status_code == 200
    assert live.get(f"{STREAM}/orders/records").status_code == 200
    refused = send(live, f"{METRIC}/sum", metric())
    assert (refused.status_code, "is being deleted" in refused.text) == (400, True)
    assert live.get(f"{STREAM}/orders/records").status_code == 404
    assert send(live, f"{METRIC}/sum", metric()).status_code == 200


# --- reading --------------------------------------------------------------------------------------------------------


def test_live_records_are_read_back_those_sent_last_first(live: Api) -> None:
    send(live, f"{METRIC}/sum", metric(1), metric(2.5, "2026-02-02")).raise_for_status()
    send(live, f"{METRIC}/sum", metric(3)).raise_for_status()
    records = live.get(f"{STREAM}/orders/records").json()["records"]
    assert records == [
        {"timestamp": "2026-02-01T00:00:00Z", "granularity": "DAILY", "value": 4, "associated_cost": {}},
        {"timestamp": "2026-02-02T00:00:00Z", "granularity": "DAILY", "value": 2.5, "associated_cost": {}},
    ]
    assert live.get(METRIC, limit=1).json()["records"] == records[:1]
    assert live.get(METRIC, limit=1001).status_code == 400


def test_live_allocation_records_are_read_back_as_they_were_sent(live: Api) -> None:
    send(live, f"{ALLOCATION}/sum", share(2, "b", filter={"A": ["x"]})).raise_for_status()
    (record,) = live.get(f"{STREAM}/cpu/records").json()["records"]
    assert record == {
        "timestamp": "2026-02-01T05:00:00Z",
        "granularity": "HOURLY",
        "value": 2,
        "filter": {"A": ["x"]},
        "element_name": "b",
    }
    assert live.get(f"{STREAM}/metric/cpu").status_code == 404
    assert live.get(f"{STREAM}/none/records").status_code == 404


def test_each_body_of_records_is_written_down(live: Api) -> None:
    send(live, f"{METRIC}/sum", metric(), metric()).raise_for_status()
    send(live, f"{METRIC}/delete", {"timestamp": "2026-02-01"}).raise_for_status()
    posts = [(post["operation"], post["target"], post["mode"], post["rows"]) for post in live.state()["posts"]]
    assert posts == [("postMetricTelemetrySum", "orders", "sum", 2), ("deleteMetricTelemetry", "orders", "delete", 1)]
    stream = live.state()["telemetry"]["orders"]
    assert (stream["kind"], stream["granularity"], stream["keys"]) == ("metric", "DAILY", [])

"""Idempotency and test keys at the CloudZero stand-in (live): traps for whoever does not know how far they reach."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from local.standins.cloudzero import CONNECTION, KEY
from local.standins.cloudzero_account import Key
from tests.contracts.cloudzero_api import DROPS, Api, row, running

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER = DROPS.replace(CONNECTION, "other")
KEYED = {"cloudzero-idempotency-key": "k1"}
REPLAYED = "cloudzero-idempotency-replayed"
CREATE = "createAnyCostBillingDrop"


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """Made once, because it reads the machine's certificates."""
    with httpx.Client() as client:
        yield client


@pytest.fixture
def live(http: httpx.Client) -> Iterator[Api]:
    keys: list[str | Key] = [KEY, Key(key="reader", lacks=frozenset({CREATE}))]
    with running("live", http, keys=keys, connections=(CONNECTION, "other")) as api:
        yield api


def replayed(response: httpx.Response) -> bool:
    return bool(response.headers.get(REPLAYED) == "true")


def test_the_first_answer_to_a_key_is_given_again_and_nothing_is_done(live: Api) -> None:
    first = live.drop(row(), headers=KEYED, operation="sum")
    again = live.drop(row(), headers=KEYED, operation="sum")
    assert not replayed(first)
    assert replayed(again)
    assert (again.status_code, again.json()) == (200, first.json())
    state = live.state()
    assert state["replays"] == 1
    assert live.held()["count"] == len(state["posts"]) == 1


def test_a_key_does_not_look_at_the_body_so_a_second_chunk_under_it_is_lost(live: Api) -> None:
    live.drop(row("2026-02-01T00"), headers=KEYED)
    assert live.drop(row("2026-02-02T00"), headers=KEYED, operation="sum").status_code == 200
    assert live.held()["hours"] == {"2026-02-01T00:00:00Z": 1}


def test_a_key_reaches_as_far_as_its_method_and_path(live: Api) -> None:
    live.drop(row(), headers=KEYED)
    assert not replayed(live.post(OTHER, {"data": [row()]}, KEYED))
    assert not replayed(live.call("GET", DROPS, headers=KEYED))
    assert not replayed(live.post("/v2/insights", {"title": "t"}, KEYED))
    assert replayed(live.post("/v2/insights", {"title": "other"}, KEYED))
    assert not replayed(live.drop(row(), headers={"cloudzero-idempotency-key": "k2"}))


def test_an_error_is_an_answer_too(live: Api) -> None:
    assert live.drop(row(cost="x"), headers=KEYED).status_code == 400
    again = live.drop(row(), headers=KEYED)
    assert (again.status_code, replayed(again)) == (400, True)
    assert live.state()["drops"] == {}


@pytest.mark.parametrize(
    ("fault", "status", "count"),
    [
        ({"kind": "status", "status": 503, "body": {"message": "later"}}, 503, 0),
        ({"kind": "html", "status": 502}, 502, 0),
        ({"kind": "lost_answer_status", "status": 504}, 504, 1),
    ],
    ids=["status", "html", "lost_answer_status"],
)
def test_an_error_on_order_is_an_answer_too(live: Api, fault: dict[str, Any], status: int, count: int) -> None:
    live.fault(CREATE, fault)
    assert live.drop(row(), headers=KEYED).status_code == status
    again = live.drop(row(), headers=KEYED)
    assert (again.status_code, replayed(again)) == (status, True)
    assert len(live.state()["posts"]) == count


def test_after_a_lost_answer_the_same_key_says_what_the_answer_was(live: Api) -> None:
    live.fault(CREATE, {"kind": "lost_answer"})
    with pytest.raises(httpx.RemoteProtocolError):
        live.drop(row(), headers=KEYED, operation="sum")
    again = live.drop(row(), headers=KEYED, operation="sum")
    assert (again.status_code, replayed(again)) == (200, True)
    assert live.held()["count"] == 1


def test_a_lost_answer_can_be_lost_again(live: Api) -> None:
    live.fault(CREATE, {"kind": "lost_answer"}, times=2)
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            live.drop(row(), headers=KEYED, operation="sum")
    assert live.drop(row(), headers=KEYED, operation="sum").status_code == 200
    assert live.held()["count"] == 1


def test_an_answer_that_was_torn_is_given_again_whole(live: Api) -> None:
    live.fault(CREATE, {"kind": "empty"})
    assert live.drop(row(), headers=KEYED).content == b""
    assert live.drop(row(), headers=KEYED).json()["connection"]["row_count"] == 1


def test_a_reset_is_no_answer(live: Api) -> None:
    live.fault(CREATE, {"kind": "reset"})
    with pytest.raises(httpx.ReadError):
        live.drop(row(), headers=KEYED)
    response = live.drop(row(), headers=KEYED)
    assert (response.status_code, replayed(response)) == (200, False)


def test_a_refused_api_key_is_no_answer_and_sees_none(live: Api) -> None:
    for given in ("wrong", "reader"):
        assert live.drop(row(), headers={**KEYED, "Authorization": given}).status_code == 403
    assert not replayed(live.drop(row(), headers=KEYED))
    for given in ("wrong", "reader"):
        response = live.drop(row(), headers={**KEYED, "Authorization": given})
        assert (response.status_code, replayed(response)) == (403, False)


def test_a_request_refused_for_another_under_way_has_its_answer_too(live: Api) -> None:
    live.fault(CREATE, {"kind": "delay", "seconds": 0.4})
    answers: list[httpx.Response] = []
    held = threading.Thread(target=lambda: answers.append(live.drop(row(), headers=KEYED)))
    held.start()
    while not live.server.state()["calls"]:
        time.sleep(0.01)
    other = {"cloudzero-idempotency-key": "k2"}
    assert live.drop(row(), headers=other).status_code == 429
    assert live.drop(row(), headers=KEYED).status_code == 429
    held.join()
    assert answers[0].status_code == 200
    assert replayed(live.drop(row(), headers=other))
    again = live.drop(row(), headers=KEYED)
    assert (again.status_code, replayed(again)) == (200, True)


def test_telemetry_knows_no_idempotency_key(live: Api) -> None:
    path = "/unit-cost/v1/telemetry/metric/orders/sum"
    body = {"records": [{"timestamp": "2026-02-01", "value": 2}]}
    for _ in range(2):
        assert not replayed(live.post(path, body, KEYED))
    (value,) = live.state()["telemetry"]["orders"]["records"].values()
    assert value == "4"


def test_openapi_knows_no_idempotency_key(http: httpx.Client) -> None:
    with running("openapi", http) as api:
        for _ in range(2):
            assert not replayed(api.post("/v2/insights", {"name": "n"}, KEYED))
        assert len(api.state()["insights"]) == 2


def test_what_is_sent_under_a_test_key_is_kept_apart(live: Api) -> None:
    smoke = {"cloudzero-test-key": "smoke"}
    live.drop(row(cost="1")).raise_for_status()
    live.drop(row(cost="9"), headers=smoke).raise_for_status()
    live.post("/v2/insights", {"title": "t"}, smoke).raise_for_status()
    state = live.state()
    assert live.held()["totals"] == {"cost/cost": "1"}
    assert state["sandbox_drops"]["smoke"][CONNECTION]["2026-02"]["totals"] == {"cost/cost": "9"}
    assert state["insights"] == live.get("/v2/insights").json()["insights"] == []
    assert [each["cost/cost"] for each in live.month()] == ["1"]
    read = live.call("GET", f"{DROPS}/2026-02", headers=smoke)
    assert [each["cost/cost"] for each in read.json()["billing_drop"]] == ["9"]
    assert [post["test_key"] for post in state["posts"]] == [None, "smoke"]

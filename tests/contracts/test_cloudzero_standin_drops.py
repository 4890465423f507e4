"""Billing drops at the CloudZero stand-in: what is replaced, appended, refused, read back."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from local.standins.cloudzero import CONNECTION
from local.standins.cloudzero_account import MAX_BODY_BYTES
from tests.contracts.cloudzero_api import DROPS, FEBRUARY, Api, row, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.standins.cloudzero_account import Contract

OTHER = DROPS.replace(CONNECTION, "other")
VALIDATE = "/v2/connections/billing/anycost/validate_billing_drop"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """Made once, because it reads the machine's certificates."""
    with httpx.Client() as client:
        yield client


@pytest.fixture
def live(http: httpx.Client) -> Iterator[Api]:
    with running("live", http, connections=(CONNECTION, "other")) as api:
        yield api


@pytest.fixture
def openapi(http: httpx.Client) -> Iterator[Api]:
    with running("openapi", http, connections=(CONNECTION, "other")) as api:
        yield api


def item(time: str = "2026-02-01T00:00:00Z", cost: float = 1.5, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - members
    return {"timestamp": time, "cost": cost, **more}


def append(api: Api, *items: dict[str, Any], path: str = DROPS) -> httpx.Response:
    return api.post(path, {"billing_drops": [{"line_items": [*items]}]})


# --- operations -----------------------------------------------------------------------------------------------------


def test_a_drop_without_an_operation_wipes_the_whole_month(live: Api) -> None:
    live.drop(row("2026-02-01T00"), row("2026-02-20T05")).raise_for_status()
    live.drop(row("2026-02-03T00", "2")).raise_for_status()
    assert live.held()["hours"] == {"2026-02-03T00:00:00Z": 1}
    assert live.held()["totals"] == {"cost/cost": "2"}


def test_replace_hourly_replaces_only_the_hours_that_the_body_has(live: Api) -> None:
    live.drop(row("2026-02-01T00", "1"), row("2026-02-01T01", "2"), row("2026-02-01T01", "3"))
    live.drop(row("2026-02-01T01", "10"), row("2026-02-01T02", "20"), operation="replace_hourly")
    assert live.held()["hours"] == {
        "2026-02-01T00:00:00Z": 1,
        "2026-02-01T01:00:00Z": 1,
        "2026-02-01T02:00:00Z": 1,
    }
    assert live.held()["totals"] == {"cost/cost": "31"}


def test_sum_appends_and_what_is_sent_twice_counts_twice(live: Api) -> None:
    for _ in range(2):
        live.drop(row(cost="0.1"), operation="sum").raise_for_status()
    assert live.held()["count"] == 2
    assert live.held()["totals"] == {"cost/cost": "0.2"}


def test_the_answer_names_the_drop_the_month_and_its_rows(live: Api) -> None:
    first = live.drop(row(), row()).json()["connection"]
    assert (first["month"], first["row_count"]) == (FEBRUARY, 2)
    appended = live.drop(row(), operation="sum").json()["connection"]
    assert appended == {**first, "row_count": 3}
    assert live.drop(row()).json()["connection"]["drop_id"] != first["drop_id"]


def test_months_and_connections_are_apart(live: Api) -> None:
    live.drop(row()).raise_for_status()
    live.post(DROPS, {"data": [row("2026-03-01T00")]}).raise_for_status()
    live.post(OTHER, {"data": [row(cost="7")]}).raise_for_status()
    drops = live.state()["drops"]
    assert sorted(drops[CONNECTION]) == ["2026-02", "2026-03"]
    assert drops["other"]["2026-02"]["totals"] == {"cost/cost": "7"}


def test_a_drop_without_rows_empties_the_month_that_it_names(live: Api) -> None:
    live.drop(row()).raise_for_status()
    live.drop().raise_for_status()
    assert live.held()["count"] == 0
    assert live.post(DROPS, {"data": []}).status_code == 400


def test_openapi_drops_append_to_their_months(openapi: Api) -> None:
    for _ in range(2):
        response = append(openapi, item(cost=0.1), item("2026-03-05T13:45:00+02:00", -2, metadata={"team": "a"}))
        assert (response.status_code, response.content) == (202, b"")
    february, march = (openapi.held(month) for month in ("2026-02", "2026-03"))
    assert (february["count"], february["totals"]) == (2, {"cost": "0.2"})
    assert march["hours"] == {"2026-03-05T11:00:00Z": 2}
    assert march["rows"][0] == {"timestamp": "2026-03-05T13:45:00+02:00", "cost": "-2", "metadata": {"team": "a"}}


def test_totals_are_exact_whatever_a_double_makes_of_them(live: Api, openapi: Api) -> None:
    costs = ["0.1", "0.2", "123456789012345678901234567890.000000000000000001", "-1e-30"]
    live.drop(*(row(cost=cost) for cost in costs[:3])).raise_for_status()
    assert live.held()["totals"]["cost/cost"] == "123456789012345678901234567890.300000000000000001"
    items = ",".join(f'{{"timestamp":"2026-02-01T00:00:00Z","cost":{cost}}}' for cost in costs)
    body = f'{{"billing_drops":[{{"line_items":[{items}]}}]}}'
    openapi.call("POST", DROPS, content=body, headers=JSON).raise_for_status()
    expected = "123456789012345678901234567890.300000000000000000999999999999"
    assert openapi.held()["totals"]["cost"] == expected


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"cost/cost": "1e3"}, "does not match"),
        ({"cost/cost": 1.5}, "is not of type 'string'"),
        ({"cost/cost": ""}, "does not match"),
        ({"cost/amortized_cost": "."}, "does not match"),
        ({"time/usage_start": "2026-02-01T00:30:00Z"}, "does not match"),
        ({"time/usage_start": "2026-02-01T00:00:00+02:00"}, "does not match"),
        ({"time/usage_start": "2026-02-30T00:00:00Z"}, "invalid time/usage_start"),
        ({"time/usage_start": "2026-03-01T00:00:00Z"}, "is not of 2026-02"),
        ({"lineitem/type": "CommittedUseVacancy"}, "is not one of"),
        ({"resource/colour": "red"}, "does not match any"),
        ({"resource/tag:team": "a"}, "no resource/id"),
        ({"resource/id": "vm/1", "resource/tag:my team": "a"}, "does not match any"),
        ({"resource/service": None}, "is not of type 'string'"),
    ],
    ids=str,
)
def test_a_wrong_row_is_refused_by_name_and_nothing_is_taken_in(live: Api, wrong: dict[str, Any], why: str) -> None:
    response = live.drop(row(), {**row(), **wrong})
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert "/data/1" in message
    assert why in message
    assert live.state()["drops"] == {}


@pytest.mark.parametrize("missing", ["time/usage_start", "cost/cost"])
def test_a_row_that_lacks_what_it_needs_is_refused(live: Api, missing: str) -> None:
    partial = {name: value for name, value in row().items() if name != missing}
    assert live.drop(partial).status_code == 400


def test_all_columns_of_the_format_are_taken(live: Api) -> None:
    whole = row(
        cost="-0.50",
        lineitem__id="1",
        lineitem__type="Credit",
        lineitem__description="d",
        lineitem__cloud_provider="p",
        time__usage_end="2026-02-01T00:59:59Z",
        resource__id="vm/1",
        resource__service="s",
        resource__account="a",
        resource__region="no-region",
        resource__usage_family="f",
        action__operation="o",
        action__usage_type="u",
        action__account="a",
        action__region="r",
        usage__amount="2.5",
        usage__units="h",
        cost__discounted_cost="0",
        cost__amortized_cost="1",
        cost__discounted_amortized_cost="2",
        cost__on_demand_cost="3",
        bill__invoice_id="i",
        k8s__cluster="c",
        k8s__namespace="n",
        k8s__deployment="d",
        k8s__labels="l",
    )
    whole |= {"resource/tag:aws:team_x.y/z=+-@1": "v"}
    live.drop(whole).raise_for_status()
    assert live.month() == [whole]
    assert live.held()["totals"] == {
        "cost/cost": "-0.5",
        "cost/discounted_cost": "0",
        "cost/amortized_cost": "1",
        "cost/discounted_amortized_cost": "2",
        "cost/on_demand_cost": "3",
    }


@pytest.mark.parametrize(
    "wrong", [{"cost": "1"}, {"timestamp": "2026-02-01"}, {"colour": "red"}, {"metadata": {"a": 1}}]
)
def test_a_wrong_line_item_is_refused_by_name(openapi: Api, wrong: dict[str, Any]) -> None:
    response = append(openapi, item(), {**item(), **wrong})
    assert response.status_code == 400
    assert "line_items/1" in response.json()["message"]
    assert openapi.state()["drops"] == {}


def large(count: int, *last: dict[str, Any]) -> list[dict[str, Any]]:
    return [row(f"2026-02-{place % 28 + 1:02}T00", lineitem__description="x" * 40) for place in range(count)] + [*last]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cost/cost": 1},
        {"cost/cost": "x"},
        {"resource/colour": "red"},
        {"resource/tag:a": "b"},
        {"lineitem/type": "Thing"},
        {"time/usage_start": "2026-03-01T00:00:00Z"},
    ],
    ids=str,
)
def test_a_wrong_row_far_behind_in_a_large_body_is_refused_by_name_too(live: Api, wrong: dict[str, Any]) -> None:
    """The document is kept for the first rows of a large body; the rules of a row for every one."""
    response = live.drop(*large(2000, {**row(), **wrong}))
    assert response.status_code == 400
    assert "/data/2000: Row 2000" in response.json()["error"]["message"]
    assert live.drop(*large(1999), "none").status_code == 400  # type: ignore[arg-type] # a row that is no object


@pytest.mark.parametrize(
    "wrong", [{"cost": "1"}, {"timestamp": "x"}, {"colour": "red"}, {"metadata": []}, {"service": 1}]
)
def test_a_wrong_line_item_far_behind_is_refused_by_name_too(openapi: Api, wrong: dict[str, Any]) -> None:
    response = append(openapi, *[item(description="x" * 40)] * 1000, {**item(), **wrong})
    assert response.status_code == 400
    assert "Line item 1000 of billing drop 0" in response.json()["message"]
    drops = [{"line_items": [item()]}] * 1000
    assert openapi.post(DROPS, {"billing_drops": [*drops, {"line_items": 1}]}).status_code == 400


def test_a_connection_that_does_not_exist_answers_404(live: Api, openapi: Api) -> None:
    nowhere = DROPS.replace(CONNECTION, "nowhere")
    assert live.post(nowhere, {"data": [row()]}).status_code == 404
    assert live.get(nowhere).status_code == live.get(f"{nowhere}/2026-02").status_code == 404
    assert append(openapi, item(), path=nowhere).status_code == 404


def padded(size: int) -> bytes:
    body = json.dumps({"month": FEBRUARY, "data": large(1000)})
    return (body[:-1] + " " * (size - len(body)) + "}").encode()


def test_a_body_of_five_million_bytes_is_taken_and_one_more_is_too_many(live: Api) -> None:
    assert live.call("POST", DROPS, content=padded(MAX_BODY_BYTES), headers=JSON).status_code == 200
    response = live.call("POST", DROPS, content=padded(MAX_BODY_BYTES + 1), headers=JSON)
    assert response.status_code == 413
    assert "5000001 bytes" in response.json()["message"]
    assert len(live.state()["posts"]) == 1


def test_a_body_too_large_is_too_large_under_openapi_and_for_a_verdict(live: Api, openapi: Api) -> None:
    content = b" " * (MAX_BODY_BYTES + 1)
    assert openapi.call("POST", DROPS, content=content, headers=JSON).status_code == 413
    assert live.call("POST", VALIDATE, content=content, headers=JSON).status_code == 413


def test_a_full_body_is_taken_quickly(live: Api) -> None:
    rows = [
        row(f"2026-02-{place % 28 + 1:02}T{place % 24:02}", f"{place}.5", resource__id=f"vm/{place}")
        for place in range(50_000)
    ]
    content = json.dumps({"month": FEBRUARY, "operation": "sum", "data": rows}).encode()
    assert 4_000_000 < len(content) <= MAX_BODY_BYTES
    began = time.monotonic()
    response = live.call("POST", DROPS, content=content, headers=JSON, timeout=60)
    assert response.json()["connection"]["row_count"] == 50_000
    assert time.monotonic() - began < 10  # most machines need a tenth of it; a validator of schemas needs more
    live.configure(rows_in_state=False)
    held = live.held()
    assert "rows" not in held
    assert held["totals"]["cost/cost"] == str(sum(range(50_000)) + 25_000)
    assert Counter(each["resource/id"] for each in live.month()) == {f"vm/{place}": 1 for place in range(50_000)}


@pytest.mark.parametrize("contract", ["live", "openapi"])
def test_a_month_has_a_limit_of_rows_and_of_bytes(contract: Contract, http: httpx.Client) -> None:
    with running(contract, http, month_rows=2) as api:

        def send() -> bool:
            sent = api.drop(row(), operation="sum") if contract == "live" else append(api, item())
            return sent.is_success

        assert [send() for _ in range(3)] == [True, True, False]
        api.configure(month_rows=10, month_bytes=api.held()["bytes"])
        assert not send()
        assert api.held()["count"] == 2


def test_a_month_that_is_replaced_has_room_again(live: Api) -> None:
    live.configure(month_rows=2)
    assert [live.drop(row(), row()).status_code for _ in range(2)] == [200, 200]
    assert live.drop(row("2026-02-02T00"), operation="replace_hourly").status_code == 400
    assert live.drop(row(), operation="replace_hourly").status_code == 200


# --- one at a time --------------------------------------------------------------------------------------------------


def test_two_requests_at_once_on_one_connection_are_refused_and_noted(live: Api) -> None:
    live.fault("createAnyCostBillingDrop", {"kind": "delay", "seconds": 0.5})
    answers: list[int] = []
    held = threading.Thread(target=lambda: answers.append(live.drop(row()).status_code))
    held.start()
    while not live.server.state()["calls"]:
        time.sleep(0.01)
    response = live.drop(row(), operation="sum")
    assert (response.status_code, response.json()["error"]["type"]) == (429, "rate_limit")
    assert live.post(OTHER, {"data": [row()]}).status_code == 200
    held.join()
    assert answers == [200]
    assert [(each["connection"], each["operation"]) for each in live.state()["overlaps"]] == [
        (CONNECTION, "createAnyCostBillingDrop")
    ]
    assert live.drop(row()).status_code == 200


def test_requests_one_after_another_do_not_overlap(live: Api) -> None:
    assert {live.drop(row()).status_code for _ in range(30)} == {200}
    live.fault("createAnyCostBillingDrop", {"kind": "lost_answer"})
    with pytest.raises(httpx.RemoteProtocolError):
        live.drop(row())
    assert live.drop(row()).status_code == 200
    assert live.state()["overlaps"] == []


# --- reading back and judging ---------------------------------------------------------------------------------------


def test_what_was_sent_is_read_back_by_hour(live: Api) -> None:
    rows = [row("2026-02-01T05", "5"), row("2026-02-01T03", "3.10"), row("2026-02-01T05", "6")]
    live.drop(*rows).raise_for_status()
    assert live.month() == [rows[1], rows[0], rows[2]]
    (drop,) = live.get(DROPS).json()["billing_drops"]
    assert (drop["month"], drop["row_count"]) == (FEBRUARY, 3)


def test_a_month_without_a_drop_is_not_there(live: Api) -> None:
    assert live.get(DROPS).json() == {"billing_drops": []}
    assert live.get(f"{DROPS}/2026-02").status_code == 404
    assert live.get(f"{DROPS}/2026-13").status_code == 400


def test_reads_may_lag_behind(live: Api) -> None:
    live.configure(read_lag_reads=2)
    live.drop(row(cost="1")).raise_for_status()
    assert live.get(f"{DROPS}/2026-02").status_code == 404
    assert live.get(DROPS).json() == {"billing_drops": []}
    assert [each["cost/cost"] for each in live.month()] == ["1"]
    live.drop(row(cost="2")).raise_for_status()
    assert [[each["cost/cost"] for each in live.month()] for _ in range(3)] == [["1"], ["1"], ["2"]]


def test_a_drop_can_be_judged_without_being_sent(live: Api) -> None:
    assert live.post(VALIDATE, {"data": [row()]}).json() == {"connection": {"is_valid": True, "errors": []}}
    response = live.post(
        VALIDATE,
        {
            "month": "2026-02",
            "operation": "add",
            "more": 1,
            "data": [row(), row("2026-03-01T00"), {"cost/cost": "1"}, 5],
        },
    )
    assert response.status_code == 200
    verdict = response.json()["connection"]
    assert verdict["is_valid"] is False
    assert [error.split(" ")[0] for error in verdict["errors"]] == ["'more'", "operation", "month", "Row", "Row", "Row"]
    assert live.post(VALIDATE, {"rows": []}).status_code == 400
    assert live.state()["drops"] == {}
    assert live.state()["posts"] == []


# --- the record -----------------------------------------------------------------------------------------------------


def test_each_body_that_was_taken_in_is_written_down(live: Api) -> None:
    sent = live.drop(row(), row(), headers={"cloudzero-idempotency-key": "k"}, operation="replace_hourly")
    live.drop(row(cost="x"))
    live.drop(row())
    first, second = live.state()["posts"]
    assert first == {
        "seq": 1,
        "operation": "createAnyCostBillingDrop",
        "target": CONNECTION,
        "mode": "replace_hourly",
        "rows": 2,
        "bytes": len(sent.request.content),
        "sha256": hashlib.sha256(sent.request.content).hexdigest(),
        "idempotency_key": "k",
        "test_key": None,
        "request_id": sent.headers["x-request-id"],
    }
    assert (second["seq"], second["mode"], second["idempotency_key"]) == (2, "replace_drop", None)

"""The CloudZero stand-in is as strict as the vendor in either contract, and fails on order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openapi_spec_validator
import pytest
import yaml

from local.standins.cloudzero import CONNECTION, KEY, CloudZeroStandIn
from local.standins.cloudzero_account import Key
from tests.contracts.cloudzero_api import DROPS, Api, row, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.standins.cloudzero_account import Contract

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS: tuple[Contract, ...] = ("openapi", "live")
DIMENSIONS = "/v2/billing/dimensions"
ITEM = {"timestamp": "2026-02-01T00:00:00Z", "cost": 1.5}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """Made once, because it reads the machine's certificates."""
    with httpx.Client() as client:
        yield client


@pytest.fixture(params=CONTRACTS)
def api(request: pytest.FixtureRequest, http: httpx.Client) -> Iterator[Api]:
    keys: list[str | Key] = [KEY, Key(key="reader", lacks=frozenset({"createInsight", "createAnyCostBillingDrop"}))]
    with running(request.param, http, keys=keys) as api:
        yield api


@pytest.fixture
def live(http: httpx.Client) -> Iterator[Api]:
    with running("live", http) as api:
        yield api


@pytest.fixture
def openapi(http: httpx.Client) -> Iterator[Api]:
    with running("openapi", http) as api:
        yield api


# --- the documents --------------------------------------------------------------------------------------------------


def document(contract: str) -> dict[str, Any]:
    path = ROOT / "docs" / "openapi" / f"cloudzero-{contract}.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def operations(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation
        for item in content["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    }


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_document_is_a_valid_openapi_document(contract: str) -> None:
    openapi_spec_validator.validate(document(contract))


@pytest.mark.parametrize("contract", CONTRACTS)
def test_every_part_of_the_document_says_where_it_is_from(contract: str) -> None:
    content = document(contract)
    parts = {**operations(content)}
    for kind in ("responses", "schemas", "parameters", "headers", "securitySchemes"):
        parts |= {f"{kind}/{name}": part for name, part in content["components"][kind].items()}
    unsourced = [name for name, part in parts.items() if "x-source" not in part]
    assert unsourced == []
    beginnings = ("contract: ", "vendor: ", "open: ")
    assert [name for name, part in parts.items() if not part["x-source"].startswith(beginnings)] == []


@pytest.mark.parametrize("contract", CONTRACTS)
def test_every_operation_has_a_handler_and_its_errors(contract: Contract) -> None:
    known = operations(document(contract))
    with CloudZeroStandIn(contract) as server:
        assert server.handlers().keys() == known.keys()
    for name, operation in known.items():
        assert {"400", "401", "403", "429", "5XX"} <= operation["responses"].keys(), name


def test_the_openapi_document_has_the_operations_of_the_specification_that_was_given() -> None:
    assert len(operations(document("openapi"))) == 19


# --- keys -----------------------------------------------------------------------------------------------------------


def test_the_bare_key_is_accepted(api: Api) -> None:
    assert api.get(DIMENSIONS).status_code == 200


@pytest.mark.parametrize("given", [None, "", "other", f"Bearer {KEY}", KEY.upper()])
def test_any_other_key_is_refused_as_the_contract_does(api: Api, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given}
    response = api.http.get(f"{api.server.api_url}{DIMENSIONS}", headers=headers)
    assert response.status_code == (403 if api.server.contract == "live" else 401)
    assert response.json() == {"message": "The API key is missing or not known."}


def test_bearer_is_accepted_when_the_tenant_wants_it(api: Api) -> None:
    api.configure(bearer=True)
    for given in (KEY, f"Bearer {KEY}"):
        assert api.call("GET", DIMENSIONS, headers={"Authorization": given}).status_code == 200


def test_a_key_without_the_scope_is_forbidden_under_either_contract(api: Api) -> None:
    reader = {"Authorization": "reader"}
    assert api.post("/v2/insights", {}, reader).status_code == 403
    assert api.call("GET", "/v2/insights", headers=reader).status_code == 200
    assert api.post(DROPS, {}, reader).json()["message"].startswith("The API key lacks")


def test_the_configuration_shows_no_key(api: Api) -> None:
    shown = api.control("GET", "/_config")
    assert KEY not in shown.text
    assert shown.json()["keys"][1]["lacks"]


# --- the document's law ---------------------------------------------------------------------------------------------


def test_a_request_that_breaks_the_document_is_refused_and_recorded(api: Api) -> None:
    for path, body in (("/v2/insights", {"nam": 1}), ("/v2/budgets", []), (f"{DIMENSIONS}?limit=1", None)):
        method = "GET" if body is None else "POST"
        assert api.call(method, path, json=body).status_code == 400
    state = api.state()
    assert {violation["operation"] for violation in state["violations"]} == {
        "createInsight",
        "createBudget",
        "getBillingDimensions",
    }
    assert state["insights"] == state["budgets"] == []


def test_a_body_that_is_no_json_is_refused(api: Api) -> None:
    response = api.call("POST", DROPS, content=b'{"data": [', headers={"Content-Type": "application/json"})
    assert response.status_code == 400


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(openapi: Api, number: str) -> None:
    body = f'{{"billing_drops": [{{"line_items": [{{"timestamp": "2026-02-01T00:00:00Z", "cost": {number}}}]}}]}}'
    response = openapi.call("POST", DROPS, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert openapi.state()["posts"] == []


def test_an_address_of_the_other_contract_does_not_exist(live: Api, openapi: Api) -> None:
    assert live.post("/v1/telemetry/s/records", {"records": []}).status_code == 404
    assert openapi.post("/unit-cost/v1/telemetry/metric/s/sum", {"records": []}).status_code == 404
    assert openapi.get(DROPS).status_code == 405


def test_the_contracts_are_told_apart_by_their_dimensions(live: Api, openapi: Api) -> None:
    assert live.get(DIMENSIONS).json().keys() == {"dimensions"}
    assert openapi.get(DIMENSIONS).json().keys() == {"data"}


def test_errors_have_the_shape_of_the_contract(live: Api, openapi: Api) -> None:
    missing = live.get("/v2/insights/none")
    assert missing.json() == {"error": {"message": "There is no insight none.", "type": "not_found"}}
    assert openapi.get("/v2/insights/none").json() == {"message": "There is no insight none."}


def test_every_answer_has_a_request_id(api: Api) -> None:
    assert api.get(DIMENSIONS).headers["x-request-id"] == api.state()["calls"][0]["request_id"]


# --- control and faults ---------------------------------------------------------------------------------------------


def test_a_reset_forgets_everything_and_the_configuration(api: Api) -> None:
    body = {"name": "n", "title": "t"}
    body.pop("title" if api.server.contract == "openapi" else "name")
    api.post("/v2/insights", body).raise_for_status()
    sent = {"data": [row()]} if api.server.contract == "live" else {"billing_drops": [{"line_items": [ITEM]}]}
    api.post(DROPS, sent).raise_for_status()
    api.configure(page_items=1)
    assert api.control("POST", "/_reset").json()["page_items"] == 100
    state = api.state()
    assert [state[name] for name in ("calls", "drops", "posts", "insights", "replays")] == [[], {}, [], [], 0]


@pytest.mark.parametrize("wanted", [{"page_item": 1}, {"page_items": 0}, [], {"costs": [{}]}], ids=str)
def test_a_configuration_that_makes_no_sense_is_refused(live: Api, wanted: object) -> None:
    before = live.control("GET", "/_config").json()
    assert live.control("POST", "/_config", wanted).status_code == 400
    assert live.control("GET", "/_config").json() == before


def test_the_configuration_that_is_shown_can_be_sent_back(live: Api) -> None:
    shown = live.control("GET", "/_config").json()
    del shown["keys"]
    assert live.control("POST", "/_config", shown).json() == {"keys": [{"lacks": []}], **shown}
    assert live.get(DIMENSIONS).status_code == 200


def test_a_lost_answer_has_been_acted_on(live: Api) -> None:
    live.fault("createAnyCostBillingDrop", {"kind": "lost_answer"})
    with pytest.raises(httpx.RemoteProtocolError):
        live.drop(row())
    assert live.held()["count"] == 1


def test_a_status_fault_does_not_act(live: Api) -> None:
    fault = {"kind": "status", "status": 429, "headers": {"Retry-After": "7"}, "body": {"error": {}}}
    live.fault("createAnyCostBillingDrop", fault)
    assert live.drop(row()).headers["retry-after"] == "7"
    assert live.state()["drops"] == {}


# --- as a process ---------------------------------------------------------------------------------------------------


def test_as_a_process_it_says_its_address_and_ends_on_sigterm(http: httpx.Client) -> None:
    arguments = ["--contract", "openapi", "--port", "0", "--key", "mine", "--connection", "c", "--bearer"]
    with subprocess.Popen(  # noqa: S603 - this interpreter, and arguments written here
        [sys.executable, "-m", "local.standins.cloudzero", *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout
            ready = json.loads(process.stdout.readline())
            assert ready["api_url"] == ready["url"]
            assert ready["contract"] == "openapi"
            headers = {"Authorization": "Bearer mine"}
            assert http.get(f"{ready['url']}{DIMENSIONS}", headers=headers).status_code == 200
            sent = http.post(
                f"{ready['url']}{DROPS.replace(CONNECTION, 'c')}",
                json={"billing_drops": [{"line_items": [ITEM]}]},
                headers=headers,
            )
            assert sent.status_code == 202
            assert http.get(f"{ready['url']}/_state").json()["drops"]["c"]["2026-02"]["totals"] == {"cost": "1.5"}
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()

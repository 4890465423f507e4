"""The Backstage stand-in has the habits of the catalog, and fails on order."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openapi_spec_validator
import pytest
import yaml

from local.standins.backstage import DOCUMENT, TOKEN, BackstageStandIn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PATH = "/api/catalog/entities/by-query"


def entity(name: str, kind: str = "Component", **spec: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Make an entity whose place is that of its name."""
    metadata = {"name": name, "uid": name, "annotations": {"example.com/app-id": f"App-{name}", "other": "1"}}
    return {"apiVersion": "backstage.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


ENTITIES = [
    entity("a", type="service", owner="team-a", tags=["Java", "aws"]),
    entity("b", type="website", owner="group:default/team-b", tier=2),
    entity("c", type="Service", owner="team-a", tier=1),
    entity("d", kind="API", type="openapi", owner=None, definition="x" * 201),
    {
        **entity("e", kind="Group", type="team"),
        "relations": [{"type": "hasMember", "targetRef": "user:default/lead"}],
    },
]


@dataclass(frozen=True)
class Api:
    """A stand-in, and a client of it."""

    server: BackstageStandIn
    http: httpx.Client
    """Without a token."""

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own arguments
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return self.http.request(method, f"{self.server.api_url}{path}", headers=headers, **more)

    def get(self, **parameters: str | int | list[str]) -> httpx.Response:
        return self.call("GET", PATH, params=parameters)

    def page(self, **parameters: str | int | list[str]) -> dict[str, Any]:
        page: dict[str, Any] = self.get(**parameters).raise_for_status().json()
        return page

    def found(self, **parameters: str | int | list[str]) -> str:
        return names(self.page(**parameters))

    def control(self, method: str, path: str, body: object = None) -> httpx.Response:
        return self.http.request(method, f"{self.server.url}{path}", json=body)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.control("GET", "/_state").raise_for_status().json()
        return state


def names(page: dict[str, Any]) -> str:
    return "".join(item["metadata"]["name"] for item in page["items"])


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """Made once, because it reads the machine's certificates."""
    with httpx.Client() as client:
        yield client


@pytest.fixture
def api(http: httpx.Client) -> Iterator[Api]:
    with BackstageStandIn(ENTITIES) as server:
        yield Api(server, http)
        assert server.state()["response_violations"] == []


# --- the document ---------------------------------------------------------------------------------------------------


def test_the_document_is_valid_and_each_part_says_where_it_is_from() -> None:
    content = yaml.safe_load((ROOT / "docs" / "openapi" / DOCUMENT).read_text(encoding="utf-8"))
    openapi_spec_validator.validate(content)
    operation = content["paths"][PATH]["get"]
    parts = [operation, *operation["parameters"]]
    parts += [part for kind in content["components"].values() for part in kind.values()]
    assert [part for part in parts if not part["x-source"].startswith(("vendor: ", "code: ", "open: "))] == []
    with BackstageStandIn() as server:
        assert server.handlers().keys() == {operation["operationId"]}


@pytest.mark.parametrize(
    "parameter", ["limit=-1", "limit=many", "cursor=", "fields=metadata.tags[0]", "orderField=kind,up", "offset=1"]
)
def test_a_request_outside_the_document_is_refused_and_recorded(api: Api, parameter: str) -> None:
    response = api.call("GET", f"{PATH}?{parameter}")
    assert response.status_code == 400
    assert response.json()["error"]["name"] == "InputError"
    (violation,) = api.state()["violations"]
    assert violation["operation"] == "getEntitiesByQuery"
    assert violation["detail"] == response.json()["error"]["message"]


def test_an_address_or_a_method_outside_the_document_is_recorded(api: Api) -> None:
    assert api.call("GET", "/api/catalog/entities").status_code == 404
    assert api.call("POST", PATH, json={}).status_code == 405
    assert [violation["operation"] for violation in api.state()["violations"]] == [None, None]


# --- who may come in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        (None, "Missing credentials"),
        (TOKEN, "Missing credentials"),
        ("Basic cmVsYXk6cGFzc3dvcmQ=", "Missing credentials"),
        ("Bearer other", "Illegal token"),
    ],
)
def test_a_missing_or_unknown_token_is_refused(api: Api, authorization: str | None, message: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = api.http.get(f"{api.server.api_url}{PATH}", headers=headers)
    assert response.status_code == 401
    assert response.json() == {
        "error": {"name": "AuthenticationError", "message": message},
        "response": {"statusCode": 401},
    }


def test_a_token_can_be_exchanged_while_it_runs_and_is_never_shown(api: Api) -> None:
    shown = api.control("POST", "/_config", {"tokens": ["changed"]})
    assert "changed" not in shown.text
    assert api.get().status_code == 401


# --- filters and fields ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([], "abcde"),
        ([""], "abcde"),
        (["kind=component"], "abc"),
        (["KIND=Component,spec.type=SERVICE"], "ac"),
        (["kind=component,spec.type=website", "kind=api"], "bd"),
        (["kind=api,kind=group"], "de"),
        (["spec.tier"], "bc"),
        (["spec.tier=2"], "b"),
        (["spec.owner"], "abcd"),
        (["spec.owner=team-b"], ""),
        (["spec.owner=group:default/team-b"], "b"),
        (["spec.tags=java"], "a"),
        (["spec.tags.java=true,spec.tags.aws"], "a"),
        (["metadata.annotations.example.com/app-id=app-a"], "a"),
        (["metadata.namespace=default"], "abcde"),
        (["relations.hasMember=user:default/lead"], "e"),
        (["spec.definition"], "d"),
        ([f"spec.definition={'x' * 201}"], ""),
        (["nosuch=1"], ""),
    ],
    ids=str,
)
def test_a_filter_finds_what_it_says(api: Api, filters: list[str], found: str) -> None:
    page = api.page(filter=filters)
    assert names(page) == found
    assert page["totalItems"] == len(found)


def test_only_the_parts_that_were_asked_for_come(api: Api) -> None:
    (first, *_, last) = api.page(fields="kind, metadata.name,spec.owner")["items"]
    assert first == {"kind": "Component", "metadata": {"name": "a"}, "spec": {"owner": "team-a"}}
    assert last["metadata"] == {"name": "e"}


def test_a_path_that_goes_on_past_what_there_is_gives_what_there_is(api: Api) -> None:
    """Dots in the name of an annotation are no steps, and get lost."""
    (item,) = api.page(fields="metadata.annotations.example.com/app-id,nosuch", limit=1)["items"]
    assert item == {"metadata": {"annotations": {"example.com/app-id": "App-a", "other": "1"}}}


def test_an_owner_is_as_its_author_wrote_it(api: Api) -> None:
    items = api.page(fields="spec.owner", filter="kind=component")["items"]
    assert [item["spec"]["owner"] for item in items] == ["team-a", "group:default/team-b", "team-a"]


# --- pages ----------------------------------------------------------------------------------------------------------


def test_a_page_has_twenty_entities_unless_the_request_says(api: Api) -> None:
    api.server.set_entities([entity(f"{number:03}") for number in range(250)])
    assert len(api.page()["items"]) == 20
    assert len(api.page(limit=100)["items"]) == 100
    api.control("POST", "/_config", {"default_limit": 200}).raise_for_status()
    assert len(api.page()["items"]) == 200


def test_cursors_lead_through_all_pages_and_back(api: Api) -> None:
    first = api.page(limit=2)
    second = api.page(limit=2, cursor=first["pageInfo"]["nextCursor"])
    last = api.page(limit=2, cursor=second["pageInfo"]["nextCursor"])
    assert [names(page) for page in (first, second, last)] == ["ab", "cd", "e"]
    assert [page["pageInfo"].keys() for page in (first, second, last)] == [
        {"nextCursor"},
        {"nextCursor", "prevCursor"},
        {"prevCursor"},
    ]
    back = api.page(limit=2, cursor=last["pageInfo"]["prevCursor"])
    start = api.page(limit=2, cursor=back["pageInfo"]["prevCursor"])
    assert [names(back), names(start)] == ["cd", "ab"]
    assert "prevCursor" not in start["pageInfo"]


def test_with_a_cursor_filter_and_order_are_those_of_the_first_page(api: Api) -> None:
    first = api.page(filter="kind=component", orderField="metadata.name,desc", limit=2)
    cursor = first["pageInfo"]["nextCursor"]
    assert names(first) == "cb"
    assert api.found(cursor=cursor) == "a"
    assert api.found(cursor=cursor, filter="kind=api", orderField="metadata.name,asc", limit=5) == "a"
    assert json.loads(base64.b64decode(cursor))["filters"] == ["kind=component"]


def test_a_cursor_means_a_place_and_not_a_number(api: Api) -> None:
    """What comes or goes between two pages neither doubles nor skips an entity; the total stays as it was."""
    cursor = api.page(limit=2)["pageInfo"]["nextCursor"]
    api.server.set_entities([entity("0"), *ENTITIES[1:], entity("f")])
    page = api.page(limit=9, cursor=cursor)
    assert names(page) == "cdef"
    assert page["totalItems"] == 5


def test_entities_without_the_value_to_order_by_are_lost_behind_the_first_page(api: Api) -> None:
    assert api.found(orderField=["spec.tier,asc", "metadata.name,desc"]) == "cbade"
    first = api.page(orderField="spec.tier", limit=1)
    second = api.page(limit=9, cursor=first["pageInfo"]["nextCursor"])
    assert [names(first), names(second)] == ["c", "b"]
    lost = api.page(orderField="spec.tier", limit=3)
    assert api.page(cursor=lost["pageInfo"]["nextCursor"]) == {"items": [], "totalItems": 5, "pageInfo": {}}


@pytest.mark.parametrize("cursor", ["made-up", "e30=", base64.b64encode(b'{"filters": 1}').decode()])
def test_a_made_up_cursor_is_refused(api: Api, cursor: str) -> None:
    response = api.get(cursor=cursor)
    assert response.status_code == 400
    assert response.json() == {
        "error": {"name": "InputError", "message": "Malformed cursor, could not be parsed"},
        "response": {"statusCode": 400},
    }


def test_a_limit_of_nothing_counts_only(api: Api) -> None:
    assert api.page(limit=0) == {"items": [], "totalItems": 5, "pageInfo": {}}


# --- control and faults ---------------------------------------------------------------------------------------------


def test_there_are_a_few_services_when_nothing_else_is_said(http: httpx.Client) -> None:
    with BackstageStandIn() as server:
        page = Api(server, http).page(filter="kind=component,spec.type=service")
    owners = [item["spec"]["owner"] for item in page["items"]]
    assert page["totalItems"] == len(owners) == 12
    assert {"team-auth", "group:default/team-billing"} <= {*owners}


def test_the_entities_are_changed_while_it_runs(api: Api) -> None:
    assert api.control("POST", "/_entities", [entity("z")]).json() == {"entities": 1}
    assert api.found() == "z"
    wrongs: tuple[object, ...] = ({}, [{"kind": "Component"}], [entity("z"), entity("Z")])
    for wrong in wrongs:
        assert api.control("POST", "/_entities", wrong).status_code == 400
    assert api.found() == "z"
    api.control("POST", "/_reset").raise_for_status()
    assert api.state()["entities"] == 5


def test_what_was_asked_is_in_the_state(api: Api) -> None:
    api.page(filter=["kind=api", "kind=group"], limit=1)
    assert api.state()["asked"] == [{"filter": ["kind=api", "kind=group"], "limit": ["1"]}]


@pytest.mark.parametrize("wanted", [{"nosuch": 1}, {"default_limit": 0}, []], ids=str)
def test_a_configuration_that_makes_no_sense_is_refused(api: Api, wanted: object) -> None:
    before = api.control("GET", "/_config").json()
    assert api.control("POST", "/_config", wanted).status_code == 400
    assert api.control("POST", "/_config", before).json() == before


def test_a_rate_limit_is_an_ordinary_fault(api: Api) -> None:
    fault = {"kind": "status", "status": 429, "headers": {"Retry-After": "7"}}
    api.control("POST", "/_faults", [{"operation": "getEntitiesByQuery", "fault": fault}]).raise_for_status()
    assert api.get().headers["Retry-After"] == "7"
    assert api.found(limit=1) == "a"


def test_as_a_process_it_says_its_address_and_ends_on_sigterm(http: httpx.Client) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "local.standins.backstage", "--token", "mine"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout
            ready = json.loads(process.stdout.readline())
            address = f"{ready['api_url']}{PATH}"
            assert http.get(address, headers={"Authorization": "Bearer mine"}).status_code == 200
            assert http.get(address).status_code == 401
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()

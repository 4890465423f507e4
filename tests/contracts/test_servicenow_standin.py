"""The ServiceNow stand-in has the habits of the Table API, and fails on order."""

from __future__ import annotations

import json
import re
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

from local.standins.servicenow import DOCUMENT, TABLE, TOKEN, ServiceNowStandIn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SYS_ID = re.compile(r"[0-9a-f]{32}")
OWNER = {"sys_id": "o" * 32, "name": "Team A", "location": {"sys_id": "l" * 32, "name": "Oslo"}}
ROWS: list[dict[str, Any]] = [
    {"sys_id": "1", "name": "Payments", "u_app_id": "app-payments", "u_tier": 1, "active": True, "owned_by": OWNER},
    {"sys_id": "2", "name": "auth", "u_app_id": "app-auth", "u_tier": 2, "active": False, "owned_by": ""},
    {"sys_id": "3", "name": "Ledger, new", "u_app_id": "", "u_tier": 10, "active": True, "owned_by": OWNER},
    {"sys_id": "4", "name": "Search", "u_app_id": None, "u_tier": None, "active": True},
]


@dataclass(frozen=True)
class Api:
    """A stand-in, and a client of one of its users."""

    server: ServiceNowStandIn
    http: httpx.Client

    def get(self, table: str = "apps", /, **parameters: object) -> httpx.Response:
        """Read a page; the parameters without their `sysparm_`."""
        return self.http.get(
            f"{self.server.api_url}/api/now/table/{table}",
            params={f"sysparm_{name}": str(value) for name, value in parameters.items()},
        )

    def rows(self, **parameters: object) -> list[dict[str, Any]]:
        response = self.get(**parameters).raise_for_status()
        rows: list[dict[str, Any]] = response.json()["result"]
        return rows

    def found(self, query: str) -> str:
        """Give the ids of the rows that a query finds, in order."""
        asked = {"query": query} if query else {}
        return "".join(row["sys_id"] for row in self.rows(fields="sys_id", **asked))

    def control(self, method: str, path: str, body: object = None) -> httpx.Response:
        return self.http.request(method, f"{self.server.url}{path}", json=body)

    def configure(self, **config: object) -> None:
        self.control("POST", "/_config", config).raise_for_status()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.control("GET", "/_state").raise_for_status().json()
        return state


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """Made once, because it reads the machine's certificates."""
    with httpx.Client(auth=("relay", "password")) as client:
        yield client


@pytest.fixture
def api(http: httpx.Client) -> Iterator[Api]:
    with ServiceNowStandIn({"apps": ROWS}) as server:
        yield Api(server, http)
        assert server.state()["response_violations"] == []


def links(response: httpx.Response) -> dict[str, httpx.URL]:
    """Read a `Link` header by its marks, not by its commas."""
    found = re.findall(r'<([^>]*)>;rel="(\w+)"', response.headers.get("Link", ""))
    return {name: httpx.URL(address) for address, name in found}


def offsets(response: httpx.Response) -> dict[str, str]:
    return {name: address.params["sysparm_offset"] for name, address in links(response).items()}


# --- the document ---------------------------------------------------------------------------------------------------


def test_the_document_is_valid_and_each_part_says_where_it_is_from() -> None:
    content = yaml.safe_load((ROOT / "docs" / "openapi" / DOCUMENT).read_text(encoding="utf-8"))
    openapi_spec_validator.validate(content)
    (item,) = content["paths"].values()
    parts = [item["get"], *item["parameters"], *item["get"]["parameters"]]
    parts += [part for kind in content["components"].values() for part in kind.values()]
    assert [part for part in parts if not part["x-source"].startswith(("vendor: ", "seen: ", "open: "))] == []
    with ServiceNowStandIn() as server:
        assert server.handlers().keys() == {item["get"]["operationId"]}


@pytest.mark.parametrize(
    "parameter",
    [
        "sysparm_limit=0",
        "sysparm_offset=-1",
        "sysparm_fields=",
        "sysparm_query=",
        "sysparm_display_value=yes",
        "name=a",
    ],
)
def test_a_request_outside_the_document_is_refused_and_recorded(api: Api, parameter: str) -> None:
    response = api.http.get(f"{api.server.api_url}/api/now/table/apps?{parameter}")
    assert response.status_code == 400
    (violation,) = api.state()["violations"]
    assert violation["operation"] == "listRecords"
    assert violation["detail"] == response.json()["error"]["message"]


def test_an_address_or_a_method_outside_the_document_is_recorded(api: Api) -> None:
    assert api.http.get(f"{api.server.api_url}/api/now/table").status_code == 404
    assert api.http.post(f"{api.server.api_url}/api/now/table/apps", json={}).status_code == 405
    assert [violation["operation"] for violation in api.state()["violations"]] == [None, None]


# --- who may come in ------------------------------------------------------------------------------------------------


def test_a_user_and_a_token_may_read(api: Api) -> None:
    address = f"{api.server.api_url}/api/now/table/apps"
    assert api.get().status_code == 200
    assert api.http.get(address, headers={"Authorization": f"Bearer {TOKEN}"}, auth=None).status_code == 200


@pytest.mark.parametrize(
    "authorization", [None, "Bearer other", "Bearer", "Basic cmVsYXk6b3RoZXI=", f"Basic {TOKEN}", TOKEN], ids=str
)
def test_anybody_else_may_not(api: Api, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = api.http.get(f"{api.server.api_url}/api/now/table/apps", headers=headers, auth=None)
    assert response.status_code == 401
    assert response.json() == {
        "error": {"message": "User Not Authenticated", "detail": "Required to provide Auth information"},
        "status": "failure",
    }


def test_credentials_can_be_exchanged_while_it_runs_and_are_never_shown(api: Api) -> None:
    api.configure(users={"relay": "changed"})
    assert api.get().status_code == 401
    shown = api.control("GET", "/_config")
    assert "changed" not in shown.text
    assert TOKEN not in shown.text


# --- rows -----------------------------------------------------------------------------------------------------------


def test_every_value_is_text(api: Api) -> None:
    rows = api.rows(fields="name,u_tier,active,u_app_id,owned_by", exclude_reference_link="true")
    assert rows[0] == {
        "name": "Payments",
        "u_tier": "1",
        "active": "true",
        "u_app_id": "app-payments",
        "owned_by": "o" * 32,
    }
    assert rows[3] == {"name": "Search", "u_tier": "", "active": "true", "u_app_id": ""}


def test_only_the_fields_that_were_asked_for_come_and_unknown_ones_are_left_out(api: Api) -> None:
    assert api.rows(fields="name,nosuch,owned_by.nosuch", limit=1) == [{"name": "Payments"}]
    assert api.rows(limit=1)[0].keys() == ROWS[0].keys()


def test_a_reference_is_an_object_unless_its_link_is_excluded(api: Api) -> None:
    (row,) = api.rows(fields="owned_by", limit=1)
    assert row["owned_by"] == {
        "value": "o" * 32,
        "link": f"{api.server.url}/api/now/table/sys_user/{'o' * 32}",
    }
    assert api.rows(fields="owned_by", limit=1, exclude_reference_link="true") == [{"owned_by": "o" * 32}]


def test_a_dot_walked_field_has_its_whole_name(api: Api) -> None:
    rows = api.rows(fields="owned_by.name,owned_by.location.name")
    assert rows[0] == {"owned_by.name": "Team A", "owned_by.location.name": "Oslo"}
    assert rows[1] == {"owned_by.name": "", "owned_by.location.name": ""}
    assert rows[3] == {}


def test_values_can_be_shown_as_a_person_sees_them(api: Api) -> None:
    status = {"value": 1, "display_value": "Operational"}
    api.server.set_table("apps", [{"status": status, "owned_by": OWNER}])
    asked = {"fields": "status,owned_by", "exclude_reference_link": "true"}
    assert api.rows(**asked) == [{"status": "1", "owned_by": "o" * 32}]
    assert api.rows(**asked, display_value="true") == [{"status": "Operational", "owned_by": "Team A"}]
    (both,) = api.rows(fields="status,owned_by", display_value="all")
    assert both["status"] == {"display_value": "Operational", "value": "1"}
    assert both["owned_by"].keys() == {"display_value", "value", "link"}


def test_a_row_without_a_sys_id_has_one_that_does_not_change(api: Api) -> None:
    api.server.set_table("apps", [{"name": "a"}, {"name": "b"}, {"name": "a"}])
    before = [row["sys_id"] for row in api.rows()]
    assert len({key for key in before if SYS_ID.fullmatch(key)}) == 3
    api.server.set_table("apps", [{"name": "new"}, {"name": "a"}, {"name": "b"}])
    assert [row["sys_id"] for row in api.rows()][1:] == before[:2]


def test_there_is_a_small_table_when_nothing_else_is_said(http: httpx.Client) -> None:
    with ServiceNowStandIn() as server:
        rows = Api(server, http).get(TABLE, fields="u_app_id,owned_by.name").json()["result"]
    assert len(rows) == 12
    assert {"u_app_id": "app-payments-prod", "owned_by.name": "Team Payments"} in rows


# --- queries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "1234"),
        ("name=PAYMENTS", "1"),
        ("name!=Payments", "234"),
        ("u_tier>1", "23"),
        ("u_tier>=2", "23"),
        ("u_tier<10", "12"),
        ("u_tier<=1", "1"),
        ("name>m", "14"),
        ("nameINauth,Search", "24"),
        ("nameNOT INauth,Search", "13"),
        ("nameLIKEar", "4"),
        ("nameNOT LIKEar", "123"),
        ("u_app_idSTARTSWITHapp-", "12"),
        ("u_app_idENDSWITHauth", "2"),
        ("u_app_idISEMPTY", "34"),
        ("u_app_idISNOTEMPTY", "12"),
        ("owned_byISEMPTY", "24"),
        (f"owned_by={'o' * 32}", "13"),
        ("owned_by.location.name=oslo", "13"),
        ("active=true^u_tier=1^ORu_tier=10", "13"),
        ("u_tier=2^ORu_tier=1^active=true", "1"),
        ("active=false^NQu_tier=10^active=true", "23"),
        ("active=true^EQ", "134"),
        ("ORDERBYname", "2314"),
        ("active=true^ORDERBYDESCname", "413"),
        ("ORDERBYactive^ORDERBYDESCsys_id", "2431"),
    ],
)
def test_an_encoded_query_finds_what_it_says(api: Api, query: str, found: str) -> None:
    assert api.found(query) == found
    assert api.state()["ignored"] == []


@pytest.mark.parametrize(
    ("query", "found", "ignored"),
    [
        ("nmae=Payments", "1234", ["nmae=Payments"]),
        ("nameISx", "1234", ["nameISx"]),
        ("owned_by.nosuch=1^u_tier=1", "1", ["owned_by.nosuch=1"]),
        ("nosuch=1^ORu_tier=1", "1", ["nosuch=1"]),
        ("u_tier=1^ORnosuch=1", "1", ["ORnosuch=1"]),
        ("u_tier=1^ORDERBYnosuch", "1", ["ORDERBYnosuch"]),
    ],
)
def test_what_a_query_says_and_cannot_be_understood_is_ignored(
    api: Api, query: str, found: str, ignored: list[str]
) -> None:
    assert api.found(query) == found
    assert api.state()["ignored"] == ignored


def test_an_instance_can_be_set_to_give_no_rows_for_a_bad_query(api: Api) -> None:
    api.configure(invalid_query="no_rows")
    assert api.found("nmae=Payments") == ""
    assert api.found("name=Payments") == "1"


def test_rows_without_an_order_can_be_shuffled_from_page_to_page(api: Api) -> None:
    api.server.set_table("apps", [{"name": f"{number:02}"} for number in range(40)])
    api.configure(shuffled=True)

    def names(query: str) -> list[str]:
        pages = (api.rows(query=query, fields="name", limit=10, offset=offset) for offset in (0, 10, 20, 30))
        return [row["name"] for page in pages for row in page]

    assert names("ORDERBYname") == [f"{number:02}" for number in range(40)]
    assert len(set(names("nameISNOTEMPTY"))) < 40


# --- pages ----------------------------------------------------------------------------------------------------------


def test_without_a_limit_a_page_has_ten_thousand_rows(api: Api) -> None:
    api.server.set_table("apps", [{"sys_id": str(number)} for number in range(10_001)])
    page = api.get(fields="sys_id")
    assert len(page.json()["result"]) == 10_000
    assert offsets(page)["next"] == "10000"


def test_the_addresses_of_other_pages_have_commas_and_the_first_has_a_bogus_prev(api: Api) -> None:
    asked = {"query": "nameINPayments,auth,Search^ORDERBYsys_id", "fields": "name,sys_id", "limit": 1}
    first = api.get(**asked)
    assert "sysparm_fields=name,sys_id&" in first.headers["Link"]
    assert "nameINPayments,auth,Search%5E" in first.headers["Link"]
    assert offsets(first) == {"first": "0", "prev": "-1", "next": "1", "last": "2"}
    second = api.http.get(links(first)["next"])
    assert second.json() == {"result": [{"name": "auth", "sys_id": "2"}]}
    assert offsets(second) == {"first": "0", "prev": "0", "next": "2", "last": "2"}
    last = api.http.get(links(second)["next"])
    assert offsets(last) == {"first": "0", "prev": "1", "last": "2"}
    assert api.http.get(links(first)["prev"]).status_code == 400
    api.configure(bogus_prev=False)
    assert offsets(api.get(**asked)).keys() == {"first", "next", "last"}


def test_a_single_page_has_no_link(api: Api) -> None:
    response = api.get(limit=4)
    assert "Link" not in response.headers
    assert response.headers["X-Total-Count"] == "4"


def test_hidden_rows_are_counted_and_taken_out_of_their_page(api: Api) -> None:
    api.server.set_table("apps", [{**row, "_hidden": row["sys_id"] == "1"} for row in ROWS])
    api.configure(hidden=["2"])
    first, second = api.get(fields="sys_id", limit=2), api.get(fields="sys_id", limit=2, offset=2)
    assert first.json() == {"result": []}
    assert "next" in links(first)
    assert second.json() == {"result": [{"sys_id": "3"}, {"sys_id": "4"}]}
    assert first.headers["X-Total-Count"] == second.headers["X-Total-Count"] == "4"
    assert "_hidden" not in api.get().text


def test_no_row_is_an_empty_list_or_by_the_older_habit_not_found(api: Api) -> None:
    assert api.rows(query="name=nobody") == []
    api.configure(empty="404")
    for response in (api.get(query="name=nobody"), api.get(offset=4)):
        assert response.status_code == 404
        assert response.json() == {
            "error": {"message": "No Record found", "detail": "Records matching query not found."},
            "status": "failure",
        }


def test_an_unknown_table_is_a_bad_request(api: Api) -> None:
    response = api.get("nosuch")
    assert response.status_code == 400
    assert response.json() == {"error": {"message": "Invalid table nosuch", "detail": None}, "status": "failure"}


def test_a_slow_query_ends_in_the_midst_of_its_rows_with_200_and_an_error(api: Api) -> None:
    api.configure(cancel_after_rows=2)
    response = api.get(fields="sys_id")
    assert response.status_code == 200
    body = response.json()
    assert body["result"] == [{"sys_id": "1"}, {"sys_id": "2"}]
    assert body["error"]["message"] == "Transaction cancelled: maximum execution time exceeded"
    assert api.get(fields="sys_id", limit=2).json().keys() == {"result"}


def test_a_proxy_may_take_the_headers_away(api: Api) -> None:
    api.configure(headers=False)
    assert not {"link", "x-total-count"} & api.get(limit=1).headers.keys()


# --- control and faults ---------------------------------------------------------------------------------------------


def test_a_table_is_changed_while_it_runs_and_others_stay(api: Api) -> None:
    assert api.control("POST", "/_tables", {"more": [{"name": "a"}]}).json() == {"apps": 4, "more": 1}
    assert [row["name"] for row in api.get("more").json()["result"]] == ["a"]
    assert api.found("") == "1234"
    assert api.control("POST", "/_tables", {"apps": "none"}).status_code == 400
    assert api.control("POST", "/_reset").status_code == 200
    assert api.state()["tables"] == {"apps": 4}


def test_what_was_asked_is_in_the_state(api: Api) -> None:
    api.get(query="ORDERBYsys_id", limit=1)
    assert api.state()["asked"] == [{"table": "apps", "sysparm_query": "ORDERBYsys_id", "sysparm_limit": "1"}]


@pytest.mark.parametrize("wanted", [{"empty": "204"}, {"nosuch": 1}, {"default_limit": 0}, []], ids=str)
def test_a_configuration_that_makes_no_sense_is_refused(api: Api, wanted: object) -> None:
    before = api.control("GET", "/_config").json()
    assert api.control("POST", "/_config", wanted).status_code == 400
    assert api.control("POST", "/_config", before).json() == before


def test_a_rate_limit_is_an_ordinary_fault(api: Api) -> None:
    fault = {"kind": "status", "status": 429, "headers": {"Retry-After": "7"}}
    api.control("POST", "/_faults", [{"operation": "listRecords", "fault": fault}]).raise_for_status()
    assert api.get().headers["Retry-After"] == "7"
    assert api.get().status_code == 200


def test_as_a_process_it_says_its_address_and_ends_on_sigterm(http: httpx.Client) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "local.standins.servicenow", "--user", "me:a:b", "--token", "mine"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout
            ready = json.loads(process.stdout.readline())
            address = f"{ready['api_url']}/api/now/table/{TABLE}"
            assert http.get(address, auth=("me", "a:b")).status_code == 200
            assert http.get(address).status_code == 401
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()

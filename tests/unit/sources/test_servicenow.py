"""Rows of ServiceNow: each that was visible throughout is read once, and a part is never taken for the whole."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from finops_relay.errors import (
    AnswerNotUnderstood,
    CredentialRefused,
    NotFound,
    RequestRefused,
    VendorUnreachable,
)
from finops_relay.http.auth import basic, fixed
from finops_relay.http.wire import new_wire
from finops_relay.sources import advice
from finops_relay.sources.asks import TableAsk
from finops_relay.sources.records import Record
from finops_relay.sources.servicenow import ServiceNow
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from local.standins.servicenow import TABLE, ServiceNowStandIn
from tests.unit.sources.wires import Handler, answer, http, source

QUERY = re.compile(r"(?:sys_id>(?P<after>[\w.-]+))?\^?(?:sys_id<=(?P<until>[\w.-]+))?\^?ORDERBYsys_id")


def ask(**given: object) -> TableAsk:
    return TableAsk.model_validate({"table": TABLE, "columns": {"app": "name"}, **given})


def read(wire: Handler, **given: object) -> list[Record]:
    return list(ServiceNow(http(wire, advice=advice.servicenow)).records(ask(**given)))


def key(number: int) -> str:
    return f"{number:032x}"


@dataclass
class Instance:
    """A table of rows that the user may see or not, which changes after each answer."""

    rows: dict[str, bool]
    """Whether a row is visible, by its key."""
    changes: list[Callable[[dict[str, bool]], None]] = field(default_factory=list)
    headers: str = "both"
    knows_until: bool = True
    calls: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        params = dict(request.url.params)
        self.calls.append(params)
        asked = QUERY.fullmatch(params["sysparm_query"])
        assert asked, params["sysparm_query"]
        after, until = asked["after"] or "", asked["until"] if self.knows_until else None
        found = sorted(each for each in self.rows if each > after and (not until or each <= until))
        offset, limit = int(params.get("sysparm_offset", 0)), int(params["sysparm_limit"])
        page = [each for each in found[offset : offset + limit] if self.rows[each]]
        headers = {}
        if self.headers in {"both", "count"}:
            headers["x-total-count"] = str(len(found))
        if self.headers in {"both", "link"} and len(found) > offset + limit:
            headers["link"] = '<https://i.example/a,b?o=-1>;rel="prev",<https://i.example/a,b?o=1>;rel="next"'
        said = answer({"result": [{"sys_id": each, "name": f"n{each}"} for each in page]}, headers=headers)
        for change in self.changes[:1]:
            change(self.rows)
        del self.changes[:1]
        return said


# --- no row lost, none doubled -------------------------------------------------------------------------------------

KEYS = st.one_of(st.integers(0, 40), st.integers(0, 40).map(lambda n: n << 120), st.integers(0, 2**128 - 1)).map(key)


@dataclass(frozen=True)
class Change:
    """Rows that go, and rows that come."""

    gone: frozenset[str]
    come: dict[str, bool]

    def __call__(self, rows: dict[str, bool]) -> None:
        for each in self.gone:
            rows.pop(each, None)
        rows.update({each: visible for each, visible in self.come.items() if each not in rows})


CHANGES = st.lists(
    st.builds(Change, st.frozensets(KEYS, max_size=20), st.dictionaries(KEYS, st.booleans(), max_size=5)), max_size=30
)


@settings(max_examples=100)
@given(
    rows=st.dictionaries(KEYS, st.booleans(), max_size=60),
    changes=CHANGES,
    page_rows=st.integers(1, 7),
    headers=st.sampled_from(["both", "count", "link"]),
)
def test_each_row_that_was_visible_throughout_is_read_exactly_once(
    rows: dict[str, bool], changes: list[Change], page_rows: int, headers: str
) -> None:
    throughout = {each for each, visible in rows.items() if visible}
    instance = Instance(dict(rows), list(changes), headers)
    found = [record.name for record in read(instance, page_rows=page_rows)]
    happened = changes[: len(changes) - len(instance.changes)]
    throughout -= {each for change in happened for each in change.gone}
    assert throughout <= set(found)
    assert len(found) == len(set(found))
    assert found == sorted(found)


@settings(max_examples=100)
@given(keys=st.frozensets(KEYS, max_size=60), changes=CHANGES, page_rows=st.integers(1, 7))
def test_without_headers_a_short_page_is_not_the_end(
    keys: frozenset[str], changes: list[Change], page_rows: int
) -> None:
    changes = [Change(change.gone, dict.fromkeys(change.come, True)) for change in changes]
    instance = Instance(dict.fromkeys(keys, True), list(changes), headers="none")
    found = [record.name for record in read(instance, page_rows=page_rows)]
    happened = changes[: len(changes) - len(instance.changes)]
    assert keys - {each for change in happened for each in change.gone} <= set(found)
    assert len(found) == len(set(found))


@settings(max_examples=100)
@given(
    rows=st.dictionaries(KEYS | st.text("gkz-.", min_size=1, max_size=3), st.booleans(), max_size=60),
    page_rows=st.integers(1, 7),
    knows_until=st.booleans(),
)
def test_keys_that_cannot_be_halved_and_bounds_that_are_ignored_lose_no_row(
    rows: dict[str, bool], page_rows: int, *, knows_until: bool
) -> None:
    instance = Instance(dict(rows), knows_until=knows_until)
    found = [record.name for record in read(instance, page_rows=page_rows)]
    assert found == sorted(each for each, visible in rows.items() if visible)


def test_a_stretch_of_hidden_rows_is_gone_past_even_while_rows_before_it_are_deleted() -> None:
    """By offset the visible row would slip from the second page into the first, which was read before."""
    rows = {key(n): n == 4 for n in range(1, 7)}
    gone: list[Callable[[dict[str, bool]], None]] = [Change(frozenset({key(1)}), {}) for _ in range(200)]
    assert [record.name for record in read(Instance(rows, gone), page_rows=3)] == [key(4)]


def test_few_calls_go_past_many_hidden_rows() -> None:
    step = 2**128 // 10_000
    rows = {key(n * step): n == 9_999 for n in range(10_000)}
    instance = Instance(rows)
    assert len(read(instance, page_rows=1_000)) == 1
    assert len(instance.calls) <= 40


def test_rows_all_of_which_are_visible_cost_a_call_a_page_and_one_more() -> None:
    instance = Instance(dict.fromkeys(map(key, range(50_000)), True))
    assert [record.number for record in read(instance)] == list(range(1, 50_001))
    assert len(instance.calls) == 51
    assert not any("sysparm_offset" in call for call in instance.calls)


def test_pages_are_asked_for_as_rows_are_read() -> None:
    instance = Instance(dict.fromkeys(map(key, range(10)), True))
    found = ServiceNow(http(instance)).records(ask(page_rows=2))
    assert instance.calls == []
    for _ in range(3):
        next(found)
    assert len(instance.calls) == 2


# --- what is asked -------------------------------------------------------------------------------------------------


def test_a_page_is_asked_for_in_the_order_of_keys_and_without_links() -> None:
    vendor = source({"result": []})
    assert (
        read(vendor, columns={"app": "u_app_id", "owner": "owned_by.email", "id": "sys_id"}, query="active=true") == []
    )
    assert vendor.seen[0].url.path == f"/api/now/table/{TABLE}"
    assert vendor.params == [
        {
            "sysparm_query": "active=true^ORDERBYsys_id",
            "sysparm_fields": "sys_id,u_app_id,owned_by.email",
            "sysparm_display_value": "false",
            "sysparm_exclude_reference_link": "true",
            "sysparm_limit": "1000",
        }
    ]


@pytest.mark.parametrize(
    ("query", "first", "second"),
    [
        ("", "ORDERBYsys_id", "sys_id>{0}^ORDERBYsys_id"),
        ("a=1^EQ", "a=1^ORDERBYsys_id", "a=1^sys_id>{0}^ORDERBYsys_id"),
        ("a=1^ORb=2", "a=1^ORb=2^ORDERBYsys_id", "a=1^ORb=2^sys_id>{0}^ORDERBYsys_id"),
        ("a=1^NQb=2", "a=1^NQb=2^ORDERBYsys_id", "a=1^sys_id>{0}^NQb=2^sys_id>{0}^ORDERBYsys_id"),
    ],
)
def test_the_bound_of_a_page_belongs_to_each_part_of_the_query(query: str, first: str, second: str) -> None:
    vendor = source({"result": [{"sys_id": key(1), "name": "a"}]}, {"result": []})
    assert len(read(vendor, query=query)) == 1
    assert [params["sysparm_query"] for params in vendor.params] == [first, second.format(key(1))]


def test_values_are_text_as_they_came_and_what_is_none_is_named() -> None:
    row = {"sys_id": key(1), "name": " Payments ", "owned_by": {"link": "x", "value": "y"}, "live": True, "none": None}
    vendor = source({"result": [row]}, {"result": []})
    columns = {"app": "name", "owner": "owned_by", "live": "live", "none": "none"}
    assert read(vendor, columns=columns, display_values=True) == [
        Record(
            1,
            key(1),
            {"app": " Payments ", "owner": "", "live": "true", "none": ""},
            "column 'owner': it is an object, where one value is wanted",
        )
    ]
    assert vendor.params[0]["sysparm_display_value"] == "true"


def test_half_a_letter_in_one_row_costs_no_other() -> None:
    page = rb'{"result": [{"sys_id": "a1", "name": "cut \ud83d"}, {"sys_id": "a2", "name": "whole"}]}'
    found = read(source(answer(page), {"result": []}))
    assert [record.values["app"] for record in found] == ["", "whole"]
    assert "surrogate" in found[0].problem


def test_a_field_that_no_row_has_is_named_at_the_end() -> None:
    rows = [{"sys_id": key(1), "name": "a"}, {"sys_id": key(2), "name": "b", "seldom": "c"}]
    columns = {"app": "name", "seldom": "seldom"}
    assert len(read(source({"result": rows}, {"result": []}), columns=columns)) == 2
    with pytest.raises(AnswerNotUnderstood, match="no row has u_ap: a field is misspelt"):
        read(source({"result": rows}, {"result": []}), columns={"app": "u_ap", "seldom": "seldom"})
    assert read(source({"result": []}), columns={"app": "u_ap"}) == []


# --- what is not the whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Transaction cancelled: maximum execution time exceeded", "detail": "Check logs"},
        "Transaction cancelled",
    ],
)
def test_an_answer_with_an_error_beside_its_rows_is_never_taken_for_whole(error: object) -> None:
    vendor = source({"result": [{"sys_id": key(1), "name": "a"}], "error": error, "status": "failure"})
    with pytest.raises(AnswerNotUnderstood, match=r"in part: Transaction cancelled.*page_rows") as caught:
        read(vendor)
    assert caught.value.retryable


@pytest.mark.parametrize(
    "pages",
    [
        [[key(1)], [key(1)]],
        [[key(1), key(2)], [key(1), key(2)]],
        [[key(2), key(1)]],
        [["AA"], ["aa"]],
    ],
)
def test_an_instance_that_keeps_to_no_order_is_not_read_for_ever(pages: list[list[str]]) -> None:
    answers = [{"result": [{"sys_id": each, "name": "a"} for each in page]} for page in pages]
    with pytest.raises(AnswerNotUnderstood, match="does not follow"):
        read(source(*answers))


@pytest.mark.parametrize("row", [{}, {"sys_id": None}, {"sys_id": ""}, {"sys_id": "a^b"}, {"sys_id": 7}, "text", None])
def test_a_row_without_a_key_is_not_understood(row: object) -> None:
    with pytest.raises(AnswerNotUnderstood, match="no sys_id"):
        read(source({"result": [row]}))


@pytest.mark.parametrize("said", [{}, {"result": {}}, {"result": None}, [], 7])
def test_an_answer_without_a_list_is_not_understood(said: object) -> None:
    with pytest.raises(AnswerNotUnderstood):
        read(source(said))


def test_an_instance_that_always_says_more_and_never_gives_it_ends_with_an_error() -> None:
    vendor = source(answer({"result": []}, headers={"link": '</next>;rel="next"'}))
    with pytest.raises(AnswerNotUnderstood, match="2,001 pages in a row"):
        read(vendor)


def test_a_table_beyond_the_ceiling_is_not_read() -> None:
    def rows(total: int) -> list[Record]:
        instance = Instance(dict.fromkeys(map(key, range(total)), True))
        return list(ServiceNow(http(instance), at_most=20).records(ask(page_rows=7)))

    assert len(rows(20)) == 20
    with pytest.raises(AnswerNotUnderstood, match="more than 20 rows"):
        rows(21)


def test_no_page_is_asked_for_beyond_the_invocation() -> None:
    left = iter([100.0, 100.0, 1.0])
    instance = Instance(dict.fromkeys(map(key, range(10)), True))
    client = ServiceNow(http(instance, remaining_s=lambda: next(left, 1.0)))
    with pytest.raises(VendorUnreachable, match="no time left"):
        list(client.records(ask(page_rows=2)))
    assert len(instance.calls) < 3


def test_a_page_is_asked_for_again_after_trouble() -> None:
    vendor = source(
        httpx.Response(503), httpx.ReadError("reset"), {"result": [{"sys_id": key(1), "name": "a"}]}, {"result": []}
    )
    assert len(read(vendor)) == 1
    assert len(vendor.seen) == 4


# --- refusals ------------------------------------------------------------------------------------------------------


def refusal(message: str, detail: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "detail": detail}, "status": "failure"}


@pytest.mark.parametrize(
    "said",
    [
        refusal("No Record found", "Record doesn't exist or ACL restricts the record retrieval"),
        refusal("No Record found", "Records matching query not found."),
        refusal("No Record found"),
    ],
)
def test_the_old_spelling_of_no_rows_is_no_error(said: object) -> None:
    assert read(source(answer(said, 404))) == []
    assert len(read(source({"result": [{"sys_id": key(1), "name": "a"}]}, answer(said, 404)))) == 1


@pytest.mark.parametrize(
    ("status", "said", "kind", "words"),
    [
        (404, refusal("Requested URI does not represent any resource"), NotFound, "instance's address"),
        (400, refusal("Invalid table cmdb_apps"), RequestRefused, "Invalid table cmdb_apps.*table's name"),
        (401, refusal("User Not Authenticated"), CredentialRefused, "name and password"),
        (403, refusal("Operation Failed", "ACL Exception"), CredentialRefused, "ACL.*snc_platform_rest_api_access"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, said: object, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        read(source(answer(said, status)))


# --- against the stand-in ------------------------------------------------------------------------------------------


@pytest.fixture
def wire() -> Iterator[httpx.Client]:
    with new_wire() as made:
        yield made


@pytest.mark.parametrize("headers", [True, False])
def test_a_user_reads_the_stand_ins_table_whole(wire: httpx.Client, *, headers: bool) -> None:
    rows = [
        {"name": f"App {n}", "owned_by": {"name": f"Team {n}"}, "_hidden": headers and n % 10 != 0} for n in range(200)
    ]
    login = basic(fixed(SecretStr(base64.b64encode(b"relay:password").decode())), "servicenow")
    with ServiceNowStandIn({TABLE: rows}, headers=headers) as instance:
        client = ServiceNow(http(wire, instance.api_url, auth=login))
        found = list(client.records(ask(columns={"app": "name", "team": "owned_by.name"}, page_rows=7)))
        state = instance.state()
    wanted = {f"App {n}": f"Team {n}" for n in range(0, 200, 10 if headers else 1)}
    assert {record.values["app"]: record.values["team"] for record in found} == wanted
    assert len(found) == len(wanted)
    assert (state["violations"], state["response_violations"], state["ignored"]) == ([], [], [])

"""Items of any list: every page is read, on the source's own host, and no answer of another shape is taken for none."""

from __future__ import annotations

import httpx
import pytest
from finops_relay.errors import AnswerNotUnderstood, CredentialRefused, NotFound
from finops_relay.sources import advice
from finops_relay.sources.asks import JsonAsk
from finops_relay.sources.http_json import HttpJson
from finops_relay.sources.records import Record

from tests.unit.sources.wires import BASE, Handler, answer, http, source


def ask(**given: object) -> JsonAsk:
    return JsonAsk.model_validate({"columns": {"app": "name"}, **given})


def read(wire: Handler, base_url: str = BASE, **given: object) -> list[Record]:
    return list(HttpJson(http(wire, base_url, advice.http_json)).records(ask(**given)))


def apps(found: list[Record]) -> list[str]:
    return [record.values["app"] for record in found]


def test_a_plain_list_is_read() -> None:
    vendor = source([{"name": " a ", "cost": {"center": 7}}, {"name": ["b"]}, "text"])
    found = read(vendor, columns={"app": "name", "center": "cost.center"})
    assert found == [
        Record(1, "item 1", {"app": " a ", "center": "7"}),
        Record(2, "item 2", {"app": "", "center": ""}, "column 'app': it is a list, where one value is wanted"),
        Record(3, "item 3", {"app": "", "center": ""}),
    ]
    assert str(vendor.seen[0].url).removesuffix("/") == BASE


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        (f"{BASE}/cmdb", "", f"{BASE}/cmdb"),
        (f"{BASE}/cmdb", "v1/apps", f"{BASE}/cmdb/v1/apps"),
        (BASE, "/apps/", f"{BASE}/apps/"),
        (BASE, "/a%2Fb", f"{BASE}/a%2Fb"),
    ],
)
def test_the_path_is_added_to_the_sources_address(base: str, path: str, url: str) -> None:
    vendor = source([])
    assert read(vendor, base, path=path) == []
    assert str(vendor.seen[0].url) == url


def test_an_expression_leads_to_the_list_and_to_each_column() -> None:
    said = {"data": {"apps": [{"id": 1, "labels": {"x.y/z": "p"}, "live": True}, {"id": 2, "live": False}]}}
    columns = {"app": "join('-', ['app', to_string(id)])", "label": 'labels."x.y/z"'}
    found = read(source(said), items="data.apps[?live]", columns=columns)
    assert [record.values for record in found] == [{"app": "app-1", "label": "p"}]


# --- the next page -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("following", [f"{BASE}/apps?page=2", "/apps?page=2", "?page=2", "apps?page=2"])
def test_the_next_page_is_found_by_its_address(following: str) -> None:
    vendor = source({"items": [{"name": "a"}], "next": following}, {"items": [{"name": "b"}], "next": None})
    assert apps(read(vendor, path="apps", items="items", next="next", params={"limit": "1"})) == ["a", "b"]
    assert [str(request.url) for request in vendor.seen] == [f"{BASE}/apps?limit=1", f"{BASE}/apps?page=2"]


@pytest.mark.parametrize("following", ["https://evil.example/apps", "//evil.example/", "http://source.example/apps"])
@pytest.mark.parametrize("header", [True, False])
def test_no_page_is_asked_for_elsewhere(following: str, *, header: bool) -> None:
    headers = {"link": f'<{following}>; rel="next"'} if header else {}
    vendor = source(answer({"items": [], "next": following}, headers=headers))
    with pytest.raises(AnswerNotUnderstood, match="elsewhere"):
        read(vendor, items="items", link_header=header, next="" if header else "next")
    assert len(vendor.seen) == 1


@pytest.mark.parametrize(("cursor", "sent"), [("x/+=&", "x/+=&"), (17, "17"), (0, "0"), (True, "true")])
def test_a_cursor_is_sent_as_its_parameter_beside_the_others(cursor: object, sent: str) -> None:
    vendor = source({"items": [{"name": "a"}], "meta": {"after": cursor}}, {"items": [{"name": "b"}]})
    found = read(vendor, items="items", cursor="meta.after", cursor_param="after", params={"limit": "1"})
    assert apps(found) == ["a", "b"]
    assert vendor.params == [{"limit": "1"}, {"limit": "1", "after": sent}]


@pytest.mark.parametrize("last", [None, "", False])
def test_a_page_that_names_no_other_is_the_last(last: object) -> None:
    for way in ({"next": "next"}, {"cursor": "next"}):
        vendor = source({"items": [{"name": "a"}], "next": last})
        assert apps(read(vendor, items="items", **way)) == ["a"]
        assert len(vendor.seen) == 1


def test_the_header_link_is_followed() -> None:
    link = f'<{BASE}/apps?a=1,2&page=2>; rel="next", <{BASE}/apps?a=1,2&page=9>; rel="last"'
    vendor = source(answer([{"name": "a"}], headers={"link": link}), [{"name": "b"}])
    assert apps(read(vendor, path="apps", link_header=True)) == ["a", "b"]
    assert str(vendor.seen[1].url) == f"{BASE}/apps?a=1,2&page=2"


def test_a_header_link_that_is_cut_is_not_taken_for_the_last_page() -> None:
    link = ",".join([f'<{BASE}/{"x" * 4_000}>; rel="prev"'] * 2 + [f'<{BASE}/apps?page=2>; rel="next"'])
    with pytest.raises(AnswerNotUnderstood, match="8,000 characters"):
        read(source(answer([], headers={"link": link})), link_header=True)


def test_further_pages_are_not_asked_for_unless_their_way_is_named() -> None:
    vendor = source(answer({"items": [{"name": "a"}], "next": "?page=2"}, headers={"link": '</b>; rel="next"'}))
    assert apps(read(vendor, items="items")) == ["a"]
    assert len(vendor.seen) == 1


def test_a_source_that_leads_in_a_circle_ends_with_an_error() -> None:
    with pytest.raises(AnswerNotUnderstood, match="read before"):
        read(source({"items": [], "cursor": "same"}), items="items", cursor="cursor")


# --- what is no answer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "items"),
    [
        ({"items": None}, "items"),
        ({}, "items"),
        ({}, "items[*].a"),
        ("text", "@"),
        ({"a": 1}, "@"),
        (None, "@"),
        ({"a": 1}, "sum(a)"),
    ],
)
def test_what_is_no_list_is_never_taken_for_an_empty_one(said: object, items: str) -> None:
    with pytest.raises(AnswerNotUnderstood):
        read(source(said), items=items)


def test_null_may_be_said_to_mean_none() -> None:
    assert read(source({"items": None}), items="items || `[]`") == []


@pytest.mark.parametrize("found", [7, True, ["?page=2"], {"href": "?page=2"}])
def test_an_address_that_is_none_is_not_understood(found: object) -> None:
    with pytest.raises(AnswerNotUnderstood, match="no address"):
        read(source({"items": [], "next": found}), items="items", next="next")


@pytest.mark.parametrize("found", [["a"], {"a": 1}])
def test_a_cursor_that_is_none_is_not_understood(found: object) -> None:
    with pytest.raises(AnswerNotUnderstood, match="no cursor"):
        read(source({"items": [], "next": found}), items="items", cursor="next")


def test_half_a_letter_in_one_item_costs_no_other() -> None:
    vendor = source(answer(rb'{"items": [{"name": "\ud83d"}], "next": "?b"}'), {"items": [{"name": "b"}], "next": ""})
    assert apps(read(vendor, items="items", next="next")) == ["", "b"]


def test_a_list_beyond_the_ceiling_is_not_read() -> None:
    with pytest.raises(AnswerNotUnderstood, match="more than 2 items"):
        list(HttpJson(http(source([1, 2, 3])), at_most=2).records(ask()))


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [(401, CredentialRefused, "source's secret"), (403, CredentialRefused, "allows"), (404, NotFound, "and path")],
)
def test_a_refusal_says_what_to_do(status: int, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        read(source(httpx.Response(status)), path="apps")

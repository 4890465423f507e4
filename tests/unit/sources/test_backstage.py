"""Entities of a catalog: each that was there throughout is read once, or the read fails and says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from finops_relay.errors import AnswerNotUnderstood, CredentialRefused, NotFound, VendorUnreachable
from finops_relay.http.auth import Credential, fixed
from finops_relay.http.wire import new_wire
from finops_relay.sources import advice
from finops_relay.sources.asks import CatalogAsk
from finops_relay.sources.backstage import Backstage, full_reference
from finops_relay.sources.records import Record
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from local.standins.backstage import TOKEN, BackstageStandIn
from tests.unit.sources.wires import Handler, answer, http, source

APP_ID = 'metadata.annotations."example.com/app-id"'


def ask(**given: object) -> CatalogAsk:
    columns = {"app": "metadata.name"}
    return CatalogAsk.model_validate({"filters": ["kind=component,spec.type=service"], "columns": columns, **given})


def read(wire: Handler, **given: object) -> list[Record]:
    return list(Backstage(http(wire, advice=advice.backstage)).records(ask(**given)))


def entity(name: str, **spec: object) -> dict[str, Any]:
    return {"kind": "Component", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def page(*entities: object, cursor: str | None = None, total: int | None = None) -> dict[str, Any]:
    info = {} if cursor is None else {"nextCursor": cursor}
    return {"items": entities, "pageInfo": info, "totalItems": len(entities) if total is None else total}


# --- no entity lost, none doubled ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """Entities that go, and entities that come."""

    gone: frozenset[int]
    come: frozenset[int]


@dataclass
class Catalog:
    """Entities by uid, counted once a read, which change after each answer."""

    uids: set[int]
    changes: list[Change] = field(default_factory=list)
    counted_anew: bool = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        params = request.url.params
        begins = {"after": -1, "total": len(self.uids)}
        cursor = json.loads(params["cursor"]) if "cursor" in params else begins
        found = sorted(uid for uid in self.uids if uid > cursor["after"])
        shown = found[: int(params["limit"])]
        more = json.dumps({**cursor, "after": shown[-1]}) if len(found) > len(shown) else None
        total = len(self.uids) if self.counted_anew else cursor["total"]
        said = answer(page(*(entity(f"e{uid}") for uid in shown), cursor=more, total=total))
        for change in self.changes[:1]:
            self.uids -= change.gone
            self.uids |= change.come
        del self.changes[:1]
        return said


UIDS = st.frozensets(st.integers(0, 40), max_size=30)


@settings(max_examples=100)
@given(
    uids=UIDS,
    changes=st.lists(st.builds(Change, UIDS, UIDS), max_size=12),
    page_items=st.integers(1, 9),
    counted_anew=st.booleans(),
)
def test_each_entity_that_was_there_throughout_is_read_once_or_the_read_fails(
    uids: frozenset[int], changes: list[Change], page_items: int, *, counted_anew: bool
) -> None:
    catalog = Catalog(set(uids), list(changes), counted_anew)
    found: list[str] | None = None
    with suppress(AnswerNotUnderstood):
        found = [record.values["app"] for record in read(catalog, page_items=page_items)]
    if found is None:
        assert any(change.gone or counted_anew for change in changes)
        return
    happened = changes[: len(changes) - len(catalog.changes)]
    throughout = uids - {uid for change in happened for uid in change.gone}
    assert {f"e{uid}" for uid in throughout} <= set(found)
    assert len(found) == len(set(found))


def test_an_entity_that_some_versions_repeat_is_read_once_and_counted_as_they_count_it() -> None:
    pages = [page(entity("a"), entity("b"), cursor="2", total=4), page(entity("b"), entity("c"), total=4)]
    assert [(record.number, record.name) for record in read(source(*pages))] == [
        (1, "component:default/a"),
        (2, "component:default/b"),
        (3, "component:default/c"),
    ]


def test_fewer_entities_than_were_counted_are_never_taken_for_whole() -> None:
    with pytest.raises(AnswerNotUnderstood, match="2 entities came, and the catalog counted 3") as caught:
        read(source(page(entity("a"), cursor="2", total=3), page(entity("b"), total=3)))
    assert caught.value.retryable


@pytest.mark.parametrize("total", [0, 1, None, "3", True])
def test_a_count_that_says_nothing_is_no_hindrance(total: object) -> None:
    assert len(read(source({**page(entity("a"), entity("b")), "totalItems": total}))) == 2


# --- what is asked -------------------------------------------------------------------------------------------------


def test_filters_belong_to_the_first_call_and_a_cursor_carries_them_on() -> None:
    vendor = source(page(entity("a"), cursor="x/+=&y"), page(entity("b")))
    assert len(read(vendor, filters=["kind=component", "kind=api,spec.type=openapi"])) == 2
    fields = ("fields", "kind,metadata.name,metadata.namespace")
    assert {request.url.path for request in vendor.seen} == {"/api/catalog/entities/by-query"}
    assert [request.url.params.multi_items() for request in vendor.seen] == [
        [("filter", "kind=component"), ("filter", "kind=api,spec.type=openapi"), ("limit", "500"), fields],
        [("limit", "500"), fields, ("cursor", "x/+=&y")],
    ]


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        ({"a": "spec.owner"}, "kind,metadata.name,metadata.namespace,spec.owner"),
        ({"a": APP_ID}, "kind,metadata.annotations,metadata.name,metadata.namespace"),
        ({"a": "metadata.title || metadata.name"}, "kind,metadata.name,metadata.namespace,metadata.title"),
        ({"a": "join(',', metadata.tags)"}, "kind,metadata.name,metadata.namespace,metadata.tags"),
        ({"a": "kind", "b": "to_string(@)"}, None),
        ({"a": '"a.b"'}, None),
    ],
)
def test_only_the_needed_parts_are_asked_for_where_the_expressions_tell(
    columns: dict[str, str], fields: str | None
) -> None:
    vendor = source(page())
    assert read(vendor, columns=columns) == []
    assert vendor.params[0].get("fields") == fields


def test_pages_are_asked_for_as_entities_are_read() -> None:
    vendor = source(page(entity("a"), cursor="2"), page(entity("b"), cursor="3"), page(entity("c")))
    found = Backstage(http(vendor)).records(ask())
    assert vendor.seen == []
    next(found)
    next(found)
    assert len(vendor.seen) == 2


# --- references ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("team-a", "group:default/team-a"),
        ("Team-A", "group:default/team-a"),
        (" team-a\n", "group:default/team-a"),
        ("user:jane", "user:default/jane"),
        ("User:default/Jane", "user:default/jane"),
        ("other/team-a", "group:other/team-a"),
        ("", ""),
        ("  ", ""),
    ],
)
def test_a_short_reference_means_a_group_of_the_same_namespace(reference: str, full: str) -> None:
    assert full_reference(reference, "group", "default") == full
    assert full_reference(full, "user", "elsewhere") == full


@pytest.mark.parametrize("reference", ["a:b:c", "a/b/c", "a/b:c", ":a", "/a", "a:", "a/", "group:/a", ":default/a"])
def test_what_is_no_reference_is_said_to_be_none(reference: str) -> None:
    with pytest.raises(ValueError, match="no reference"):
        full_reference(reference, "group", "default")


def test_references_are_read_in_the_entitys_own_namespace_and_the_fields_own_kind() -> None:
    held = {
        "kind": "Component",
        "metadata": {"name": "app", "namespace": "Payments"},
        "spec": {"owner": "Team-A", "system": "Core", "subcomponentOf": "main", "bad": "a:b:c", "many": ["a"]},
    }
    columns = {"owner": "spec.owner", "team": "spec.owner", "system": "spec.system", "part": "spec.subcomponentOf"}
    columns |= {"none": "spec.none", "bad": "spec.bad", "many": "spec.many", "raw": "spec.system"}
    refs = {name: "name" if name == "team" else "full" for name in columns if name != "raw"}
    (found,) = read(source(page(held)), columns=columns, refs=refs)
    assert found.name == "component:payments/app"
    assert found.values == {
        "owner": "group:payments/team-a",
        "team": "team-a",
        "system": "system:payments/core",
        "part": "component:payments/main",
        "none": "",
        "bad": "",
        "many": "",
        "raw": "Core",
    }
    assert found.problem == (
        "column 'bad': it is no reference to an entity ([kind:][namespace/]name);"
        " column 'many': it is a list, where one value is wanted"
    )


@pytest.mark.parametrize(
    "held", [{}, {"kind": "A"}, {"kind": "A", "metadata": None}, {"kind": 1, "metadata": {"name": "a\nb"}}]
)
def test_an_entity_without_a_name_is_found_by_its_number(held: dict[str, Any]) -> None:
    assert [record.name for record in read(source(page(held, held)), columns={"a": "kind"})] == ["item 1", "item 2"]


# --- what is no answer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        [],
        {},
        {"items": []},
        {"items": None, "pageInfo": {}},
        {"items": ["a"], "pageInfo": {}},
        {"items": [], "pageInfo": {"nextCursor": 7}},
        {"items": [], "pageInfo": ["cursor"]},
    ],
)
def test_an_answer_of_another_shape_is_not_understood(said: object) -> None:
    with pytest.raises(AnswerNotUnderstood):
        read(source(said))


def test_half_a_letter_in_one_entity_costs_no_other() -> None:
    said = rb'{"items": [{"title": "cut \ud83d"}, {"title": "whole"}], "pageInfo": {}, "totalItems": 2}'
    found = read(source(answer(said)), columns={"title": "title"})
    assert [record.values["title"] for record in found] == ["", "whole"]
    assert "surrogate" in found[0].problem


def test_a_catalog_that_leads_in_a_circle_ends_with_an_error() -> None:
    with pytest.raises(AnswerNotUnderstood, match="read before"):
        read(source(page(entity("a"), cursor="same")))


def test_a_catalog_beyond_the_ceiling_is_not_read() -> None:
    with pytest.raises(AnswerNotUnderstood, match="more than 2 entities"):
        list(Backstage(http(Catalog({1, 2, 3})), at_most=2).records(ask()))


def test_no_page_is_asked_for_beyond_the_invocation() -> None:
    vendor = source(page(entity("a"), cursor="2"), page(entity("b")))
    with pytest.raises(VendorUnreachable, match="no time left"):
        list(Backstage(http(vendor, remaining_s=lambda: 1.0)).records(ask()))
    assert len(vendor.seen) == 1


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [(401, CredentialRefused, "externalAccess"), (403, CredentialRefused, "entity.read"), (404, NotFound, "backend's")],
)
def test_a_refusal_says_what_to_do(status: int, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        read(source(answer({"error": {"name": "Error", "message": "no"}}, status)))


# --- against the stand-in ------------------------------------------------------------------------------------------


@pytest.fixture
def wire() -> Iterator[httpx.Client]:
    with new_wire() as made:
        yield made


@pytest.mark.parametrize("page_items", [5, 500])
def test_the_stand_ins_catalog_is_read_whole(wire: httpx.Client, page_items: int) -> None:
    columns = {"app": APP_ID, "team": "spec.owner"}
    with BackstageStandIn() as backend:
        client = Backstage(http(wire, backend.api_url, auth=Credential(fixed(SecretStr(TOKEN)), "backstage")))
        found = list(client.records(ask(columns=columns, refs={"team": "full"}, page_items=page_items)))
        state = backend.state()
    assert len(found) == 12
    assert {record.values["app"]: record.values["team"] for record in found}[
        "app-auth-prod"
    ] == "group:default/team-auth"
    assert all(record.values["team"].startswith("group:default/team-") and not record.problem for record in found)
    assert (state["violations"], state["response_violations"]) == ([], [])

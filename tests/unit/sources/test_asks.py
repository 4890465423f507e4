"""What relay.yaml says is read: a bad ask is refused when the file is checked, not when the source is read."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from finops_relay.sources.asks import CatalogAsk, JsonAsk, TableAsk
from pydantic import ValidationError


def table(**given: object) -> TableAsk:
    return TableAsk.model_validate({"table": "cmdb_ci_business_app", "columns": {"app": "name"}, **given})


def catalog(**given: object) -> CatalogAsk:
    return CatalogAsk.model_validate({"filters": ["kind=component"], "columns": {"app": "metadata.name"}, **given})


def items(**given: object) -> JsonAsk:
    return JsonAsk.model_validate({"columns": {"app": "name"}, **given})


def test_what_prepare_and_config_import_loads_no_http() -> None:
    code = (
        "import sys; sys.path.insert(0, 'layers/relay');"
        "import finops_relay.sources.asks, finops_relay.sources.records;"
        "print([name for name in ('httpx', 'httpcore', 'tenacity') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 -- our own code
    assert done.stdout.strip() == "[]"


def test_only_what_has_to_be_said_is() -> None:
    assert (table().page_rows, table().display_values, table().alternatives) == (1_000, False, ("",))
    assert (catalog().page_items, catalog().refs) == (500, {})
    assert (items().path, items().items, items().params, items().cursor_param) == ("", "@", {}, "cursor")


@pytest.mark.parametrize("make", [table, catalog, items])
def test_an_unknown_key_and_no_columns_are_refused(make: Any) -> None:  # noqa: ANN401 -- any of the three
    with pytest.raises(ValidationError, match="Extra inputs"):
        make(colums={})
    with pytest.raises(ValidationError, match="at least 1"):
        make(columns={})
    with pytest.raises(ValidationError, match="frozen"):
        make().columns = {}


@pytest.mark.parametrize("name", ["", "Business Apps", "../sys_user", "a/b", "a?b", "a.b", "{table}"])
def test_a_table_is_named_as_in_its_address(name: str) -> None:
    with pytest.raises(ValidationError):
        table(table=name)


@pytest.mark.parametrize("field", ["", "a,b", "a b", ".a", "a.", "a..b", "A"])
def test_a_field_that_is_none_is_refused(field: str) -> None:
    with pytest.raises(ValidationError):
        table(columns={"app": field})


@pytest.mark.parametrize("field", ["name", "u_app_id", "owned_by.manager.email", "sys_id"])
def test_a_field_may_be_walked_to(field: str) -> None:
    assert table(columns={"app": field}).columns == {"app": field}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("active=true^ORDERBYname", "ORDERBY"),
        ("ORDERBYDESCname", "ORDERBY"),
        ("active=true^NQORDERBYname", "ORDERBY"),
        ("active=true^GROUPBYname", "GROUPBY"),
        ("active=true&sysparm_limit=10", "sysparm_"),
        ("owned_by=javascript:gs.getUserID()", "javascript"),
        ("owned_by=JavaScript:gs.getUserID()", "javascript"),
        ("ORname=a", "begins with OR"),
        ("a=1^NQORb=2", "begins with OR"),
        ("a=1^NQ", "empty part"),
        ("NQa=1", "empty part"),
        ("a=1^NQ^EQ", "empty part"),
        ("a=1\n", "one line"),
    ],
)
def test_a_query_that_our_paging_could_not_be_added_to_is_refused(query: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        table(query=query)


@pytest.mark.parametrize(
    ("query", "alternatives"),
    [
        ("", ("",)),
        ("^EQ", ("",)),
        ("active=true", ("active=true",)),
        ("active=true^EQ", ("active=true",)),
        ("^active=true^", ("active=true",)),
        ("a=1^ORa=2^b=3", ("a=1^ORa=2^b=3",)),
        ("a=1^EQ^NQb=2^EQ", ("a=1", "b=2")),
        ("a=x^^NQb=2", ("a=x^^NQb=2",)),
        ("a=x^^^NQb=2^^", ("a=x^^", "b=2^^")),
        ("nameLIKEorderby^orderly=1", ("nameLIKEorderby^orderly=1",)),
        ("a=^b=2", ("a=^b=2",)),
    ],
)
def test_a_query_is_taken_apart_where_servicenow_begins_a_new_one(query: str, alternatives: tuple[str, ...]) -> None:
    assert table(query=query).alternatives == alternatives


@pytest.mark.parametrize(
    "given", [{"page_rows": 0}, {"page_rows": 10_001}, {"page_rows": True}, {"query": "x" * 5_000}]
)
def test_figures_have_their_bounds(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        table(**given)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "character 1"),
        ("spec.", r"character 6 on \(Expecting"),
        ("spec[", "character 6"),
        ("a ==", "character 5"),
        ("metadata.annotations.a/b", "character 23"),
        ("'open", "character 1 on .Unclosed"),
        ("metadata.name | upper(@)", r"no function upper\(\), at character 17"),
        ("[?matches(@, 'a')]", r"no function matches\(\)"),
        ("(" * 1_500, "character 1"),
    ],
)
def test_an_expression_that_is_none_is_refused_with_its_place(expression: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        catalog(columns={"app": expression})
    with pytest.raises(ValidationError, match=words):
        items(columns={"app": expression})
    with pytest.raises(ValidationError, match=words):
        items(items=expression)


def test_references_are_among_the_columns() -> None:
    assert catalog(columns={"owner": "spec.owner"}, refs={"owner": "full"}).refs == {"owner": "full"}
    with pytest.raises(ValidationError, match="'team', which is none of the columns"):
        catalog(refs={"team": "full"})
    with pytest.raises(ValidationError, match="full"):
        catalog(refs={"app": "short"})


@pytest.mark.parametrize("given", [{"filters": []}, {"filters": [""]}, {"filters": ["a\nb"]}, {"page_items": 501}])
def test_a_catalog_is_never_read_whole_by_mistake(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        catalog(**given)


@pytest.mark.parametrize(
    ("path", "sent"),
    [("", ""), ("apps", "/apps"), ("/v1/apps/", "/v1/apps/"), ("a%20b/c;d=1", "/a%20b/c;d=1"), ("/a:b@c", "/a:b@c")],
)
def test_a_path_is_added_to_the_address(path: str, sent: str) -> None:
    assert items(path=path).path == sent


@pytest.mark.parametrize(
    "path",
    [
        *("https://evil.example/x", "//evil.example/x", "/a//b", "/", "?a=b", "/a?b", "/a#b", "/a b", "/{id}", "/a\\b"),
        *("..", "/..", "/a/../b", "/a/.", "/%2e%2e/b", "/a%2F..%2Fb", "/a%5c..%5cb", "/ä", "/a%zz"),
    ],
)
def test_a_path_that_would_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="path"):
        items(path=path)


@pytest.mark.parametrize(
    "given",
    [{"next": "a", "cursor": "b"}, {"next": "a", "link_header": True}, {"cursor": "a", "link_header": True}],
)
def test_there_is_one_way_to_the_next_page(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="name one"):
        items(**given)

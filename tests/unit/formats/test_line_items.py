from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import pytest
from finops_relay.formats.json_items import JSON_BYTES, MAX_NAMES
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.formats.costs import HOSTILE, HOUR, ITEM, fault, only, read, refused, table

Writer = Callable[[Sequence[object]], bytes]

NUMBER: dict[str, object] = {**ITEM, "cost": 1.25}


def array(items: Sequence[object]) -> bytes:
    return json.dumps(items).encode()


def indented(items: Sequence[object]) -> bytes:
    return json.dumps({"line_items": items}, indent=2).encode()


def wrapped(items: Sequence[object]) -> bytes:
    return json.dumps({"line_items": items}).encode()


def body(items: Sequence[object]) -> bytes:
    half = len(items) // 2
    return json.dumps({"billing_drops": [{"line_items": items[:half]}, {"line_items": items[half:]}]}).encode()


def ndjson(items: Sequence[object]) -> bytes:
    return "".join(json.dumps(item) + "\n" for item in items).encode()


def ndjson_crlf(items: Sequence[object]) -> bytes:
    return "\r\n".join(map(json.dumps, items)).encode()


SHAPES: tuple[Writer, ...] = (array, indented, wrapped, body, ndjson, ndjson_crlf)


def item(**members: object) -> dict[str, object]:
    return {**NUMBER, **members}


def columns(members: Mapping[str, object]) -> dict[str, str]:
    return only(ndjson([members])).columns


# --- mapping ----------------------------------------------------------------------------------------------------------


def test_a_line_item_becomes_a_row_of_the_format() -> None:
    row = only(table(ITEM))
    assert row.columns == {
        "time/usage_start": "2026-02-04T00:00:00Z",
        "cost/cost": "1.25",
        "lineitem/description": "February",
        "resource/service": "Support desk",
    }
    assert (row.line, row.hour, row.costs[0]) == (2, HOUR, Decimal("1.25"))


@pytest.mark.parametrize("write", SHAPES)
def test_every_shape_of_json_gives_the_rows_of_the_csv(write: Writer) -> None:
    items = [item(cost=n, metadata={"team": f"t{n}"}) for n in range(7)]
    flat = [{**ITEM, "cost": str(n), "team": f"t{n}"} for n in range(7)]
    done = read(write(items))
    assert done.reader.form == "line_items"
    assert done.reader.columns == (*ITEM, "team")
    assert [row.columns for row in done.rows] == [row.columns for row in read(table(*flat)).rows]
    assert [row.line for row in done.rows] == list(range(1, 8))


def test_further_columns_are_tags_and_the_resource_is_made_from_the_service() -> None:
    row = only(table({**ITEM, "team": "core", "Env:x": "prod", "empty": ""}))
    assert row.columns["resource/tag:team"] == "core"
    assert row.columns["resource/tag:Env:x"] == "prod"
    assert "resource/tag:empty" not in row.columns
    assert row.columns["resource/id"] == "line-item/Support desk"


@pytest.mark.parametrize(
    ("members", "written"),
    [
        ({"service": "a/b:c"}, "line-item/a_b_c"),
        ({"service": ""}, "line-item/unknown"),
        ({"service": None}, "line-item/unknown"),
        ({"resource/id": "desk/7"}, "desk/7"),
        ({"resource/id": "arn:aws:s3:::b"}, "s3/b"),
    ],
)
def test_a_resource_that_is_named_stays_and_others_depend_on_the_service_alone(
    members: dict[str, object], written: str
) -> None:
    assert columns(item(**members, metadata={"team": "core"}))["resource/id"] == written


def test_a_row_without_tags_gets_no_resource() -> None:
    done = read(ndjson([item(metadata={"team": "x"}), item(metadata={"team": " "}), item(), item(metadata=None)]))
    assert ["resource/id" in row.columns for row in done.rows] == [True, False, False, False]


def test_names_of_the_format_are_its_columns_also_inside_metadata() -> None:
    written = columns(item(metadata={"resource/account": "12", "cost/amortized_cost": "1.25", "resource/tag:a": "b"}))
    assert written["resource/account"] == "12"
    assert written["cost/amortized_cost"] == "1.25"
    assert written["resource/tag:a"] == "b"


def test_metadata_named_like_an_items_own_members_is_a_tag() -> None:
    written = columns(item(metadata={"service": "x", "cost": 5}))
    assert written["resource/service"] == "Support desk"
    assert (written["resource/tag:service"], written["resource/tag:cost"]) == ("x", "5")
    assert written["cost/cost"] == "1.25"


def test_an_items_own_members_are_known_in_any_case() -> None:
    row = only(table({"Timestamp": ITEM["timestamp"], " COST ": "2", "Service": "s"}))
    assert row.columns["cost/cost"] == "2"
    assert row.columns["resource/service"] == "s"


def test_numbers_keep_the_digits_that_stood_there() -> None:
    data = b'{"timestamp":"2026-02-04T00:00:00Z","cost":0.10000000000000000001,"metadata":{"n":1.10,"b":true,"z":null}}'
    row = only(data)
    assert row.columns["cost/cost"] == "0.10000000000000000001"
    assert (row.columns["resource/tag:n"], row.columns["resource/tag:b"]) == ("1.10", "true")
    assert "resource/tag:z" not in row.columns
    assert only(data.replace(b"0.10000000000000000001", b"1E-7")).columns["cost/cost"] == "0.0000001"
    assert only(data.replace(b"0.10000000000000000001", b'"(1,200.50)"')).columns["cost/cost"] == "-1200.50"


# --- rejections -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (item(cost=None), "cost is empty"),
        (item(cost=float("nan")), "cost is no finite number"),
        (item(cost=True), "cost is not a plain decimal"),
        (item(cost=[1]), "'cost' is a list or an object"),
        (item(timestamp="2026-02-04"), "timestamp has no offset"),
        (item(timestamp=1770163200), "timestamp is no ISO 8601"),
        (item(timestamp="2026-02-04T00:30:00Z"), "timestamp is not on the hour"),
        (item(metadata={"Cost Center": "1"}), "white space"),
        (item(metadata={"": "1"}), "without a name"),
        (item(metadata={"a": {"b": 1}}), "'a' is a list or an object"),
        (item(metadata=[1]), "'metadata' is a list or an object"),
        (item(metadata="x"), "metadata is no object"),
        (item(team="a", metadata={"team": "b"}), "'team' stands twice"),
        (item(Cost="2"), "'cost' and 'Cost' are one column"),
        (item(metadata={"cost/cost": "2"}), "cost/cost is the Common Bill Format's name"),
        (item(service="a\x00b"), "service has a control character"),
        (item(service="\ud83d"), "half of a character"),
        (item(service="\udcff"), "bytes that are not UTF-8"),
        (item(**{"resource/id": "x"}), "resource/id has no type and name"),
        ({"cost": 1}, "timestamp is empty"),
        ({}, "timestamp is empty"),
        ({"metadata": {}}, "timestamp is empty"),
        (["x"], "no JSON object"),
        (None, "no JSON object"),
        ("text", "no JSON object"),
    ],
)
@pytest.mark.parametrize("write", [array, ndjson])
def test_a_faulty_item_is_rejected_with_its_number_and_its_neighbours_are_not(
    members: object, said: str, write: Writer
) -> None:
    done = read(write([NUMBER, NUMBER, members, NUMBER]))
    [row] = done.rejected
    assert said in row.error
    assert row.line == 3
    assert [row.line for row in done.all] == [1, 2, 3, 4]


def test_a_member_that_stands_twice_is_rejected() -> None:
    data = b'{"timestamp":"2026-02-04T00:00:00Z","cost":1,"cost":2}\n'
    assert fault(data).error == "'cost' stands twice"
    nested = b'{"timestamp":"2026-02-04T00:00:00Z","cost":1,"metadata":{"a":"1","a":"2"}}\n'
    assert fault(nested).error == "'a' stands twice"


def test_a_line_that_is_no_json_is_rejected_and_shown() -> None:
    done = read(ndjson([NUMBER]) + b'\n{"cost": 1,}\n' + ndjson([NUMBER]))
    [row] = done.rejected
    assert row.line == 3
    assert row.values[len(row.columns) :] == ('{"cost": 1,}',)
    assert [row.line for row in done.rows] == [1, 4]


def test_a_rejected_item_has_a_cell_for_every_name_seen_so_far() -> None:
    row = read(ndjson([item(metadata={"a": "1"}), item(cost="x", metadata={"b": "2"})])).rejected[0]
    assert dict(zip(row.columns, row.values, strict=True)) == {**ITEM, "cost": "x", "a": "", "b": "2"}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Cost Center", "white space"),
        ("metadata", "no object"),
        ("Cost", "one column"),
        ("resource/tag:a", "one column"),
        ("time/usage_start", "no column 'timestamp'"),
    ],
)
def test_a_csv_with_an_unusable_name_is_refused_whole(header: str, said: str) -> None:
    refusal = refused(table({**ITEM, "a": "1", header: "x"}))
    assert said in refusal.reason
    assert refusal.line == 1


# --- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"data": [1]}', "no line items"),
        (b'{\n"data": [1]\n}', "no line items"),
        (b'{\n"line_items": {}\n}', "no line items"),
        (b'{\n"billing_drops": [{}]\n}', "no line items"),
        (b'{\n"billing_drops": 1\n}', "no line items"),
        (b'{\n"billing_drops": null\n}', "no line items"),
        (b'{\n"line_items": [], "line_items": []\n}', "no line items"),
        (b'{"line_items": []}\n{"line_items": []}', "cannot be read"),
        (b"[{]", "cannot be read"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "no rows"),
        (b'{"line_items": []}', "no rows"),
        (b"[" + b" " * JSON_BYTES, "larger than"),
        (b'{"line_items": [' + b" " * JSON_BYTES, "larger than"),
    ],
)
def test_a_document_that_holds_no_line_items_is_refused(data: bytes, said: str) -> None:
    assert said in refused(data).reason


def test_a_document_that_is_too_large_is_refused_with_advice() -> None:
    assert "NDJSON" in refused(array([item(description="x" * 1000)] * 10_000)).fix


def test_ndjson_may_be_larger_than_a_document() -> None:
    data = ndjson([item(description="x" * 1000)]) * 10_000
    assert len(data) > JSON_BYTES
    assert read(data).reader.rows_in == 10_000


def test_a_single_object_is_one_row_on_one_line_or_on_many() -> None:
    assert only(json.dumps(NUMBER).encode()) == only(json.dumps(NUMBER, indent=1).encode())


def test_more_names_than_anybody_means_are_refused() -> None:
    refusal = refused(ndjson([item(metadata={f"k{n}": "v"}) for n in range(MAX_NAMES)]))
    assert f"more than {MAX_NAMES}" in refusal.reason


def test_a_csv_of_many_values_may_be_mended_by_number() -> None:
    done = read(array([NUMBER, item(cost="x"), ["y"]]), {2: {"cost": "3"}, 3: {**ITEM, "team": "core"}})
    assert [row.columns["cost/cost"] for row in done.rows] == ["1.25", "3", "1.25"]
    assert done.rows[2].columns["resource/tag:team"] == "core"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | HOSTILE | st.just(ITEM["timestamp"]),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(HOSTILE, values, max_size=3),
    max_leaves=5,
)
MEMBERS = st.sampled_from(["timestamp", "cost", "service", "description", "metadata", "resource/id", "team"]) | HOSTILE


@settings(max_examples=200)
@given(
    st.lists(VALUES | st.dictionaries(MEMBERS, VALUES, max_size=6).map(lambda drawn: {**NUMBER, **drawn}), max_size=6)
)
def test_any_item_is_either_accepted_or_rejected(items: list[object]) -> None:
    """Fuzzed: nothing that stands in an item ends the reading of the others."""
    items = [NUMBER, *items]
    done = read(ndjson([*items, NUMBER]))
    assert [row.line for row in done.all] == list(range(1, len(items) + 2))
    in_array = read(array([*items, NUMBER]))
    assert [(row.line, type(row)) for row in in_array.all] == [(row.line, type(row)) for row in done.all]
    for row in done.rejected:
        "".join(row.values).encode(errors="surrogateescape")
